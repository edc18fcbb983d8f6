"""Workers that may die: each is replaced until one has come to its end.

In a pool of `concurrent.futures` the death of one process ends all others.
"""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any, NamedTuple

from tsukiji import interrupt
from tsukiji.experiments import pool

DEATHS = 20  # of workers, after which something is wrong with the machine
STOPPED = 4  # exit code of a worker that was asked to stop
Look = Callable[[], None]
Work = Callable[[int, Any, Look], None]  # number, what it works on, see `run`


class Worker(NamedTuple):
  """A process, and where it says why it failed."""

  process: BaseProcess
  said: 'connection.Connection[Any, Any]'


def run(count: int, work: Work, argument: Any, look: Look) -> None:
  """Let processes of one core each work until all of them are done.

  Args:
    count: How many; one does it here.
    work: A function of a module; it returns once nothing is left to do.
    argument: What is worked on.
    look: Called now and then meanwhile, here.

  Raises:
    stop.Stopped: If a signal asked.
    ValueError: If a worker raised one; of other errors a RuntimeError.
  """
  with interrupt.deferred():
    if count == 1:
      work(0, argument, look)
    else:
      _run_processes(count, work, argument, look)


def _run_processes(count: int, work: Work, argument: Any, look: Look) -> None:
  os.environ.update(pool.KEEP_MEMORY)
  context = multiprocessing.get_context('spawn')
  halt, mine = context.Event(), pool.cores()

  def start(i: int) -> Worker:
    said, to_say = context.Pipe(duplex=False)
    place = (mine[i % len(mine)], halt, os.getpid())
    process = context.Process(
      target=_work, args=(place, to_say, work, i, argument)
    )
    process.start()
    to_say.close()
    return Worker(process, said)

  crew = {i: start(i) for i in range(count)}
  deaths = 0
  try:
    while crew:
      connection.wait([w.process.sentinel for w in crew.values()], 0.5)
      look()
      interrupt.stop_if_requested()
      for i in [i for i, w in crew.items() if w.process.exitcode is not None]:
        worker = crew.pop(i)
        _raise_what(worker)
        if worker.process.exitcode != 0:
          deaths += 1
          _expect_few(deaths, worker)
          crew[i] = start(i)
  finally:
    halt.set()
    for worker in crew.values():
      worker.process.join()


def _raise_what(worker: Worker) -> None:
  """Raise what a worker said it failed of, if it did."""
  try:
    kind, text = worker.said.recv()
  except EOFError:
    return
  raise ValueError(text) if kind == 'ValueError' else RuntimeError(text)


def _expect_few(deaths: int, worker: Worker) -> None:
  if deaths > DEATHS:
    raise ValueError(
      f'config.search.workers: {deaths} worker processes died, the last with '
      f'exit code {worker.process.exitcode}. Free memory or use fewer workers.'
    )


def _work(
  place: tuple[int, Event, int],
  to_say: 'connection.Connection[Any, Any]',
  work: Work,
  i: int,
  argument: Any,
) -> None:
  pool.settle(*place)
  try:
    work(i, argument, lambda: None)
  except interrupt.Stopped:
    raise SystemExit(STOPPED) from None
  except Exception as e:
    to_say.send((type(e).__name__, f'{e}'))
