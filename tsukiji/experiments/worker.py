"""What runs in a worker of a Dask cluster: tasks that stop when cancelled."""

import atexit
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
from distributed import Nanny, Status, Worker, WorkerPlugin, get_worker

from tsukiji import interrupt
from tsukiji.data.datasets import Data
from tsukiji.experiments import executor
from tsukiji.experiments.executor import Event, Task
from tsukiji.measure import latency

DEATHS = 5  # of workers that run a task, after which it fails
CLOSE = 1.5  # seconds in which a local worker has to close
PATIENCE = 3.0  # seconds in which a driver that got a signal says so
LEAVING = (Status.closing, Status.closing_gracefully, Status.closed)
ENDED = {'memory', 'error'}  # what becomes of tasks that were not cancelled


class Keeper(Nanny):
  """The keeper of a local worker, which is killed if it does not end soon."""

  async def instantiate(self) -> Status:
    """Start the worker, again where it is killed before it has started."""
    found = await super().instantiate()
    for _ in range(DEATHS - 1):
      if found != Status.stopped:
        break
      found = await super().instantiate()
    return found

  async def close(  # type: ignore[override]
    self, timeout: float = CLOSE, reason: str = 'nanny-close'
  ) -> Literal['OK']:
    """Close the worker; it has 80 % of the seconds for its checkpoint."""
    return await super().close(timeout, reason)


class Holder(WorkerPlugin):
  """The data of an experiment, in each worker, and its cancelled tasks.

  Dask sends it to each worker of a cluster, also to those that come later or
  take the place of a killed one. A task is cancelled by its driver, or by the
  scheduler, where that driver is gone.

  Attributes:
    name: Of this plugin and of the topic of its events.
    data: The data.
    cores: Of this machine, for local workers: each is pinned to one of them and
      reacts to signals. Other workers are left as they are.
    cancelled: The keys of cancelled tasks.
    done: How many tasks a worker has done.
    left: Whether the driver has left this worker.
  """

  def __init__(self, name: str, data: Data, cores: tuple[int, ...] = ()):
    self.name, self.data, self.cores = name, data, cores
    self.cancelled: set[Any] = set()
    self.done = 0
    self.left = False
    self.worker: Worker | None = None

  def setup(self, worker: Worker) -> None:
    """Prepare a worker, in its main thread, before its backend starts."""
    self.worker = worker
    if self.cores:
      latency.pin(self.cores[worker.name % len(self.cores)])
      interrupt.listen()
      interrupt.enforce()
      atexit.register(os._exit, 0)  # XLA takes a second to take itself down

  def transition(self, key: Any, start: Any, finish: Any, **more: Any) -> None:
    """Note a task that is cancelled while it runs."""
    del more
    if start == 'executing' and finish not in ENDED:
      self.cancelled.add(key)
      if self.cores:  # compiling a program may take long
        end, args = interrupt.end_unless_reacted, (signal.SIGTERM,)
        threading.Thread(target=end, args=args, daemon=True).start()

  def teardown(self, worker: Worker) -> None:
    """Stop what still runs."""
    del worker
    self.left = True

  def is_over(self, key: Any) -> bool:
    """Return whether nobody waits for a task any more."""
    return self.left or key in self.cancelled

  def asking(self, key: Any) -> Callable[[], int | None]:
    """Return what tells the thread of a task whether to stop."""
    own = threading.get_ident()

    def ask() -> int | None:
      gone = self.worker is not None and self.worker.status in LEAVING
      stops = threading.get_ident() == own and (gone or self.is_over(key))
      return signal.SIGTERM if stops else None

    return ask


def call(name: str, task: Task, args: tuple[Any, ...]) -> Any:
  """Run a task in a worker.

  Args:
    name: Of the plugin that holds its data.
    task: See `executor`.
    args: Of the task, behind the data.

  Returns:
    What the task returns; None if it was cancelled, which nobody reads.
  """
  worker = get_worker()
  key = worker.get_current_task()
  holder: Any = worker.plugins[name]

  def tell(event: Event) -> None:
    worker.log_event(name, [key, *event])

  with interrupt.watched(holder.asking(key)):
    try:
      value = task(tell, holder.data, *args)
      holder.done += 1
      executor.forget(holder.done)
      return value
    except interrupt.Stopped as e:
      # The driver, if it got the signal too, will soon cancel the task.
      end = time.monotonic() + PATIENCE
      while time.monotonic() < end and not holder.is_over(key):
        time.sleep(0.02)
      if not holder.is_over(key):
        os._exit(128 + e.signum)  # another worker repeats the task
      return None


def sees(path: str) -> tuple[bool, str]:
  """Return whether this machine has a file, and its version of JAX."""
  return pathlib.Path(path).exists(), jax.__version__
