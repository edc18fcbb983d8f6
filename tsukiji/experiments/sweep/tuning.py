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
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from search import designer, pruning, study
from search import space as spaces
from search import storage as storage_lib
from search.bayes import bayes
from search.designer import Allowed, Designer
from search.space import Space
from search.study import Plan
from tsukiji.config import budget, search_space, settings, stages
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.sweep import inside, trial

DESIGNERS: dict[str, Callable[..., Designer]] = {
  'gp': bayes,
  'grid': designer.grid,
  'random': designer.random,
  'sobol': designer.sobol,
}


class Best(NamedTuple):
  """The best of all trials by validation.

  Attributes:
    study: Its study, designer and seed.
    number: Of the trial in that study.
    accuracy: On the validation set.
    inside: Whether it meets every limit of a budget.
    costs: Those that the budget limits; see `inside.costs`.
    config: The full config with the values of the trial.
  """

  study: str
  number: int
  accuracy: float
  inside: bool
  costs: dict[str, float]
  config: ConfigDict


def plans(experiment: Experiment) -> list[Plan]:
  """Return the studies of an experiment: every designer with every seed."""
  search = experiment.config.search
  names = dict.fromkeys((search.designer, *search.baselines))
  first, space = tuple(enqueued(experiment)), spaces.of(experiment.config)
  return [
    Plan(
      f'{_prefix(experiment)}{name}-{seed}-{experiment.digest}',
      space,
      _designer(experiment, space, name),
      search.trials,
      len(search.objectives),
      seed,
      first if name == search.designer else (),
      _pruner(search, name),
    )
    for seed in search.seeds
    for name in names
  ]


def enqueued(experiment: Experiment) -> list[ConfigDict]:
  """Return the configs to begin with, but for those that are not allowed."""
  space, allowed = spaces.of(experiment.config), _allowed(experiment)
  items = experiment.config.search.enqueue.values()
  found = [spaces.placed(space, search_space.flat(item)) for item in items]
  copies = [one.copy_and_resolve_references() for one in found]
  every = zip(found, copies, strict=True)
  return [one for one, copy in every if allowed is None or allowed(copy)]


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


def _designer(experiment: Experiment, space: Space, name: str) -> Designer:
  """Return the designer that a name like 'gp' or 'gp+median' begins with."""
  inner = name.partition('+')[0]
  more = {}
  if inner == 'gp':
    more = {'per_second': experiment.config.search.per_second}
  return DESIGNERS[inner](space, allowed=_allowed(experiment), **more)


def _pruner(search: ConfigDict, name: str) -> BasePruner | None:
  """Return the pruner that the name of a designer ends with."""
  kind = name.partition('+')[2]
  if not kind:
    return None
  return pruning.pruner(kind, search.min_epochs, search.epochs, search.eta)


def _allowed(experiment: Experiment) -> Allowed:
  """Return whether a config may be tried, by what is known before training."""
  space = spaces.of(experiment.config)
  if budget.limits(experiment.config):
    return functools.partial(inside.may_fit, experiment, space)
  # The costs of a compressed network are not known before.
  mixed = stages.recipe_of(experiment.config)
  return (
    None if mixed else functools.partial(trial.is_allowed, experiment, space)
  )


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
  """Return the best trial by validation, the first of equals; `ranked`.

  Raises:
    ValueError: If no trial was feasible.
  """
  return ranked(experiment)[0]


def ranked(experiment: Experiment) -> list[Best]:
  """Return the trials that were trained in full, the best first.

  Those inside the budget come before the others, and those before that are
  less beyond it. The best has the least error, or the smallest file where
  only the accuracy is limited.

  Raises:
    ValueError: If no trial was feasible.
  """
  found = trials(experiment)
  done = [
    (rank(experiment.config, t), i, plan, t)
    for plan, of_one in found
    for i, t in enumerate(of_one)
    if study.is_complete(t)
  ]
  if not done:
    reasons = {t.user_attrs.get(study.REASON) for _, x in found for t in x}
    raise ValueError(
      'config.search: expected a trial that can be trained, got none: '
      f'{"; ".join(sorted(map(str, reasons)))[:300]}. Narrow the ranges.'
    )
  done.sort(key=lambda item: item[:2])
  return [_best(experiment, plan, one) for _, _, plan, one in done]


def rank(config: ConfigDict, one: FrozenTrial) -> tuple[float, float]:
  """Return what to sort finished trials by: how far outside, then how bad."""
  beyond = max((0.0, *beyond_of(one)))
  return beyond, one.values[budget.wants_smallest(config)]


def beyond_of(one: FrozenTrial) -> tuple[float, ...]:
  """Return by how much a trial is outside the budget; `inside.excess`."""
  return tuple(one.user_attrs.get(study.LIMITS, ()))


def _best(experiment: Experiment, plan: Plan, one: FrozenTrial) -> Best:
  config = search_space.with_defaults(
    plan.space, storage_lib.config_of(plan.space, one)
  )
  config.search = settings.searching()
  return Best(
    label_of(plan),
    one.number,
    1 - one.values[0],
    rank(experiment.config, one)[0] == 0,
    inside.costs(experiment.config, beyond_of(one)),
    config,
  )
