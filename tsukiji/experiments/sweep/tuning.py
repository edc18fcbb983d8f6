"""Studies of a search: their designers, their storage, their best trial.

A study is one designer with one seed. All studies of an experiment share a
storage.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import optuna
import optuna.importance
from ml_collections import ConfigDict
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from search import designer, hyperband, parameter, study
from search import space as spaces
from search import storage as storage_lib
from search.bayes import bayes
from search.designer import Designer
from search.space import Space
from search.study import Plan
from tsukiji.config import search_space, settings, stages
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.sweep import trial

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
  return [
    Plan(
      f'{_prefix(experiment)}{name}-{seed}-{experiment.digest}',
      space,
      designer,
      search.trials,
      len(search.objectives),
      seed,
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
  place = where(experiment)
  try:
    return storage_lib.opened(place)
  except Exception as e:  # drivers raise many kinds
    first = str(e).strip().partition('\n')[0]
    raise ValueError(
      'config.search.storage: expected a URL of a database or a file *.log, '
      f'got {place!r}. {first}'
    ) from e


def where(experiment: Experiment) -> str:
  """Return the URL or file of the storage."""
  default = f'sqlite:///{experiment.folder / "study.db"}'
  return experiment.config.search.storage or default


def expect_allowed(experiment: Experiment) -> None:
  """Check that some config of a search is allowed."""
  space = spaces.of(experiment.config)
  allowed = functools.partial(trial.is_allowed, experiment, space)
  drawing = designer.random(space, allowed)
  drawing.ask(drawing.init(jax.random.key(0)), jax.random.key(0))


def trials(experiment: Experiment) -> list[tuple[Plan, list[FrozenTrial]]]:
  """Return every study with its valid trials."""
  storage = storage_of(experiment)
  return [(plan, study.trials(plan, storage)) for plan in plans(experiment)]


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
