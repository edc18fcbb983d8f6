"""Workers that are killed are replaced, and nothing is lost with them."""

import multiprocessing
import os
import pathlib
import signal
import time
from collections.abc import Iterator

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from search import storage as storage_lib
from search import study
from search.designer import Values
from tests import postgres
from tests.search.test_study import plan
from tsukiji import interrupt
from tsukiji.experiments import crew, pool

TRIALS, KILLS = 6, 3
LEASE = 2.0  # seconds


@pytest.fixture(
  params=['sqlite', pytest.param('postgresql', marks=pytest.mark.slow)]
)
def where(
  request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> Iterator[str]:
  """Return the URL of a storage."""
  if request.param == 'sqlite':
    yield f'sqlite:///{tmp_path}/study.db'
  else:
    with postgres.server() as url:
      yield url


def ran(i: int, where: str, look: crew.Look) -> None:
  """Try a little."""

  def objective(config: object) -> Values:
    look()
    time.sleep(1.0)
    return Values((config.x,))

  optuna.logging.set_verbosity(optuna.logging.ERROR)
  used = plan(TRIALS, lease=LEASE)._replace(objective=objective)
  study.work(used, storage_lib.opened(where))


def fails(i: int, kind: str, look: crew.Look) -> None:
  """Raise the given error."""
  raise {'ValueError': ValueError, 'KeyError': KeyError}[kind]('told why')


def dies(i: int, argument: None, look: crew.Look) -> None:
  """End as a process without memory does."""
  raise SystemExit(9)


def waits(i: int, argument: None, look: crew.Look) -> None:
  """Work until a stop request."""
  while interrupt.requested() is None:
    time.sleep(0.05)
  raise interrupt.Stopped(interrupt.requested() or 0)


@pytest.mark.slow
def test_killed_workers_are_replaced_and_no_trial_is_lost_or_doubled(
  where: str,
) -> None:
  storage = storage_lib.opened(where)
  assert isinstance(storage, RDBStorage)
  known = study.opened(plan(TRIALS), storage)
  killed: list[int] = []

  def kill() -> None:
    running = [
      t for t in known.trials if t.state == TrialState.RUNNING and t.params
    ]
    children = [
      p for p in multiprocessing.active_children() if p.pid not in killed
    ]
    done = len([t for t in known.trials if t.state == TrialState.COMPLETE])
    if running and len(killed) < KILLS and done >= len(killed) and children:
      killed.append(children[0].pid or 0)
      children[0].kill()

  crew.run(2, ran, where, kill)
  kept = [t for t in known.trials if study.counts(t)]
  assert len(killed) == KILLS
  assert [t.state for t in kept] == [TrialState.COMPLETE] * TRIALS
  assert len({str(t.params) for t in kept}) == TRIALS
  # One that died while it was being asked for had only some of its values.
  for lost in (t for t in known.trials if not study.counts(t)):
    assert any(lost.params.items() <= t.params.items() for t in kept)
  storage.remove_session()
  storage.engine.dispose()  # else its connections end with a warning


@pytest.mark.slow
def test_a_worker_paused_beyond_its_lease_changes_nothing(where: str) -> None:
  storage = storage_lib.opened(where)
  assert isinstance(storage, RDBStorage)
  known = study.opened(plan(TRIALS), storage)
  paused: list[int] = []
  since: list[float] = []

  def pause() -> None:
    running = [
      t for t in known.trials if t.state == TrialState.RUNNING and t.params
    ]
    children = multiprocessing.active_children()
    if len(running) == len(children) == 2 and not paused:
      paused.append(children[0].pid or 0)
      since.append(time.monotonic())
      os.kill(paused[0], signal.SIGSTOP)
    elif len(since) == 1 and time.monotonic() > since[0] + 2 * LEASE:
      since.append(time.monotonic())
      os.kill(paused[0], signal.SIGCONT)

  crew.run(2, ran, where, pause)
  assert len(since) == 2
  kept = [t for t in known.trials if study.counts(t)]
  assert [t.state for t in kept] == [TrialState.COMPLETE] * TRIALS
  assert len({str(t.params) for t in kept}) == TRIALS
  dropped = [t for t in known.trials if not study.counts(t)]
  assert len(dropped) <= 1
  for lost in dropped:  # its result came late, and another one is kept
    assert lost.values is None
    assert [t.params for t in kept].count(lost.params) == 1
  storage.remove_session()
  storage.engine.dispose()


def test_one_worker_works_here_and_looks_itself(tmp_path: pathlib.Path) -> None:
  looks: list[int] = []
  where = f'sqlite:///{tmp_path}/study.db'
  crew.run(1, ran, where, lambda: looks.append(len(looks)))
  assert len(looks) == TRIALS


@pytest.mark.parametrize(
  ('kind', 'error'), [('ValueError', ValueError), ('KeyError', RuntimeError)]
)
def test_what_workers_raise_is_raised(
  kind: str, error: type[Exception]
) -> None:
  with pytest.raises(error, match='told why'):
    crew.run(2, fails, kind, lambda: None)


def test_workers_that_die_over_and_over_are_an_error(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  monkeypatch.setattr(crew, 'DEATHS', 2)
  with pytest.raises(
    ValueError, match='3 worker processes died, the last with exit'
  ):
    crew.run(2, dies, None, lambda: None)


def test_a_stop_request_reaches_the_workers(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  monkeypatch.setattr(interrupt, 'requested', lambda: 15)
  with pytest.raises(interrupt.Stopped):
    crew.run(2, waits, None, lambda: None)
  assert not multiprocessing.active_children()
  assert pool.workers(3) == 3
