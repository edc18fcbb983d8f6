"""Studies: what a crash, a failure or a second worker may not do."""

import math
import multiprocessing
import os
import pathlib
import signal
import time
from collections.abc import Sequence

import jax
import optuna
import pytest
from ml_collections import ConfigDict
from optuna.trial import TrialState

import search
from search import designer, study
from search import space as spaces
from search import storage as storage_lib
from search.designer import Values
from search.study import Plan

optuna.logging.set_verbosity(optuna.logging.ERROR)


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


def plan(trials: int, lease: float = 60.0) -> Plan:
  """Return a plan of random search."""
  random = designer.random(SPACE)
  return Plan('test', SPACE, random, found, trials, lease=lease)


def trials(where: str) -> list[optuna.trial.FrozenTrial]:
  """Return what is stored."""
  return study.opened(plan(1), storage_lib.opened(where)).trials


@pytest.fixture(params=['sqlite:///{}/trials.db', '{}/trials.log'])
def where(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> str:
  """Return a storage."""
  return request.param.format(tmp_path)


@pytest.mark.slow
def test_failures_are_kept_as_infeasible_and_do_not_stop(where: str) -> None:
  study.work(plan(12), storage_lib.opened(where))
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
      study.work(plan(most), storage_lib.opened(where))
    params.append([t.params for t in trials(where)])
  assert params[0] == params[1]
  assert len(params[0]) == 8


def test_the_state_is_what_the_designer_would_have(where: str) -> None:
  used = plan(9)
  study.work(used, storage_lib.opened(where))
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
  got = study.known(SPACE, used.designer, key, trials(where), 1)
  known = [v for _, v in got.observations if math.isfinite(v.objectives[0])]
  assert all(v.seconds >= 0 for v in known)
  assert [v._replace(seconds=0.0) for v in known] == [
    v._replace(seconds=0.0)
    for _, v in state.observations
    if math.isfinite(v.objectives[0])
  ]
  assert len(got.observations) == len(state.observations) == 9


def hang(config: ConfigDict) -> Values:
  """Take longer than anybody lives."""
  time.sleep(600)
  return found(config)


def victim(where: str) -> None:
  """Work until killed."""
  study.work(
    plan(6, lease=2.0)._replace(objective=hang), storage_lib.opened(where)
  )


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(tmp_path: pathlib.Path) -> None:
  where = f'sqlite:///{tmp_path}/trials.db'
  study.opened(plan(6), storage_lib.opened(where))
  context = multiprocessing.get_context('spawn')
  worker = context.Process(target=victim, args=(where,), daemon=True)
  worker.start()
  while not any('x' in t.params for t in trials(where)):
    assert worker.is_alive()
    time.sleep(0.5)
  os.kill(worker.pid or 0, signal.SIGKILL)
  worker.join()
  used = plan(6, lease=2.0)._replace(objective=lambda c: Values((c.x,)))
  study.work(used, storage_lib.opened(where))
  kept = [t for t in trials(where) if t.state == TrialState.COMPLETE]
  (lost,) = [t for t in trials(where) if t.state == TrialState.FAIL]
  assert len(kept) == 6
  (again,) = [t for t in kept if 'retry_of' in t.user_attrs]
  assert again.user_attrs['retry_of'] == lost.number
  assert lost.params.items() <= again.params.items()
  assert len({str(t.params) for t in kept}) == 6


def test_what_is_interrupted_is_left_to_others(where: str) -> None:
  def interrupted(config: ConfigDict) -> Values:
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    study.work(
      plan(3)._replace(objective=interrupted), storage_lib.opened(where)
    )
  study.work(plan(3), storage_lib.opened(where))
  given, *kept = trials(where)
  assert given.state == TrialState.FAIL and not study.counts(given)
  assert kept[0].params == given.params
  assert len(kept) == 3


def test_a_config_that_kills_its_workers_is_infeasible_in_the_end(
  where: str,
) -> None:
  run = study.opened(plan(1), storage_lib.opened(where))
  for deaths in range(study.DEATHS):
    trial = run.ask()
    assert run.trials[-1].user_attrs.get('deaths', 0) == deaths
    trial.set_user_attr('lease', 0.0)
    study.begin(SPACE, trial)
    study.look_after(run, lease=60.0)
  last = run.trials[-1]
  assert last.user_attrs['infeasible'] == 'its worker died 5 times'
  assert last.state == TrialState.FAIL and study.counts(last)
  assert len({str(t.params) for t in run.trials}) == 1


def test_a_grid_ends_before_as_many_trials_as_planned(where: str) -> None:
  few = ConfigDict({'epochs': 1})
  few.x = search.float(0.0, 1.0)
  few.kind = search.choice('a', 'b')
  used = spaces.of(few)
  every = plan(40)._replace(
    space=used,
    designer=designer.grid(used, steps=3),
    objective=lambda c: Values((c.x,)),
  )
  study.work(every, storage_lib.opened(where))
  kept = [
    t for t in study.opened(every, storage_lib.opened(where)).trials if t.params
  ]
  assert len({str(t.params) for t in kept}) == len(kept) == 6


def test_what_is_queued_twice_runs_once(tmp_path: pathlib.Path) -> None:
  storage = storage_lib.opened(f'sqlite:///{tmp_path}/trials.db')
  used = plan(4)._replace(objective=lambda c: Values((c.x,)))
  run = study.opened(used, storage)
  dead = run.ask()
  study.suggested(SPACE, dead)
  for _ in range(2):
    run.enqueue_trial(dead.params, user_attrs={'retry_of': dead.number})
  run.tell(dead, state=TrialState.FAIL)
  study.work(used, storage)
  kept = [t for t in run.trials if t.state == TrialState.COMPLETE]
  assert len(kept) == 4
  assert sum(t.params == dead.params for t in kept) == 1


def test_a_worker_keeps_its_trial_as_long_as_it_lives(where: str) -> None:
  run = study.opened(plan(1), storage_lib.opened(where))
  trial = run.ask()
  with study.leased(trial, lease=0.4):
    time.sleep(0.5)
    first = run.trials[0].user_attrs['lease']
    time.sleep(0.5)
    assert run.trials[0].user_attrs['lease'] > first


def test_a_storage_that_is_not_there_is_an_error(
  tmp_path: pathlib.Path,
) -> None:
  with pytest.raises(Exception, match='unable to open database file'):
    storage_lib.opened(f'sqlite:///{tmp_path}/none/trials.db')


def test_a_queued_config_is_run_first_and_what_it_lacks_is_drawn(
  where: str,
) -> None:
  used = plan(2)
  run = study.opened(used, storage_lib.opened(where))
  run.enqueue_trial({'x': 0.25, 'n': 1, 'kind': 'a'})
  study.work(used, storage_lib.opened(where))
  first = trials(where)[0]
  assert first.values == [0.25] and 1e-3 <= first.params['y'] <= 1.0


def test_trials_of_a_batch_are_told_as_a_batch(
  where: str,
) -> None:
  sizes = []

  def group(configs: Sequence[ConfigDict]) -> list[Values]:
    sizes.append(len(configs))
    running = [t for t in trials(where) if t.state == TrialState.RUNNING]
    assert len(running) == len(configs)
    return [Values((config.x,)) for config in configs]

  several = plan(7)._replace(batch_size=3, group=group)
  study.work(several, storage_lib.opened(where))
  assert sizes == [3, 3, 1]
  kept = [t for t in trials(where) if study.counts(t)]
  assert len(kept) == 7 and len({str(t.params) for t in kept}) == 7
  assert all(t.values == [t.params['x']] for t in kept)


def test_an_error_of_a_group_counts_for_each_trial(where: str) -> None:
  def fails(configs: Sequence[ConfigDict]) -> list[Values]:
    raise RuntimeError('out of memory')

  def interrupted(configs: Sequence[ConfigDict]) -> list[Values]:
    raise KeyboardInterrupt

  several = plan(2)._replace(batch_size=2)
  with pytest.raises(KeyboardInterrupt):
    study.work(several._replace(group=interrupted), storage_lib.opened(where))
  given = trials(where)
  study.work(several._replace(group=fails), storage_lib.opened(where))
  kept = [t for t in trials(where) if study.counts(t)]
  assert [t.params for t in kept] == [t.params for t in given[:2]]
  for trial in kept:
    assert trial.state == TrialState.FAIL
    assert 'out of memory' in trial.user_attrs['infeasible']


def test_a_result_that_comes_after_the_lease_is_dropped(where: str) -> None:
  storage = storage_lib.opened(where)
  late: list[int] = []

  def objective(config: ConfigDict) -> Values:
    run = study.opened(plan(4), storage)
    if not late:  # a laptop sleeps; another worker takes over
      late.append(run.trials[-1].number)
      study.look_after(run, lease=-1.0)
    return Values((config.x,), (0.5,))

  study.work(plan(4)._replace(objective=objective), storage)
  kept = [t for t in trials(where) if study.counts(t)]
  assert len(kept) == 4
  (dropped,) = [t for t in trials(where) if not study.counts(t)]
  assert dropped.number == late[0] and dropped.values is None
  again = [t for t in kept if t.user_attrs.get('retry_of') == late[0]]
  assert [t.params for t in again] == [dropped.params]


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
def test_an_end_that_comes_after_the_lease_is_no_other_error(
  where: str, error: type[BaseException]
) -> None:
  storage = storage_lib.opened(where)

  def objective(config: ConfigDict) -> Values:
    study.look_after(study.opened(plan(1), storage), lease=-1.0)
    raise error('late')

  used = plan(1)._replace(objective=objective)
  if error is KeyboardInterrupt:
    with pytest.raises(KeyboardInterrupt):
      study.work(used, storage)
  else:  # tried again until its workers died too often
    study.work(used, storage)
    assert len(trials(where)) == study.DEATHS
  assert all(t.state != TrialState.COMPLETE for t in trials(where))


def test_a_study_belongs_to_one_space(where: str) -> None:
  storage = storage_lib.opened(where)
  study.work(plan(2), storage)
  other = ConfigDict({'epochs': 1})
  other.z = search.float(0.0, 1.0)
  used = spaces.of(other)
  with pytest.raises(
    ValueError, match="study 'test': expected a study of this"
  ):
    study.opened(plan(2)._replace(space=used), storage)
  assert len(trials(where)) == 2


def test_options_of_one_text_are_all_tried(where: str) -> None:
  config = ConfigDict()
  config.size = search.choice((1, 2), '(1, 2)')
  used = spaces.of(config)
  tried: list[object] = []

  def objective(config: ConfigDict) -> Values:
    tried.append(config.size)
    return Values((0.0,))

  both = plan(2)._replace(
    space=used, designer=designer.grid(used), objective=objective
  )
  study.work(both, storage_lib.opened(where))
  assert set(map(repr, tried)) == {'(1, 2)', "'(1, 2)'"}
