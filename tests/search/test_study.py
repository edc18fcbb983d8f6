"""Studies: what a crash, a failure or a second driver may not do."""

import gc
import math
import multiprocessing
import os
import pathlib
import signal
import time
from collections.abc import Callable, Iterator

import jax
import optuna
import pytest
from ml_collections import ConfigDict
from optuna.trial import TrialState

import search
from search import designer, pruning, study
from search import space as spaces
from search import storage as storage_lib
from search.bayes import bayes
from search.designer import Values
from search.study import Plan, Study
from tests import postgres

optuna.logging.set_verbosity(optuna.logging.ERROR)
Objective = Callable[[ConfigDict], Values]


def space() -> spaces.Space:
  """Return a space with a condition and an option that is no plain value."""
  config = ConfigDict({'epochs': 3})
  config.kind = search.choice('a', (3, 3))
  config.x = search.float(0.0, 1.0)
  config.y = search.log(1e-3, 1.0, when={'kind': 'a'})
  config.n = search.integer(1, 4)
  return spaces.of(config)


SPACE = space()


def found(config: ConfigDict) -> Values:
  """Return something, or now and then nothing."""
  if config.n == 4:
    raise RuntimeError('out of memory')
  return Values((math.nan if config.n == 3 else config.x,), (config.x - 0.9,))


def plan(trials: int) -> Plan:
  """Return a plan of random search."""
  return Plan('test', SPACE, designer.random(SPACE), trials)


def easy(config: ConfigDict) -> Values:
  """Return something."""
  return Values((config.x,))


def run(used: Plan, where: str, objective: Objective = found) -> Study:
  """Run a study in a storage that is opened anew."""
  return study.run(used, storage_lib.opened(where), objective)


def begun(used: Plan, where: str, driver: str = '') -> Study:
  """Begin a study in a storage that is opened anew."""
  return study.begun(used, storage_lib.opened(where), driver)


def trials(where: str) -> list[optuna.trial.FrozenTrial]:
  """Return what is stored."""
  storage = storage_lib.opened(where)
  key = study.opened(plan(1), storage)
  return storage.get_all_trials(key)


@pytest.fixture(params=['sqlite:///{}/trials.db', '{}/trials.log'])
def where(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> str:
  """Return a storage."""
  return request.param.format(tmp_path)


@pytest.mark.slow
def test_failures_are_kept_as_infeasible_and_do_not_stop(where: str) -> None:
  run(plan(12), where)
  for trial in trials(where):
    n = trial.params['n']
    assert (trial.state == TrialState.FAIL) == (n > 2)
    reason = trial.user_attrs.get('infeasible', '')
    assert ('RuntimeError: out of memory' in reason) == (n == 4)
    assert ('nan' in reason) == (n == 3)
    assert ('y' in trial.params) == (trial.params['kind'] == 'a')
  assert {t.state for t in trials(where)} == {
    *(TrialState.COMPLETE, TrialState.FAIL)
  }


@pytest.mark.slow
def test_a_study_goes_on_as_if_it_had_not_stopped(
  tmp_path: pathlib.Path,
) -> None:
  params = []
  for steps in ([8], [3, 8]):
    where = f'sqlite:///{tmp_path}/{len(steps)}.db'
    for most in steps:
      run(plan(most), where)
    params.append([t.params for t in trials(where)])
  assert params[0] == params[1]
  assert len(params[0]) == 8


def test_the_state_is_what_the_designer_would_have(where: str) -> None:
  used = plan(9)
  state_there = run(used, where).state
  key = jax.random.key(used.seed)
  state = used.designer.init(key)
  for trial in trials(where):
    config, state = used.designer.ask(
      state, jax.random.fold_in(key, trial.number)
    )
    try:
      values = found(config)
    except RuntimeError:
      values = Values((math.nan,))
    state = used.designer.tell(state, config, values)
  for got in (study.known(used, trials(where)), state_there):
    known = [v for _, v in got.observations if math.isfinite(v.objectives[0])]
    assert all(v.seconds >= 0 for v in known)
    assert [v._replace(seconds=0.0) for v in known] == [
      v._replace(seconds=0.0)
      for _, v in state.observations
      if math.isfinite(v.objectives[0])
    ]
    assert len(got.observations) == len(state.observations) == 9


def victim(where: str) -> None:
  """Ask for two trials, tell one, and wait to be killed."""
  used, first = study.ask(begun(plan(6), where, 'a'))
  used, second = study.ask(used)
  assert first and second
  used = study.tell(used, second, easy(second.config))
  study.ask(used)
  time.sleep(600)


@pytest.fixture(params=['file', 'postgresql'])
def anywhere(
  request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> Iterator[str]:
  """Return a storage, also one of a server."""
  if request.param == 'file':
    yield f'sqlite:///{tmp_path}/trials.db'
  else:
    with postgres.server() as url:
      yield url
      gc.collect()  # connections end before their server


@pytest.mark.slow
def test_a_killed_driver_loses_nothing(anywhere: str) -> None:
  where = anywhere
  context = multiprocessing.get_context('spawn')
  driver = context.Process(target=victim, args=(where,), daemon=True)
  driver.start()
  while len(trials(where)) < 3:
    assert driver.is_alive()
    time.sleep(0.5)
  os.kill(driver.pid or 0, signal.SIGKILL)
  driver.join()
  left = [t.number for t in trials(where) if not t.state.is_finished()]
  assert left == [0, 2]
  again = begun(plan(6), where, 'a')
  assert [t.number for t in again.again] == left
  study.run(plan(6), storage_lib.opened(where), easy, 'a')
  kept = trials(where)
  assert [t.state for t in kept] == [TrialState.COMPLETE] * 6
  assert len({str(t.params) for t in kept}) == 6


@pytest.mark.slow
def test_drivers_that_take_turns_find_what_one_finds(
  tmp_path: pathlib.Path,
) -> None:
  whole, parts = (f'sqlite:///{tmp_path}/{x}.db' for x in ('whole', 'parts'))
  used = plan(5)._replace(designer=bayes(SPACE))
  run(used, whole, easy)
  done = False
  while not done:  # a driver that is killed while its trial runs
    one, trial = study.ask(begun(used, parts))
    if trial is not None:
      one, after = study.ask(study.tell(one, trial, easy(trial.config)))
    done = trial is None
  assert [t.params for t in trials(whole)] == [t.params for t in trials(parts)]
  assert [t.values for t in trials(whole)] == [t.values for t in trials(parts)]


def test_trials_that_run_belong_to_one_driver(where: str) -> None:
  used, trial = study.ask(begun(plan(2), where, 'here:/a'))
  with pytest.raises(ValueError, match='got trials that run under here:/a. W'):
    begun(plan(2), where, 'there:/a')
  assert trial is not None
  study.tell(used, trial, easy(trial.config))
  assert begun(plan(2), where, 'there:/a').kept == 1


def test_a_config_that_kills_its_drivers_is_infeasible_in_the_end(
  where: str,
) -> None:
  study.ask(begun(plan(1), where))
  for _ in range(study.DEATHS - 1):
    assert len(begun(plan(1), where).again) == 1
  last = begun(plan(1), where)
  assert not last.again and last.kept == 1
  (trial,) = trials(where)
  assert trial.user_attrs['infeasible'] == 'its driver died 10 times'
  assert trial.state == TrialState.FAIL and study.counts(trial)


def test_an_end_of_the_process_leaves_the_trial_running(where: str) -> None:
  def interrupted(config: ConfigDict) -> Values:
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    run(plan(3), where, interrupted)
  (left,) = trials(where)
  assert left.state == TrialState.RUNNING
  run(plan(3), where)
  assert [t.number for t in trials(where)] == [0, 1, 2]
  assert trials(where)[0].params == left.params


def test_unfinished_trials_of_earlier_releases_are_given_up(where: str) -> None:
  storage = storage_lib.opened(where)
  key = study.opened(plan(2), storage)
  for state in (TrialState.WAITING, TrialState.RUNNING):
    storage.create_new_trial(key, optuna.trial.create_trial(state=state))
  assert begun(plan(2), where).kept == 0
  run(plan(2), where, easy)
  assert [study.counts(t) for t in trials(where)] == [False, False, True, True]
  assert len(study.trials(plan(2), storage)) == 2


def test_values_on_the_way_are_stored(where: str) -> None:
  used, trial = study.ask(begun(plan(1), where))
  assert trial is not None
  for epoch, error in enumerate((0.5, math.nan, 0.25), 1):
    pruning.report(used, trial, epoch, error)
  assert trials(where)[0].intermediate_values == {1: 0.5, 3: 0.25}
  several = plan(1)._replace(name='several', objectives=2)
  used, trial = study.ask(begun(several, where))
  assert trial is not None
  pruning.report(used, trial, 1, 0.5)  # along which the dashboard draws nothing


def test_a_grid_ends_before_as_many_trials_as_planned(where: str) -> None:
  few = ConfigDict({'epochs': 1})
  few.x = search.float(0.0, 1.0)
  few.kind = search.choice('a', 'b')
  used = spaces.of(few)
  every = plan(40)._replace(space=used, designer=designer.grid(used, steps=3))
  assert run(every, where, easy).spent
  kept = study.trials(every, storage_lib.opened(where))
  assert len({str(t.params) for t in kept}) == len(kept) == 6


def test_a_storage_that_is_not_there_is_an_error(
  tmp_path: pathlib.Path,
) -> None:
  with pytest.raises(Exception, match='unable to open database file'):
    storage_lib.opened(f'sqlite:///{tmp_path}/none/trials.db')


def test_a_study_belongs_to_one_space(where: str) -> None:
  run(plan(2), where)
  other = ConfigDict({'epochs': 1})
  other.z = search.float(0.0, 1.0)
  used = spaces.of(other)
  with pytest.raises(
    ValueError, match="study 'test': expected a study of this"
  ):
    begun(plan(2)._replace(space=used), where)
  assert len(trials(where)) == 2


def test_options_of_one_text_are_all_tried(where: str) -> None:
  config = ConfigDict()
  config.size = search.choice((1, 2), '(1, 2)')
  used = spaces.of(config)
  tried: list[object] = []

  def objective(config: ConfigDict) -> Values:
    tried.append(config.size)
    return Values((0.0,))

  both = plan(2)._replace(space=used, designer=designer.grid(used))
  run(both, where, objective)
  assert set(map(repr, tried)) == {'(1, 2)', "'(1, 2)'"}


def test_a_study_begins_with_what_it_is_given() -> None:
  storage = storage_lib.opened('sqlite://')
  given = tuple(
    spaces.placed(SPACE, {'kind': 'a', 'x': x, 'n': 2}) for x in (0.25, 0.75)
  )
  begins = plan(3)._replace(first=given)
  done = study.run(begins, storage, easy)
  values = [t.params for t in study.trials(begins, storage)]
  assert [v['x'] for v in values[:2]] == [0.25, 0.75] and len(values) == 3
  plain = study.run(plan(3)._replace(name='plain'), storage, easy)
  # A suggestion hangs on its number, and on nothing that came before it.
  last = study.trials(plain.plan, storage)[2].params
  assert values[2] == last and done.kept == 3
