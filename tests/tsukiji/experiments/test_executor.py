"""Executors: tasks that run here, and the devices of workers."""

from typing import Any

import jax
import numpy as np
import pytest

from tsukiji import interrupt
from tsukiji.data.datasets import Data, Split
from tsukiji.experiments import executor
from tsukiji.experiments.executor import Tell

NONE = Split(np.zeros((3, 1)), np.zeros(3))
DATA = Data('none', NONE, NONE, NONE, ())


def half(tell: Tell, data: Data, x: float) -> float:
  """Return half of a number, and tell what it was."""
  tell(('half', len(data.train.y), x))
  if x < 0:
    raise ValueError('below 0')
  return x / 2


def test_tasks_run_here_and_tell_what_they_did() -> None:
  told: list[Any] = []
  chosen = executor.here(DATA)
  assert chosen.slots() == 1 and chosen.wait(0) == []
  futures = [chosen.submit(told.append, half, x) for x in (4.0, -1.0)]
  first, second = chosen.wait(0)
  assert [first.future, second.future] == futures
  assert first.value == 2 and first.error is None
  assert isinstance(second.error, ValueError)
  assert told == [('half', 3, 4.0), ('half', 3, -1.0)]


@jax.jit
def double(x: jax.Array) -> jax.Array:
  """Return twice a number."""
  return 2 * x


def doubled(tell: Tell, data: Data, x: float) -> float:
  """Return twice a number, by a compiled program."""
  return float(double(x))


def test_programs_of_earlier_tasks_are_dropped() -> None:
  chosen = executor.here(DATA)
  for i in range(1, 2 * executor.KEPT):
    chosen.submit(lambda event: None, doubled, 3.0)
    assert bool(double._cache_size()) == bool(i % executor.KEPT)
  assert {x.value for x in chosen.wait(0)} == {6.0}


def test_who_listens_may_end_a_task() -> None:
  chosen = executor.here(DATA)

  def tell(event: Any) -> None:
    raise executor.Halted(f'at {event[2]}')

  future = chosen.submit(tell, half, 4.0)
  (ended,) = chosen.wait(0)
  assert ended.future == future
  assert (
    isinstance(ended.error, executor.Halted) and f'{ended.error}' == 'at 4.0'
  )


def test_a_signal_is_raised_while_waiting(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  monkeypatch.setattr(interrupt, 'requested', lambda: 15)
  with pytest.raises(interrupt.Stopped):
    executor.here(DATA).wait(0)


def test_fewer_tasks_may_run_at_once() -> None:
  many = executor.here(DATA)._replace(slots=lambda: 8)
  assert executor.limited(many, 3).slots() == 3
  assert executor.limited(many, 9).slots() == 8


def test_each_worker_has_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
  assert executor.environments(2) == [{}, {}]
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  monkeypatch.setattr(jax, 'device_count', lambda: 2)
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  names = [x['CUDA_VISIBLE_DEVICES'] for x in executor.environments(3)]
  assert names == ['0', '1', '0']
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,7')
  names = [x['CUDA_VISIBLE_DEVICES'] for x in executor.environments(2)]
  assert names == ['4', '7']
  assert executor.workers(0) == 1
  assert executor.workers(3) == 3
