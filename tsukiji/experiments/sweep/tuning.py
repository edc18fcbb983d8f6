"""Studies of trials, run by processes that may be killed.

A study is one designer with one seed. All studies of an experiment share a
storage, in which any number of machines find them by name.
"""

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import jax
import optuna
import optuna.importance
from ml_collections import ConfigDict
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

from search import designer, hyperband, parameter, study
from search import space as spaces
from search import storage as storage_lib
from search.bayes import bayes
from search.designer import Designer, Values
from search.space import Space
from search.study import Plan
from tsukiji.config import search_space, settings, stages
from tsukiji.experiments import crew, pool
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.sweep import recipe_trial, trial

DESIGNERS: dict[str, Callable[..., Designer]] = {
  'gp': bayes,
  'grid': designer.grid,
  'random': designer.random,
  'sobol': designer.sobol,
}
# Designer of configs -> designer of their budgets.
RUNGED: dict[str, tuple[str, Callable[..., Designer]]] = {
  'bohb': ('gp', hyperband.hyperband),
  'halving': ('random', hyperband.halving),
  'hyperband': ('random', hyperband.hyperband),
}
EPOCHS = 'search.epochs'  # of a trial, in its config
LOOK = 1.0  # seconds between two reads of the storage


class Best(NamedTuple):
  """The best of all trials by validation.

  Attributes:
    study: Its study, designer and seed.
    number: Of the trial in that study.
    accuracy: On the validation set.
    config: The full config with the values of the trial.
  """

  study: str
  number: int
  accuracy: float
  config: ConfigDict


def plans(experiment: Experiment) -> list[Plan]:
  """Return the studies of an experiment: every designer with every seed."""
  search = experiment.config.search
  names = dict.fromkeys((search.designer, *search.baselines))
  made = {name: _designed(experiment, name) for name in names}
  mixed = stages.recipe_of(experiment.config)
  run = recipe_trial.run if mixed else trial.run
  group = trial.run_group if search.batch_size > 1 else None
  return [
    Plan(
      f'{_prefix(experiment)}{name}-{seed}-{experiment.digest}',
      space,
      designer,
      functools.partial(run, experiment, space),
      search.trials,
      len(search.objectives),
      seed,
      search.lease,
      search.batch_size,
      group and functools.partial(group, experiment, space),
    )
    for seed in search.seeds
    for name, (space, designer) in made.items()
  ]


def _prefix(experiment: Experiment) -> str:
  """Return the prefix of the names of studies of a second stage."""
  name = stages.recipe_of(experiment.config)
  return f'{name}-' if name else ''


def designer_of(experiment: Experiment, plan: Plan) -> str:
  """Return the designer of a study, by the name of the study."""
  return plan.name.removeprefix(_prefix(experiment)).rsplit('-', 2)[0]


def label_of(plan: Plan) -> str:
  """Return the name of a study without the digest of its experiment."""
  return plan.name.rpartition('-')[0]


def _designed(experiment: Experiment, name: str) -> tuple[Space, Designer]:
  """Return the space of a designer, and the designer."""
  config, search = experiment.config, experiment.config.search
  space = spaces.of(config)
  known = functools.partial(trial.is_allowed, experiment, space)
  # The costs of a compressed network are not known before.
  allowed = None if stages.recipe_of(config) else known
  inner, outer = RUNGED.get(name, (name, None))
  more = {'per_second': search.per_second} if inner == 'gp' else {}
  begun = DESIGNERS[inner](space, allowed=allowed, **more)
  if outer is None:
    return space, begun
  budget = hyperband.Budget(
    EPOCHS, search.min_epochs, search.epochs, search.eta
  )
  wide = config.copy_and_resolve_references()
  with wide.search.ignore_type():
    wide.search.epochs = parameter.integer(
      search.min_epochs, search.epochs, log=True
    )
  return spaces.of(wide), outer(space, begun, budget)


def storage_of(experiment: Experiment) -> BaseStorage:
  """Return the storage of the trials.

  Raises:
    ValueError: If it cannot be opened.
  """
  optuna.logging.set_verbosity(optuna.logging.ERROR)
  where = _where(experiment)
  try:
    return storage_lib.opened(where)
  except Exception as e:  # drivers raise many kinds
    first = str(e).strip().partition('\n')[0]
    raise ValueError(
      'config.search.storage: expected a URL of a database or a file *.log, '
      f'got {where!r}. {first}'
    ) from e


def _where(experiment: Experiment) -> str:
  default = f'sqlite:///{experiment.folder / "study.db"}'
  return experiment.config.search.storage or default


@contextmanager
def _staying(experiment: Experiment) -> Iterator[None]:
  """Raise a ValueError with advice if an open storage fails."""
  try:
    yield
  except (StorageInternalError, SQLAlchemyError) as e:
    raise ValueError(
      'config.search.storage: expected a storage that answers, got '
      f'{type(e).__name__} from {_where(experiment)!r}. Restart it and run '
      'the same command again: finished trials are kept.'
    ) from e


def run(experiment: Experiment) -> Best:
  """Run all unfinished trials, with a progress bar per study.

  Args:
    experiment: A search.

  Returns:
    The best trial of all studies.

  Raises:
    interrupt.Stopped: On SIGINT or SIGTERM; trials can be resumed.
    ValueError: If no config is allowed, none was feasible, or the storage
      cannot be opened or is lost.
  """
  storage, todo = storage_of(experiment), plans(experiment)
  for plan in todo:
    study.opened(plan, storage)
  config = experiment.config
  count = pool.workers(config.search.workers or config.workers)
  count = min(count, len(todo) * config.search.trials)
  with _staying(experiment), _bars(todo, storage) as look:
    crew.run(count, work, experiment, look)
  return best(experiment)


def expect_allowed(experiment: Experiment) -> None:
  """Check that some config of a search is allowed."""
  space = spaces.of(experiment.config)
  allowed = functools.partial(trial.is_allowed, experiment, space)
  drawing = designer.random(space, allowed)
  drawing.ask(drawing.init(jax.random.key(0)), jax.random.key(0))


def work(i: int, experiment: Experiment, look: crew.Look) -> None:
  """Run trials of all studies, starting with that of the worker's number."""
  storage, todo = storage_of(experiment), plans(experiment)
  at = i % len(todo)
  with _staying(experiment):
    for plan in (*todo[at:], *todo[:at]):
      study.work(_looking(plan, look), storage)


def _looking(plan: Plan, look: crew.Look) -> Plan:
  """Return the plan, calling `look` before its trials."""

  def objective(config: ConfigDict) -> Values:
    look()
    return plan.objective(config)

  def group(configs: Sequence[ConfigDict]) -> list[Values]:
    look()
    assert plan.group is not None
    return plan.group(configs)

  return plan._replace(objective=objective, group=plan.group and group)


def trials(experiment: Experiment) -> list[tuple[Plan, list[FrozenTrial]]]:
  """Return every study with its valid trials."""
  storage = storage_of(experiment)
  return [(plan, _trials(plan, storage)) for plan in plans(experiment)]


def _trials(plan: Plan, storage: BaseStorage) -> list[FrozenTrial]:
  return [t for t in study.opened(plan, storage).trials if study.counts(t)]


def best(experiment: Experiment) -> Best:
  """Return the best trial by validation, the first of equals.

  Raises:
    ValueError: If no trial was feasible.
  """
  found = trials(experiment)
  done = [
    (t.values[0], i, plan, t)
    for plan, of_one in found
    for i, t in enumerate(of_one)
    if t.values
  ]
  if not done:
    reasons = {t.user_attrs.get(study.REASON) for _, x in found for t in x}
    raise ValueError(
      'config.search: expected a trial that can be trained, got none: '
      f'{"; ".join(sorted(map(str, reasons)))[:300]}. Narrow the ranges.'
    )
  error, _, plan, chosen = min(done, key=lambda item: item[:2])
  config = search_space.with_defaults(
    plan.space, storage_lib.config_of(plan.space, chosen)
  )
  config.search = settings.searching()
  return Best(label_of(plan), chosen.number, 1 - error, config)


@contextmanager
def _bars(todo: list[Plan], storage: BaseStorage) -> Iterator[crew.Look]:
  """Show a bar per study, and yield a function that updates them."""
  with pool.progress_bars() as progress:
    bars = [
      progress.add_task(label_of(plan), total=plan.trials) for plan in todo
    ]
    last_read = -math.inf

    def look() -> None:
      nonlocal last_read
      if time.monotonic() < last_read + LOOK:
        return
      last_read = time.monotonic()
      for plan, bar in zip(todo, bars, strict=True):
        every = _trials(plan, storage)
        errors = [t.values[0] for t in every if t.values]
        suffix = f', best {100 * (1 - min(errors)):.2f} %' if errors else ''
        progress.update(
          bar,
          completed=sum(t.state.is_finished() for t in every),
          description=f'{label_of(plan)}{suffix}',
        )

    yield look
    last_read = -math.inf
    look()
