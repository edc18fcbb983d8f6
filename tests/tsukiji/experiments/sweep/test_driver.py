"""The driver of a search: what it repeats, refuses and reports."""

import os
import pathlib
import signal
import threading
import time

import pytest
from ml_collections import ConfigDict

from search import study
from search.designer import Values
from search.space import Space
from tests.tsukiji.experiments.sweep.test_trial import searched
from tests.tsukiji.experiments.test_cluster import children, resource_trackers
from tsukiji.experiments import executor, placement, prepare
from tsukiji.experiments.executor import Ended, Executor, Future, Tell
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.sweep import driver, trial, tuning
from tsukiji.training import loop


def found(
  experiment: Experiment,
  space: Space,
  config: ConfigDict,
  on_epoch: loop.OnEpoch = loop.ignore,
) -> Values:
  """Return an error that halves from epoch to epoch."""
  error = config.networks.net.sizes.hidden / 100
  for epoch in (1, 2):
    on_epoch(epoch, 1 - error / epoch)
  return Values((error / 2,))


@pytest.fixture
def made(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
  monkeypatch.setattr(trial, 'run', found)
  config = searched()
  config.search.update(designer='random', trials=6, workers=1)
  config.search.objectives = ('val_accuracy',)
  return prepare.prepare(config, tmp_path)


def run(experiment: Experiment) -> tuning.Best:
  """Run a search in this process."""
  return driver.run(experiment, lambda *_: executor.here(experiment.data))


def params(made: Experiment) -> list[dict[str, object]]:
  """Return what the trials of the first study tried."""
  return [t.params for t in tuning.trials(made)[0][1]]


def test_what_a_killed_driver_left_running_is_repeated(
  made: Experiment, tmp_path: pathlib.Path
) -> None:
  storage, (plan,) = tuning.storage_of(made), tuning.plans(made)
  left, _ = study.ask(study.begun(plan, storage, driver.name_of(made)))
  study.ask(left)
  run(made)
  ((_, every),) = tuning.trials(made)
  assert [t.number for t in every] == [*range(6)]
  assert [t.user_attrs.get('deaths', 0) for t in every] == [1, 1, 0, 0, 0, 0]
  (tmp_path / 'whole').mkdir()
  whole = prepare.prepare(made.config, tmp_path / 'whole')
  run(whole)
  assert params(whole) == params(made)


def test_errors_behind_epochs_are_kept_for_the_dashboard(
  made: Experiment,
) -> None:
  run(made)
  for one in tuning.trials(made)[0][1]:
    assert [*one.intermediate_values] == [1, 2]
    assert one.intermediate_values[2] == pytest.approx(one.values[0])


def test_a_study_with_trials_of_another_driver_is_refused(
  made: Experiment,
) -> None:
  storage, (plan,) = tuning.storage_of(made), tuning.plans(made)
  study.ask(study.begun(plan, storage, 'elsewhere:/runs'))
  with pytest.raises(ValueError, match='expected no other driver, got') as said:
    run(made)
  assert len(str(said.value)) <= 300


def test_studies_share_the_workers(made: Experiment) -> None:
  made.config.search.update(seeds=(0, 1), trials=2)
  waiting: list[Ended] = []

  def submit(tell: Tell, task: object, light: object, *args: object) -> Future:
    future = object()
    waiting.append(Ended(future, [Values((0.5,))]))
    return future

  def wait(seconds: float) -> list[Ended]:
    return [waiting.pop(0)]

  driver.run(made, lambda *_: Executor(lambda: 2, submit, wait))
  starts = [t.datetime_start for _, own in tuning.trials(made) for t in own]
  first = sorted(starts)[:2]
  assert first == [starts[0], starts[2]]


def test_a_killed_trial_says_so(made: Experiment) -> None:
  def submit(tell: Tell, *_: object) -> Future:
    return 0

  def wait(seconds: float) -> list[Ended]:
    return [Ended(0, None, executor.Killed('a worker process was killed'))]

  with pytest.raises(ValueError, match='Killed: a worker process was killed'):
    driver.run(made, lambda *_: Executor(lambda: 1, submit, wait))


def kill_one(folder: pathlib.Path, before: set[int]) -> None:
  """Kill a worker once a trial has an epoch behind it."""
  path = folder / 'trials' / 'metrics.jsonl'
  while not path.exists():
    time.sleep(0.05)
  new = children() - before - resource_trackers()
  os.kill(min(new), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_worker_changes_no_trial(tmp_path: pathlib.Path) -> None:
  config = searched()
  config.train.lr = 1e-3  # random steps would diverge
  config.search.update(designer='random', trials=4, epochs=4, workers=2)
  config.workers = 2
  found = []
  for name, killed in (('here', False), ('killed', True)):
    (tmp_path / name).mkdir()
    made = prepare.prepare(config, tmp_path / name)
    if not killed:
      run(made)
    else:
      args = (made.folder, children())
      threading.Thread(target=kill_one, args=args, daemon=True).start()
      place = placement.opened(config, made.folder, made.data)
      with place as executors:
        driver.run(made, executors)
    ((_, every),) = tuning.trials(made)
    found.append([(t.number, t.state, t.params, t.values) for t in every])
  assert found[0] == found[1]
  assert len(found[0]) == 4
