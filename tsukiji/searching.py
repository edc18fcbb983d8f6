"""Searching: studies of trials, worked on by processes that may die.

A study is one designer with one seed; all of an experiment share a storage,
in which any number of machines find them by name.
"""

import functools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import jax
import numpy as np
import optuna
import optuna.importance
from ml_collections import ConfigDict
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from compress import recipe
from search import designer, hyperband, leaf, pareto, stored, study
from search import space as spaces
from search.bayes import bayes
from search.designer import Designer, Values
from search.space import Space
from search.study import Plan
from tsukiji import (
  crew,
  evaluation,
  pool,
  ranges,
  recipe_trial,
  settings,
  stages,
  trial,
  workdir,
)
from tsukiji.experiment import Experiment
from tsukiji.report.trials import Range, Searched, Tested, Trial

DESIGNERS: dict[str, Callable[..., Designer]] = {
  'gp': bayes,
  'grid': designer.grid,
  'random': designer.random,
  'sobol': designer.sobol,
}
# What picks the configs that begin, and who says how long they may go on.
RUNGED: dict[str, tuple[str, Callable[..., Designer]]] = {
  'bohb': ('gp', hyperband.hyperband),
  'halving': ('random', hyperband.halving),
  'hyperband': ('random', hyperband.hyperband),
}
EPOCHS = 'search.epochs'  # of a trial, in its config
FEW = 8  # trials that tell nothing of what matters
TESTED = 'tested.json'  # in the workdir: what the best trials reach
LOOK = 1.0  # seconds between two looks at the storage


class Best(NamedTuple):
  """The best of all trials by validation.

  Attributes:
    study: The name of its study.
    number: Of the trial in that study.
    accuracy: On the validation set.
    config: The whole experiment with the values of the trial.
  """

  study: str
  number: int
  accuracy: float
  config: ConfigDict


def plans(experiment: Experiment) -> list[Plan]:
  """Return the studies of an experiment: every designer with every seed."""
  search = experiment.config.search
  names = dict.fromkeys((search.designer, *search.beside))
  made = {name: _designed(experiment, name) for name in names}
  run = recipe_trial.run if _of_recipes(experiment) else trial.run
  group = trial.run_group if search.together > 1 else None
  return [
    Plan(
      f'{_prefix(experiment)}{name}-{seed}',
      space,
      designer,
      functools.partial(run, experiment, space),
      search.trials,
      len(search.objectives),
      seed,
      search.lease,
      search.together,
      group and functools.partial(group, experiment, space),
    )
    for seed in search.seeds
    for name, (space, designer) in made.items()
  ]


def _of_recipes(experiment: Experiment) -> bool:
  return bool(stages.recipe_of(experiment.config))


def _prefix(experiment: Experiment) -> str:
  """Return what tells the studies of a second stage from those of the first."""
  name = stages.recipe_of(experiment.config)
  return f'{name}-' if name else ''


def _designed(experiment: Experiment, name: str) -> tuple[Space, Designer]:
  """Return what varies for a designer, and the designer."""
  config, search = experiment.config, experiment.config.search
  space = spaces.of(config)
  known = functools.partial(trial.is_allowed, experiment, space)
  # What a recipe leaves is not known before.
  allowed = None if _of_recipes(experiment) else known
  inner, outer = RUNGED.get(name, (name, None))
  more = {'per_second': search.per_second} if inner == 'gp' else {}
  begun = DESIGNERS[inner](space, allowed=allowed, **more)
  if outer is None:
    return space, begun
  budget = hyperband.Budget(EPOCHS, search.least, search.epochs, search.eta)
  wide = config.copy_and_resolve_references()
  with wide.search.ignore_type():
    wide.search.epochs = leaf.integer(search.least, search.epochs, log=True)
  return spaces.of(wide), outer(space, begun, budget)


def storage_of(experiment: Experiment) -> BaseStorage:
  """Return where the trials are kept.

  Raises:
    ValueError: If it cannot be opened.
  """
  optuna.logging.set_verbosity(optuna.logging.ERROR)
  where = experiment.config.search.storage
  default = f'sqlite:///{experiment.folder / "study.db"}'
  try:
    return stored.opened(where or default)
  except Exception as e:  # drivers raise many kinds
    first = str(e).strip().partition('\n')[0]
    raise ValueError(
      'config.search.storage: expected a URL of a database or a file *.log, '
      f'got {where or default!r}. {first}'
    ) from e


def run(experiment: Experiment) -> Best:
  """Run all trials that are not done yet, with a progress bar a study.

  Args:
    experiment: A search.

  Returns:
    The best trial of all studies.

  Raises:
    stop.Stopped: If a signal asked; every trial goes on where it was.
    ValueError: If no config is allowed, none was feasible, or the storage
      cannot be opened.
  """
  storage, todo = storage_of(experiment), plans(experiment)
  for plan in todo:
    study.opened(plan, storage)
  config = experiment.config
  count = pool.workers(config.search.workers or config.workers)
  count = min(count, len(todo) * config.search.trials)
  with _bars(todo, storage) as look:
    crew.run(count, work, experiment, look)
  return best(experiment)


def expect_allowed(experiment: Experiment) -> None:
  """Raise a ValueError unless some config of a search is allowed."""
  space = spaces.of(experiment.config)
  allowed = functools.partial(trial.is_allowed, experiment, space)
  drawing = designer.random(space, allowed)
  drawing.ask(drawing.init(jax.random.key(0)), jax.random.key(0))


def work(i: int, experiment: Experiment, look: crew.Look) -> None:
  """Run trials of all studies, first of all of the one with our number."""
  storage, todo = storage_of(experiment), plans(experiment)
  at = i % len(todo)
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
  """Return every study with its trials that count."""
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
  config = ranges.whole(plan.space, stored.config_of(plan.space, chosen))
  config.search = settings.searching()
  return Best(plan.name, chosen.number, 1 - error, config)


def tested(experiment: Experiment) -> dict[str, list[Tested]]:
  """Return how good the best trial of each study is, seed by seed.

  The best is chosen on the validation set; the test set is read for it alone,
  and only once: what was found is kept in the workdir.

  Args:
    experiment: A search for networks that has run.

  Returns:
    By designer.
  """
  path = experiment.folder / TESTED
  if not path.exists():
    found: dict[str, list[Tested]] = {}
    for plan, of_one in trials(experiment):
      done = [t for t in of_one if t.values]
      if done:
        one = min(done, key=lambda t: t.values[0])
        config = stored.config_of(plan.space, one)
        _, best = trial.trained(experiment, ranges.whole(plan.space, config))
        score = evaluation.evaluate(
          best.spec,
          best.variables,
          experiment.data.test,
          loss=experiment.config.train.loss,
        )
        own = found.setdefault(plan.name.rpartition('-')[0], [])
        own.append(Tested(1 - one.values[0], score.accuracy))
    workdir.write_json(path, found)
  read = json.loads(path.read_text())
  return {name: [Tested(*pair) for pair in own] for name, own in read.items()}


def kept(experiment: Experiment) -> list[ConfigDict]:
  """Return recipes of the Pareto set of a second stage, the most exact first.

  Those `search.keep` that together dominate most, in logarithms.

  Args:
    experiment: A second stage that has run.

  Returns:
    Recipes in which nothing varies, their methods written out.
  """
  name = stages.recipe_of(experiment.config)
  done = [
    (plan, t) for plan, of_one in trials(experiment) for t in of_one if t.values
  ]
  values = np.log(np.maximum([t.values for _, t in done], 1e-4))
  best = np.flatnonzero(pareto.front(values))
  chosen = best[pareto.spread(values[best], experiment.config.search.keep)]
  found = []
  for plan, one in (done[i] for i in chosen):
    config = ranges.whole(plan.space, stored.config_of(plan.space, one))
    item = config.recipes[name]
    item.method, item.parts = recipe.filled(item.method, item.parts), {}
    found.append(item)
  return found


@contextmanager
def _bars(todo: list[Plan], storage: BaseStorage) -> Iterator[crew.Look]:
  """Show a bar a study, and yield what brings them up to date."""
  with pool.progress_bars() as progress:
    bars = [progress.add_task(plan.name, total=plan.trials) for plan in todo]
    seen = -math.inf

    def look() -> None:
      nonlocal seen
      if time.monotonic() < seen + LOOK:
        return
      seen = time.monotonic()
      for plan, bar in zip(todo, bars, strict=True):
        every = _trials(plan, storage)
        errors = [t.values[0] for t in every if t.values]
        told = f', best {100 * (1 - min(errors)):.2f} %' if errors else ''
        progress.update(
          bar,
          completed=sum(t.state.is_finished() for t in every),
          description=f'{plan.name}{told}',
        )

    yield look
    seen = -math.inf
    look()


def told(experiment: Experiment) -> Searched:
  """Return what a search has found, for a report."""
  search, every = experiment.config.search, trials(experiment)
  found = []
  for plan, of_one in every:
    by = plan.name.removeprefix(_prefix(experiment)).rpartition('-')[0]
    rested: dict[str, int] = {}
    for number, one in enumerate(of_one):
      values = dict(zip(search.objectives, one.values or (), strict=False))
      if values:
        values['val_accuracy'] = 1 - values['val_accuracy']
      seconds = one.duration.total_seconds() if one.duration else 0.0
      config = stored.config_of(plan.space, one)
      params = {path: spaces.at(config, path) for path in one.params}
      share = 1.0
      if EPOCHS in params:
        epochs, key = params.pop(EPOCHS), repr(params)
        share = (epochs - rested.get(key, 0)) / search.epochs
        rested[key] = epochs
      found.append(Trial(by, plan.seed, number, values, params, seconds, share))
  space = spaces.of(experiment.config)
  spans = {
    path: Range(one.log, tuple(map(str, one.options)))
    for path, one in zip(space.names, space.leaves, strict=True)
  }
  whole = [t for plan, x in every if not _is_runged(plan) for t in x]
  name = stages.recipe_of(experiment.config)
  scores = {}
  if not name and (experiment.folder / TESTED).exists():
    scores = tested(experiment)
  return Searched(found, spans, _importances(whole), name, scores)


def _is_runged(plan: Plan) -> bool:
  return EPOCHS in plan.space.names


def _importances(found: list[FrozenTrial]) -> dict[str, float]:
  """Return Optuna's importances over trials of one length."""
  done = [
    optuna.create_trial(
      value=one.values[0], params=one.params, distributions=one.distributions
    )
    for one in found
    if one.values
  ]
  if len(done) < FEW or len({one.value for one in done}) < 2:
    return {}
  every = optuna.create_study()
  every.add_trials(done)
  return dict(optuna.importance.get_param_importances(every))
