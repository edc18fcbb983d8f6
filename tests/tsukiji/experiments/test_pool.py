"""How cells are handed to processes."""

import concurrent.futures
import pathlib
import queue
import signal
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest

from tests.tsukiji.experiments.test_rows import tiny
from tsukiji import interrupt
from tsukiji.experiments import cell, jobs, pool, prepare, store
from tsukiji.training import loop


def test_the_first_seed_of_every_network_comes_first() -> None:
  config = tiny()
  config.networks.other = config.networks.net.copy_and_resolve_references()
  config.networks.other.seeds = (1,)
  config.seeds = (1, 0)
  assert jobs.of(config) == [('net', 0), ('net', 1), ('other', 1)]


def test_a_recipe_may_have_seeds_of_its_own() -> None:
  config = tiny(a='quantize.int8()', b='quantize.uniform(4)')
  config.recipes.b.seeds = (1,)
  assert jobs.cells(config, 'net', 0) == ('dense', 'a')
  assert jobs.cells(config, 'net', 1) == ('dense', 'a', 'b')
  config.task = 'train'
  assert jobs.cells(config, 'net', 1) == ('dense',)


def test_finished_jobs_are_not_started(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  config = tiny()
  config.workers = 1
  experiment = prepare.prepare(config, tmp_path)
  store.claim(tmp_path, config)
  started: list[Any] = []
  monkeypatch.setattr(cell, 'run_network', lambda *args: started.append(args))
  pool.run(experiment)
  assert [args[1:3] for args in started] == [('net', 0)]
  store.write_cell(
    tmp_path, {**dict.fromkeys(store.KEYS), 'name': 'net-0-dense'}
  )
  pool.run(experiment)
  assert len(started) == 1


def test_a_worker_that_dies_is_reported_with_its_cells(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  config = tiny()
  config.workers = 2
  config.seeds = (0, 1)
  experiment = prepare.prepare(config, tmp_path)
  store.claim(tmp_path, config)
  store.write_cell(
    tmp_path, {**dict.fromkeys(store.KEYS), 'name': 'net-1-dense'}
  )

  def broken(
    futures: Any, progress: Any, on_progress: loop.OnProgress, then: Any
  ) -> None:
    for seed in (0, 1):
      on_progress(f'net-{seed}-dense', 0)
    raise BrokenProcessPool('abruptly')

  monkeypatch.setattr(pool, '_watch', broken)
  job = [('net', 0)]
  with pytest.raises(
    ValueError, match='was killed or crashed. .* net-0-dense. '
  ):
    pool._run_pool(experiment, job, 2, loop.ignore)


def test_progress_is_passed_on_before_a_failure_is_raised() -> None:
  progress: queue.Queue[tuple[str, int]] = queue.Queue()
  progress.put(('a', 3))
  future: concurrent.futures.Future[None] = concurrent.futures.Future()
  future.set_exception(FloatingPointError('step 7'))
  heard: list[tuple[str, int]] = []
  with pytest.raises(FloatingPointError, match='step 7'):
    pool._watch([future], progress, lambda *what: heard.append(what))
  assert heard == [('a', 3)]


def test_a_stop_request_ends_the_watch(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  waiting: concurrent.futures.Future[None] = concurrent.futures.Future()
  monkeypatch.setattr(interrupt, 'requested', lambda: signal.SIGTERM)
  with pytest.raises(interrupt.Stopped) as caught:
    pool._watch([waiting], queue.Queue(), lambda *_: None)
  assert caught.value.signum == signal.SIGTERM
