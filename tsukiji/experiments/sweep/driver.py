"""The driver of a search: it alone asks and tells, workers compute."""

import collections
import functools
import math
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ml_collections import ConfigDict
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from search import pruning, study
from search.designer import Values
from search.space import Space
from search.study import Study, Trial
from tsukiji import console, interrupt
from tsukiji.config import stages
from tsukiji.data.datasets import Data
from tsukiji.experiments import jobs
from tsukiji.experiments.executor import (
  Ended,
  Event,
  Executor,
  Executors,
  Future,
  Halted,
  Tell,
)
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.sweep import recipe_trial, trial, tuning
from tsukiji.experiments.sweep.tuning import Best

LOOK = 0.2  # seconds between two looks at the workers


def run(experiment: Experiment, executors: Executors) -> Best:
  """Run all unfinished trials, with a progress bar per study.

  Args:
    experiment: A search.
    executors: See `placement.opened`.

  Returns:
    The best trial of all studies.

  Raises:
    interrupt.Stopped: On SIGINT or SIGTERM; trials can be resumed.
    ValueError: If no config is allowed, none was feasible, or the storage
      cannot be opened or is lost.
  """
  search = experiment.config.search
  storage, todo = tuning.storage_of(experiment), tuning.plans(experiment)
  own = name_of(experiment)
  with _staying(experiment):
    studies = [study.begun(plan, storage, own) for plan in todo]
    left = [len(x.again) + x.plan.trials - x.kept for x in studies]
    tasks = sum(-(-n // search.batch_size) for n in left)
    if tasks:
      wanted = search.workers or experiment.config.workers
      chosen = executors(tasks, wanted)
      light = jobs.light(experiment)

      def start(own: Study, asked: list[Trial]) -> Future:
        tell = functools.partial(_told, own, asked[0], search.epochs)
        configs = [one.config for one in asked]
        return chosen.submit(tell, run_trials, light, own.plan.space, configs)

      with interrupt.deferred(), _bars(studies) as show:
        drive(studies, chosen, search.batch_size, start, show)
  return tuning.best(experiment)


def name_of(experiment: Experiment) -> str:
  """Return the name under which this driver owns its studies."""
  return f'{socket.gethostname()}:{experiment.folder.absolute()}'


class Running(NamedTuple):
  """Trials of a study that are one task."""

  place: int  # of the study
  trials: list[Trial]


def drive(
  studies: list[Study],
  chosen: Executor,
  size: int,
  start: Callable[[Study, list[Trial]], Future],
  show: Callable[[list[Study]], None],
) -> list[Study]:
  """Run the trials of all studies, those of one beside those of the others.

  Args:
    studies: See `study.begun`.
    chosen: Who runs them.
    size: Number of trials of a task.
    start: Submits trials of a study as one task, whose value is a list of
      `Values`.
    show: Called with the studies whenever a task has ended.

  Returns:
    The studies with all results.
  """
  studies = [*studies]
  running: dict[Future, Running] = {}
  while True:
    while len(running) < chosen.slots():
      asked = _asked(studies, running, size)
      if asked is None:
        break
      running[start(studies[asked.place], asked.trials)] = asked
    if not running:
      return studies
    for ended in chosen.wait(LOOK):
      _tell(studies, running.pop(ended.future), ended)
      show(studies)


def _asked(
  studies: list[Study], running: dict[Future, Running], size: int
) -> Running | None:
  """Ask for trials, of the study that has fewest running."""
  busy = collections.Counter(one.place for one in running.values())
  for place in sorted(range(len(studies)), key=lambda i: busy[i]):
    trials: list[Trial] = []
    while len(trials) < size:
      studies[place], one = study.ask(studies[place])
      if one is None:
        break
      trials.append(one)
    if trials:
      return Running(place, trials)
  return None


def _tell(studies: list[Study], done: Running, ended: Ended) -> None:
  """Tell a study what has come of trials."""
  if isinstance(ended.error, Halted):
    (one,) = done.trials
    studies[done.place] = pruning.prune(studies[done.place], one)
    return
  found = ended.value or [None] * len(done.trials)
  reason = '' if ended.error is None else study.reason_of(ended.error)
  for one, values in zip(done.trials, found, strict=True):
    studies[done.place] = study.tell(studies[done.place], one, values, reason)


def _told(own: Study, one: Trial, epochs: int, event: Event) -> None:
  """Store the error of a trial behind an epoch, and end it if that is bad."""
  _, epoch, error = event
  if pruning.report(own, one, epoch, error) and epoch < epochs:
    raise Halted(f'pruned behind epoch {epoch}')


def run_trials(
  tell: Tell,
  data: Data,
  experiment: Experiment,
  space: Space,
  configs: list[ConfigDict],
) -> list[Values]:
  """Run trials, wherever this is; they continue from their checkpoints.

  Args:
    tell: Gets the error behind each epoch of a trial that is alone.
    data: That of the experiment.
    experiment: The search, without its data.
    space: Of the configs.
    configs: Suggestions.

  Returns:
    The values of each.
  """
  experiment = experiment._replace(data=data)
  if experiment.config.search.batch_size > 1:
    return trial.run_group(experiment, space, configs)
  mixed = stages.recipe_of(experiment.config)
  run = recipe_trial.run if mixed else trial.run

  def on_epoch(epoch: int, score: float) -> None:
    tell(('', epoch, 1 - score))

  (config,) = configs
  return [run(experiment, space, config, on_epoch)]


@contextmanager
def _staying(experiment: Experiment) -> Iterator[None]:
  """Raise a ValueError with advice if an open storage fails."""
  try:
    yield
  except (StorageInternalError, SQLAlchemyError) as e:
    raise ValueError(
      'config.search.storage: expected a storage that answers, got '
      f'{type(e).__name__} from {tuning.where(experiment)!r}. Restart it and '
      'run the same command again: finished trials are kept.'
    ) from e


@contextmanager
def _bars(studies: list[Study]) -> Iterator[Callable[[list[Study]], None]]:
  """Show a bar per study, and yield a function that updates them."""
  with console.progress_bars() as shown:
    bars = [
      shown.add_task(tuning.label_of(one.plan), total=one.plan.trials)
      for one in studies
    ]

    def show(studies: list[Study]) -> None:
      for one, bar in zip(studies, bars, strict=True):
        found = [values for _, values in one.state.observations]
        errors = [
          v.objectives[0]
          for v in found
          if math.isfinite(v.objectives[0])
          and max(v.constraints, default=0) <= 0
        ]
        suffix = f', best {100 * (1 - min(errors)):.2f} %' if errors else ''
        name = f'{tuning.label_of(one.plan)}{suffix}'
        shown.update(bar, completed=len(found), description=name)

    show(studies)
    yield show
