"""The results of a search."""

import json

import numpy as np
import optuna
import optuna.importance
from ml_collections import ConfigDict
from optuna.trial import FrozenTrial

from compress import recipe
from search import pareto, storage, study
from search import space as spaces
from tsukiji.config import budget, search_space, stages
from tsukiji.experiments import store
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.sweep import inside, trial, tuning
from tsukiji.report.search_data import Range, Searched, Tested, Trial
from tsukiji.training import evaluate

FEW = 8  # trials from which importances are not computed
TESTED = 'tested.json'  # in the workdir: the scores of the best trials


def searched(experiment: Experiment) -> Searched:
  """Return the results of a search for a report."""
  search, every = experiment.config.search, tuning.trials(experiment)
  found = []
  for plan, of_one in every:
    by = tuning.designer_of(experiment, plan)
    for number, one in enumerate(of_one):
      values = dict(zip(search.objectives, one.values or (), strict=False))
      beyond = tuning.beyond_of(one)
      if values:
        values['val_accuracy'] = 1 - values['val_accuracy']
        values = {**inside.costs(experiment.config, beyond), **values}
      seconds = one.duration.total_seconds() if one.duration else 0.0
      config = storage.config_of(plan.space, one)
      params = {path: spaces.at(config, path) for path in one.params}
      pruned = bool(values) and not study.is_complete(one)
      share = max(one.intermediate_values) / search.epochs if pruned else 1.0
      fits = all(x <= 0 for x in beyond)
      found.append(
        Trial(
          by, plan.seed, number, values, params, seconds, share, fits, pruned
        )
      )
  space = spaces.of(experiment.config)
  spans = {
    path: Range(one.log, tuple(map(str, one.options)))
    for path, one in zip(space.names, space.leaves, strict=True)
  }
  full = [t for _, x in every for t in x if study.is_complete(t)]
  joint = budget.limits(experiment.config)
  name = '' if joint else stages.recipe_of(experiment.config)
  scores = {}
  if not name and (experiment.folder / TESTED).exists():
    scores = tested(experiment)
  return Searched(found, spans, _importances(full), name, scores)


def _importances(found: list[FrozenTrial]) -> dict[str, float]:
  """Return Optuna's importances over trials of one length."""
  done = [
    optuna.create_trial(
      value=one.values[0], params=one.params, distributions=one.distributions
    )
    for one in found
  ]
  if len(done) < FEW or len({one.value for one in done}) < 2:
    return {}
  every = optuna.create_study()
  every.add_trials(done)
  return dict(optuna.importance.get_param_importances(every))


def tested(experiment: Experiment) -> dict[str, list[Tested]]:
  """Return the scores of the best trial of each study, seed by seed.

  The best is chosen on the validation set. The test set is read once, for these
  trials only: the scores are stored in the workdir.

  Args:
    experiment: A finished search for networks.

  Returns:
    By designer.
  """
  path = experiment.folder / TESTED
  if not path.exists():
    found: dict[str, list[Tested]] = {}
    for plan, of_one in tuning.trials(experiment):
      done = [*filter(study.is_complete, of_one)]
      if done:
        one = min(done, key=lambda t: t.values[0])
        config = storage.config_of(plan.space, one)
        _, best = trial.trained(
          experiment, search_space.with_defaults(plan.space, config)
        )
        score = evaluate.evaluate(
          best.spec,
          best.variables,
          experiment.data.test,
          loss=experiment.config.train.loss,
        )
        name = tuning.designer_of(experiment, plan)
        pair = Tested(1 - one.values[0], score.accuracy)
        found.setdefault(name, []).append(pair)
    store.write_json(path, found)
  read = json.loads(path.read_text())
  return {name: [Tested(*pair) for pair in own] for name, own in read.items()}


def pareto_recipes(experiment: Experiment) -> list[ConfigDict]:
  """Return recipes of the Pareto set of a second stage, by accuracy.

  The `search.keep` recipes of largest dominated hypervolume, in logarithms.

  Args:
    experiment: A finished second stage.

  Returns:
    Recipes without ranges, with placeholders replaced.
  """
  name = stages.recipe_of(experiment.config)
  every = tuning.trials(experiment)
  done = [(plan, t) for plan, of_one in every for t in of_one if t.values]
  values = np.log(np.maximum([t.values for _, t in done], 1e-4))
  best = np.flatnonzero(pareto.front(values))
  chosen = best[pareto.spread(values[best], experiment.config.search.keep)]
  found = []
  for plan, one in (done[i] for i in chosen):
    config = search_space.with_defaults(
      plan.space, storage.config_of(plan.space, one)
    )
    item = config.recipes[name]
    item.method, item.parts = recipe.filled(item.method, item.parts), {}
    found.append(item)
  return found
