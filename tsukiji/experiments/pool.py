"""Running the cells of an experiment, one process a core.

On CPU a JAX training step gains nothing from a second core, while two
processes of one core each double the throughput (benchmarks/train_step.py).
On accelerators one process drives all devices.
"""

import concurrent.futures
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.managers import SyncManager
from multiprocessing.synchronize import Event
from typing import Any, TypeAlias

import jax
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TextColumn,
  TimeElapsedColumn,
  TimeRemainingColumn,
)

from tsukiji import interrupt
from tsukiji.experiments import cell, jobs, store
from tsukiji.experiments.jobs import Experiment, Job
from tsukiji.training.loop import OnProgress

Future: TypeAlias = concurrent.futures.Future[None]

# glibc returns large buffers to the system after every step, to fault them in
# again page by page; these two (mallopt(3)) make workers keep them.
KEEP_MEMORY = {'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': str(1 << 30)}


def run(experiment: Experiment) -> None:
  """Run every network and seed to the end, with a progress bar.

  Args:
    experiment: What to run; finished cells are not repeated.

  Raises:
    interrupt.Stopped: If a signal asked; everything done so far is kept.
    FloatingPointError: If a loss was not finite.
  """
  config = experiment.config
  todo = [job for job in jobs.of(config) if _left(experiment, *job)]
  if not todo:
    return
  left = [len(_left(experiment, *job)) for job in todo]
  count = min(sum(left), workers(config.workers))
  with interrupt.deferred(), _bars(experiment, todo) as on_progress:
    if count == 1:
      for name, seed in todo:
        cell.run_network(experiment, name, seed, on_progress)
    else:
      _run_pool(experiment, todo, count, on_progress)


def _left(experiment: Experiment, name: str, seed: int) -> list[str]:
  """Return the recipes of a network and seed that have no row yet."""
  return [
    recipe
    for recipe in jobs.cells(experiment.config, name, seed)
    if not store.cell(experiment.folder, jobs.cell_name(name, seed, recipe))
  ]


def cores() -> list[int]:
  """Return the cores this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


def workers(wanted: int) -> int:
  """Return how many processes to start; 0 asks for one a core on CPU."""
  if wanted:
    return wanted
  single = jax.default_backend() == 'cpu' and jax.device_count() == 1
  return len(cores()) if single else 1


def _run_pool(
  experiment: Experiment, todo: list[Job], count: int, on_progress: OnProgress
) -> None:
  os.environ.update(KEEP_MEMORY)
  context = multiprocessing.get_context('spawn')
  manager = SyncManager(ctx=context)
  manager.start(_start_manager, (os.getpid(),))
  with manager:
    progress, free = manager.Queue(), manager.Queue()
    mine, halt = cores(), context.Event()
    for i in range(count):
      free.put(mine[i % len(mine)])
    pool = concurrent.futures.ProcessPoolExecutor(
      count, context, _start_worker, (free, halt, os.getpid())
    )
    with pool:
      # A recipe waits for what it starts from and for its teachers.
      cells = {
        pool.submit(_work, experiment, job, jobs.DENSE, progress): (
          job,
          jobs.DENSE,
        )
        for job in todo
      }
      first, dense = [*cells], {*todo}
      held: list[tuple[Job, str]] = []

      def then(future: Future) -> list[Future]:
        job, done = cells[future]
        dense.difference_update([job] if done == jobs.DENSE else [])
        held.extend((job, x) for x in jobs.after(experiment.config, *job, done))
        free = [x for x in held if not dense & _taught_by(experiment, *x)]
        held[:] = [x for x in held if x not in free]
        new = {pool.submit(_work, experiment, *x, progress): x for x in free}
        cells.update(new)
        return [*new]

      begun: set[str] = set()

      def noted(name: str, batches: int) -> None:
        begun.add(name)
        on_progress(name, batches)

      try:
        _watch(first, progress, noted, then)
      except BaseException as e:
        halt.set()
        # Workers may take one more cell from the queue: they need the manager.
        pool.shutdown(cancel_futures=True)
        if isinstance(e, BrokenProcessPool):
          raise _died(experiment, begun) from e
        raise


def _died(experiment: Experiment, begun: set[str]) -> ValueError:
  left = [x for x in begun if not store.cell(experiment.folder, x)]
  return ValueError(
    'config.workers: a worker process was killed or crashed. Running were '
    f'{", ".join(sorted(left)) or "none"}. Run the command again to resume '
    'from the last epochs; if memory ran out, use fewer workers.'
  )


def _taught_by(experiment: Experiment, job: Job, name: str) -> set[Job]:
  """Return the networks and seeds that a recipe of a job waits for."""
  return {(x, job[1]) for x in jobs.taught_by(experiment.config, name)}


def _watch(
  futures: list[Future],
  progress: Any,
  on_progress: OnProgress,
  then: Callable[[Future], list[Future]] = lambda future: [],
) -> None:
  """Pass on what workers on_progress until all and what follows are done."""
  waiting = set(futures)
  while waiting:
    done, waiting = concurrent.futures.wait(
      waiting, 0.2, concurrent.futures.FIRST_COMPLETED
    )
    _drain(progress, on_progress)
    for future in done:
      future.result()
      waiting |= set(then(future))
    interrupt.stop_if_requested()


def _drain(progress: Any, on_progress: OnProgress) -> None:
  while True:
    try:
      on_progress(*progress.get_nowait())
    except queue.Empty:
      return


def _start_manager(parent: int) -> None:
  """Outlive the workers, whose signals may be sent to the whole group."""
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  _watch_parent(parent)


def _start_worker(free: Any, halt: Event, parent: int) -> None:
  settle(free.get(), halt, parent)


def settle(core: int, halt: Event, parent: int) -> None:
  """Pin this process to a core before its backend starts.

  Args:
    core: Of those that `cores` progress.
    halt: Set when the worker shall stop.
    parent: Process without which it ends.
  """
  if hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, {core})

  interrupt.listen()
  interrupt.enforce()
  interrupt.watch(lambda: signal.SIGTERM if halt.is_set() else None)
  _watch_parent(parent, halt)


def _watch_parent(parent: int, halt: Event | None = None) -> None:
  threading.Thread(target=_follow, args=(parent, halt), daemon=True).start()


def _follow(parent: int, halt: Event | None) -> None:
  """End this process, busy or idle, when the one that started it is gone."""
  asked = False
  while os.getppid() == parent:
    if halt is not None and halt.is_set() and not asked:
      asked = True
      interrupt.end_unless_reacted(signal.SIGTERM)
    time.sleep(0.2)
  os.kill(os.getpid(), signal.SIGKILL)


def _work(experiment: Experiment, job: Job, name: str, progress: Any) -> None:
  """Run one recipe of a job in a worker; batches are progress in handfuls."""
  if interrupt.requested() is not None:
    return
  progress.put((jobs.cell_name(*job, name), 0))
  count = 0

  def on_progress(name: str, batches: int) -> None:
    nonlocal count
    count += batches
    if count >= 10:
      progress.put((name, count))
      count = 0

  if name == jobs.DENSE:
    cell.run_dense(experiment, *job, on_progress)
  else:
    cell.run_recipe(experiment, *job, name, on_progress)
  progress.put((jobs.cell_name(*job, name), count))


def progress_bars() -> Progress:
  """Return what shows bars: a name, how much is done, how long it takes."""
  return Progress(
    TextColumn('{task.description:<40}', markup=False),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
  )


@contextmanager
def _bars(experiment: Experiment, todo: list[Job]) -> Iterator[OnProgress]:
  """Show one bar a network and seed, and yield what moves it."""
  with progress_bars() as progress:
    bars = {
      job: progress.add_task(
        f'{job[0]}, seed {job[1]}', total=jobs.batches_of(experiment, *job)
      )
      for job in todo
    }

    def on_progress(name: str, batches: int) -> None:
      for job, bar in bars.items():
        if name.startswith(f'{job[0]}-{job[1]}-'):
          progress.update(bar, advance=batches, description=name)

    yield on_progress
