"""Whether candidates are inside the budget, before training and after it."""

import math
from collections.abc import Mapping

import jax
import numpy as np
from ml_collections import ConfigDict

from compress import recipe
from search import designer
from search import space as spaces
from search.space import Space
from tsukiji.config import budget, search_space, settings, stages
from tsukiji.errors import expect
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.sweep import trial
from tsukiji.measure import bounds
from tsukiji.training import evaluate

# What a short trial measures is this part of the limit at most: longer training
# and other seeds change files and times a little. Counts do not change.
MARGIN = {'bytes': 0.97, 'energy_uj': 0.97, 'flash': 0.97, 'latency_ms': 0.95}
DRAWN = 256  # random candidates, of which one has to fit


def may_fit(experiment: Experiment, space: Space, config: ConfigDict) -> bool:
  """Return whether a candidate may be inside, by the least that it takes.

  Args:
    experiment: A search within a budget.
    space: Of the config.
    config: A suggestion.

  Returns:
    Whether it may be tried; computed without training.
  """
  try:
    found = _least(experiment, search_space.with_defaults(space, config))
  except ValueError:  # sizes that do not make a network
    return False
  return all(cost <= most for cost, most in found.values())


def _least(
  experiment: Experiment, config: ConfigDict
) -> dict[str, tuple[float, float]]:
  """Return least costs and their limits, by the fields of these."""
  spec = trial.spec_of(experiment, config)
  name = stages.recipe_of(experiment.config)
  item = config.recipes[name] if name else settings.compression('', '')
  method = recipe.filled(item.method, item.parts)
  costs = bounds.least(spec, method, item.float_bits)
  most, dense = budget.limits(experiment.config), bounds.least(spec)
  network = experiment.config.search.limits
  return {
    **{f'budget.{x}': (costs[x], most[x]) for x in costs if x in most},
    **{
      f'search.limits.{x}': (dense[x], network[x])
      for x in dense
      if network.get(x)
    },
  }


def expect_possible(experiment: Experiment) -> None:
  """Check that some candidate may be inside.

  Raises:
    ValueError: If none does of those tried first and `DRAWN` random ones; it
      says the least that they take.
  """
  space = spaces.of(experiment.config)
  rng = designer.generator(jax.random.key(0))
  units = spaces.snap(space, rng.random((DRAWN, len(space.names))))
  least: dict[str, float] = {}
  for unit in units:
    config = search_space.with_defaults(space, spaces.to_config(space, unit))
    try:
      found = _least(experiment, config)
    except ValueError:
      continue
    if all(cost <= most for cost, most in found.values()):
      return
    for name, (cost, _) in found.items():
      least[name] = min(cost, least.get(name, math.inf))
  most = {name: limit for name, (_, limit) in found.items()} if least else {}
  name = max(most, key=lambda x: least[x] / most[x], default='budget')
  fix = 'Allow more, or give the search smaller networks.'
  what = f'room for the smallest candidate (at least {least.get(name, 0):.0f})'
  expect(f'config.{name}', False, what, most.get(name), fix)


def excess(
  experiment: Experiment, config: ConfigDict, found: Mapping[str, float]
) -> tuple[float, ...]:
  """Return by how much a trial is outside, a number for each limit.

  Args:
    experiment: A search, with its data.
    config: The config of the trial, without ranges.
    found: Its costs, and its error as `val_accuracy`.

  Returns:
    At most 0 each if it is inside: logarithms of costs over their limits less
    a margin, and what accuracy drops beyond what it may.
  """
  beyond = []
  for name, most in budget.limits(experiment.config).items():
    if name == budget.DROP:
      base = _reference_error(experiment, config)
      beyond.append(found['val_accuracy'] - base - most)
    else:
      room = MARGIN.get(name, 1.0) * most
      beyond.append(math.log(max(found[name], 1e-9) / room))
  return tuple(beyond)


def costs(config: ConfigDict, beyond: tuple[float, ...]) -> dict[str, float]:
  """Return the costs that `excess` was computed from, by name."""
  given = budget.limits(config)
  if len(beyond) != len(given):  # a trial that failed
    return {}
  return {
    name: MARGIN.get(name, 1.0) * most * float(np.exp(x))
    for (name, most), x in zip(given.items(), beyond, strict=True)
    if name != budget.DROP
  }


def _reference_error(experiment: Experiment, config: ConfigDict) -> float:
  """Return the error of the reference after as many epochs as a trial."""
  own = config.copy_and_resolve_references().unlock()
  own.search.network = budget.reference_of(config)
  _, done = trial.trained(experiment, own)
  score = evaluate.evaluate(
    done.spec,
    done.variables,
    experiment.data.validation,
    loss=experiment.config.train.loss,
  )
  return 1 - score.accuracy
