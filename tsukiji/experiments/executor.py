"""Executors: what runs tasks, here or in the workers of a cluster.

On CPU a JAX training step gains nothing from a second core, while two processes
of one core each double the throughput (benchmarks/train_step.py). On
accelerators one process drives all devices.
"""

import itertools
import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax

from tsukiji import interrupt
from tsukiji.data.datasets import Data
from tsukiji.measure import latency

Event: TypeAlias = tuple[str, int, float]  # whose, how much, what was found
Tell: TypeAlias = Callable[[Event], None]
# A function of a module: who listens, the data, and what it was submitted with.
Task: TypeAlias = Callable[..., Any]
Future: TypeAlias = Any  # stands for a task; it can be hashed


class Killed(Exception):
  """The workers of a task were killed again and again."""


class Halted(Exception):
  """What a listener raises to end the task that it listens to."""


class Ended(NamedTuple):
  """A task that has ended, with its value or its error."""

  future: Future
  value: Any
  error: BaseException | None = None


class Executor(NamedTuple):
  """Where tasks run.

  Attributes:
    slots: () -> how many tasks run at once, now.
    submit: Who listens, task, arguments -> its future.
    wait: Seconds -> what has ended since the last call; meanwhile those that
      listen are told. A task whose listener raises `Halted` ends with it as
      its error. Raises `interrupt.Stopped` on a signal.
  """

  slots: Callable[[], int]
  submit: Callable[..., Future]
  wait: Callable[[float], list[Ended]]


Executors: TypeAlias = Callable[[int, int], Executor]  # tasks, workers wanted

KEPT = 8  # tasks whose compiled programs stay in memory, 50 MB or more of each


def workers(wanted: int) -> int:
  """Return how many processes to start; 0 asks for one a core on CPU."""
  if wanted:
    return wanted
  single = jax.default_backend() == 'cpu' and jax.device_count() == 1
  return len(latency.cores()) if single else 1


def forget(count: int) -> None:
  """Drop compiled programs when so many tasks are done in this process.

  Nearly every task has programs of its own; those in common come back from the
  cache on disk.
  """
  if count % KEPT == 0:
    jax.clear_caches()


def here(data: Data) -> Executor:
  """Return the executor that runs each task when it is submitted."""
  ended: list[Ended] = []
  done = itertools.count(1)

  def submit(tell: Tell, task: Task, *args: Any) -> Future:
    number = object()  # which of the tasks
    try:
      ended.append(Ended(number, task(tell, data, *args)))
    except Exception as e:
      ended.append(Ended(number, None, e))
    forget(next(done))
    return number

  def wait(seconds: float) -> list[Ended]:
    del seconds
    interrupt.stop_if_requested()
    found = [*ended]
    ended.clear()
    return found

  return Executor(lambda: 1, submit, wait)


def limited(executor: Executor, count: int) -> Executor:
  """Return an executor that runs at most `count` tasks at once."""
  return executor._replace(slots=lambda: min(count, executor.slots()))


def environments(count: int) -> list[dict[str, str]]:
  """Return the variables that give each local worker a device of its own.

  Args:
    count: Number of workers.

  Returns:
    Nothing for workers on CPU, which have a core each.
  """
  if jax.default_backend() == 'cpu':
    return [{}] * count
  seen = os.environ.get('CUDA_VISIBLE_DEVICES', '')
  devices = seen.split(',') if seen else [*map(str, range(jax.device_count()))]
  return [
    {'CUDA_VISIBLE_DEVICES': devices[i % len(devices)]} for i in range(count)
  ]
