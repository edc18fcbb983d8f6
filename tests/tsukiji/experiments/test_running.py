"""Cells: which are left, what they need, in which order they run."""

import pathlib
from typing import Any

import pytest

from tests.tsukiji.experiments.test_rows import tiny
from tsukiji.experiments import executor, jobs, prepare, running, store
from tsukiji.experiments.executor import Ended, Executor, Future, Tell
from tsukiji.experiments.jobs import Cell, Experiment


def chained() -> Any:
  """Return a config with a teacher and a recipe that starts from another."""
  config = tiny(a='quantize.int8()', b='quantize.uniform(4)')
  config.networks.big = config.networks.net.copy_and_resolve_references()
  config.networks.big.recipes = ()
  config.recipes.a.start = 'b'
  config.recipes.b.method = 'distill.kd(2.0)'
  config.recipes.b.teacher = ('big',)
  return config


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


def finish(folder: pathlib.Path, *cells: Cell) -> None:
  """Write the rows of cells."""
  for one in cells:
    row = dict.fromkeys(store.KEYS)
    store.write_cell(folder, {**row, 'name': jobs.cell_name(*one)})


def opened(config: Any, folder: pathlib.Path) -> Experiment:
  """Return an experiment in a claimed folder."""
  made = prepare.prepare(config, folder)
  store.claim(folder, config)
  return made


def test_what_is_left_has_no_row_or_is_needed_by_it(
  tmp_path: pathlib.Path,
) -> None:
  config = chained()
  config.networks.net.update(dense=False, of='big')  # a start without a row
  made = opened(config, tmp_path)
  dense, big = ('net', 0, 'dense'), ('big', 0, 'dense')
  a, b = ('net', 0, 'a'), ('net', 0, 'b')
  assert jobs.unfinished(made) == [dense, big, a, b]
  assert jobs.needed(config, b) == {dense, big}
  assert jobs.needed(config, a) == {b}
  finish(tmp_path, big, b)
  assert jobs.unfinished(made) == [a]
  finish(tmp_path, a)
  assert jobs.unfinished(made) == []


class Recorded(Exception):
  """What a fake executor has seen so far."""


def recording(seen: list[list[Cell]], slots: int) -> Executor:
  """Return an executor that runs nothing; tasks end in their order."""
  waiting: list[Ended] = []

  def submit(tell: Tell, task: Any, light: Experiment, one: Cell) -> Future:
    assert len(light.data.train.y) == 0
    waiting.append(Ended(one, None))
    return one

  def wait(seconds: float) -> list[Ended]:
    seen.append([ended.future for ended in waiting])
    return [waiting.pop(0)]

  return Executor(lambda: slots, submit, wait)


def test_cells_wait_for_what_they_need(tmp_path: pathlib.Path) -> None:
  made = opened(chained(), tmp_path)
  seen: list[list[Cell]] = []
  running.run(made, lambda tasks, wanted: recording(seen, 2))
  assert [[f'{x[0]}-{x[2]}' for x in step] for step in seen] == [
    ['big-dense', 'net-dense'],
    ['net-dense'],
    ['net-b'],
    ['net-a'],
  ]


def test_what_has_failed_is_raised(tmp_path: pathlib.Path) -> None:
  made = opened(chained(), tmp_path)

  def failing(error: Exception) -> Executor:
    end = Ended(0, None, error)
    return Executor(lambda: 1, lambda *_: 0, lambda seconds: [end])

  with pytest.raises(FloatingPointError, match='step 7'):
    running.run(made, lambda *_: failing(FloatingPointError('step 7')))
  killed = executor.Killed('a worker process was killed 5 times')
  with pytest.raises(ValueError, match='got big-0-dense: a worker') as said:
    running.run(made, lambda *_: failing(killed))
  assert len(str(said.value)) <= 300


def test_finished_cells_start_no_workers(tmp_path: pathlib.Path) -> None:
  config = tiny()
  made = opened(config, tmp_path)
  finish(tmp_path, ('net', 0, 'dense'))
  running.run(made, lambda *_: pytest.fail('nothing is left to do'))
