"""Running the cells of an experiment, each once those it needs are done."""

import graphlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tsukiji import console, interrupt
from tsukiji.data.datasets import Data
from tsukiji.experiments import cell as cell_lib
from tsukiji.experiments import executor, jobs
from tsukiji.experiments.executor import Executor, Executors, Future, Tell
from tsukiji.experiments.jobs import Cell, Experiment
from tsukiji.training.loop import OnProgress

EVERY = 0.2  # seconds between two reports of a worker


def run(experiment: Experiment, executors: Executors) -> None:
  """Run every cell to its end, with a progress bar per network and seed.

  Args:
    experiment: What to run; finished cells are not repeated.
    executors: See `placement.opened`.

  Raises:
    interrupt.Stopped: If a signal asked; everything done so far is kept.
    FloatingPointError: If a loss was not finite.
    ValueError: If workers were killed again and again.
  """
  todo = jobs.unfinished(experiment)
  if todo:
    chosen = executors(len(todo), experiment.config.workers)
    with interrupt.deferred(), _bars(experiment, todo) as on_progress:
      _run(experiment, todo, chosen, on_progress)


def _run(
  experiment: Experiment,
  todo: list[Cell],
  chosen: Executor,
  on_progress: OnProgress,
) -> None:
  needs = {one: jobs.needed(experiment.config, one) & {*todo} for one in todo}
  order = graphlib.TopologicalSorter(needs)
  order.prepare()
  waiting: list[Cell] = []
  running: dict[Future, Cell] = {}
  light = jobs.light(experiment)
  while order.is_active():
    waiting += order.get_ready()
    while waiting and len(running) < chosen.slots():
      one = waiting.pop(0)

      def tell(event: executor.Event) -> None:
        on_progress(event[0], event[1])

      running[chosen.submit(tell, run_cell, light, one)] = one
    for ended in chosen.wait(EVERY):
      one = running.pop(ended.future)
      if isinstance(ended.error, executor.Killed):
        raise _killed(one, ended.error)
      if ended.error is not None:
        raise ended.error
      order.done(one)


def _killed(one: Cell, error: executor.Killed) -> ValueError:
  return ValueError(
    f'config.workers: expected workers that live, got {jobs.cell_name(*one)}: '
    f'{error}. Run the command again: it continues from the last epochs; if '
    'memory ran out, use fewer workers.'
  )


def run_cell(tell: Tell, data: Data, experiment: Experiment, one: Cell) -> None:
  """Run a cell, wherever this is; it continues from its checkpoint.

  Args:
    tell: Gets the name of the cell and its batches, now and then.
    data: That of the experiment.
    experiment: The experiment, without its data.
    one: The cell; those that it needs are done.
  """
  experiment = experiment._replace(data=data)
  count, last = 0, time.monotonic()

  def on_progress(name: str, batches: int) -> None:
    nonlocal count, last
    count += batches
    if time.monotonic() >= last + EVERY:
      tell((name, count, 0.0))
      count, last = 0, time.monotonic()

  network, seed, name = one
  if name == jobs.DENSE:
    cell_lib.run_dense(experiment, network, seed, on_progress)
  else:
    cell_lib.run_recipe(experiment, network, seed, name, on_progress)
  tell((jobs.cell_name(*one), count, 0.0))


@contextmanager
def _bars(experiment: Experiment, todo: list[Cell]) -> Iterator[OnProgress]:
  """Show one bar a network and seed, and yield what moves it."""
  totals: dict[jobs.Job, int] = {}
  for network, seed, name in todo:
    steps = jobs.steps_of(experiment, network, name).steps
    totals[network, seed] = totals.get((network, seed), 0) + steps
  with console.progress_bars() as shown:
    bars = {
      job: shown.add_task(f'{job[0]}, seed {job[1]}', total=total)
      for job, total in totals.items()
    }

    def on_progress(name: str, batches: int) -> None:
      for job, bar in bars.items():
        if name.startswith(f'{job[0]}-{job[1]}-'):
          shown.update(bar, advance=batches, description=name)

    yield on_progress
