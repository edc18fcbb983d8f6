"""The best networks of a search within a budget, trained in full and judged."""

import re
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from compress import recipe
from tsukiji.config import budget, settings, stages
from tsukiji.experiments import jobs
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.store import Row
from tsukiji.experiments.sweep import tuning
from tsukiji.experiments.sweep.tuning import Best
from tsukiji.training import metrics

UNITS = {
  'bytes': '{:,.0f} bytes',
  'latency_ms': '{:.3g} ms',
  'energy_uj': '{:.3g} µJ',
  'params': '{:,.0f} parameters',
  'macs': '{:,.0f} MACs',
  'flash': '{:,.0f} bytes of flash',
  'ram': '{:,.0f} bytes of RAM',
  budget.DROP: 'a drop of {:.4g} in accuracy',
}


class Finalist(NamedTuple):
  """A network that was trained in full, with each seed.

  Attributes:
    network: Its name in the config.
    recipe: Its recipe.
    validation: Mean accuracy on the validation set.
    scores: Accuracies on the test set.
    costs: Of `settings.COSTS`, the largest of all seeds, and the accuracy
      that drops from the reference, where it is limited.
    lacks: What is beyond the budget, in words.
    row: The seed that is best on the validation set.
  """

  network: str
  recipe: str
  validation: float
  scores: tuple[float, ...]
  costs: dict[str, float]
  lacks: tuple[str, ...]
  row: Row

  @property
  def inside(self) -> bool:
    """Return whether every seed is inside the budget."""
    return not self.lacks


def ranked(joint: Experiment) -> list[Best]:
  """Return the trials inside the budget, the best first.

  Of those with the same network and recipe, which differ in their training
  only, the best.

  Args:
    joint: A finished search within a budget.

  Raises:
    ValueError: If none is inside; it says what the nearest takes.
  """
  every = tuning.ranked(joint)
  found: dict[tuple[str, str], Best] = {}
  for one in every:
    if one.inside:
      found.setdefault(_kind(joint.config, one.config), one)
  if not found:
    nearest = in_words(every[0].costs) or f'{100 * every[0].accuracy:.2f} %'
    most = in_words(budget.limits(joint.config))
    raise ValueError(
      f'config.budget: expected a network within {most}, got none among '
      f'{len(every)} trials; the nearest takes {nearest}. Allow more, or set '
      'more config.search.trials.'
    )
  return [*found.values()]


def _kind(study: ConfigDict, one: ConfigDict) -> tuple[str, str]:
  """Return the network and the recipe of a trial, without their training."""
  sizes = one.networks[settings.searched(study)].sizes
  item = one.recipes[stages.recipe_of(study)]
  return repr(sizes), recipe.filled(item.method, item.parts)


def judged(config: ConfigDict, rows: Sequence[Row]) -> list[Finalist]:
  """Return what was trained in full, the best first.

  Args:
    config: The study.
    rows: Its rows; limits that they have no value for are met.

  Returns:
    Those inside the budget first, by accuracy on the validation set, or by
    bytes where only the accuracy is limited.
  """
  network, mixed = settings.searched(config), stages.recipe_of(config)
  groups: dict[str, list[Row]] = {}
  for row in rows:
    found = re.fullmatch(rf'{network}_(\d+)', row['network'])
    if found and row['recipe'] == f'{mixed}_{found[1]}':
      groups.setdefault(found[1], []).append(row)
  base = _of_reference(config, rows)
  every = [_finalist(config, group, base) for group in groups.values()]
  small = budget.wants_smallest(config)

  def order(one: Finalist) -> tuple[bool, float]:
    return not one.inside, one.costs['bytes'] if small else -one.validation

  return sorted(every, key=order)


def _finalist(
  config: ConfigDict, rows: Sequence[Row], base: float | None
) -> Finalist:
  key = metrics.goal_of(config.train.loss).key
  validation = statistics.fmean(row[f'val_{key}'] for row in rows)
  each = [_costs(row) for row in rows]
  costs = {x: max(one[x] for one in each) for x in each[0]}
  if base is not None:
    costs[budget.DROP] = base - validation
  most = budget.limits(config)
  lacks = tuple(
    f'{in_words({x: costs[x]})} of {in_words({x: limit})}'
    for x, limit in most.items()
    if x in costs and costs[x] > limit
  )
  return Finalist(
    rows[0]['network'],
    rows[0]['recipe'],
    validation,
    tuple(row[key] for row in rows),
    costs,
    lacks,
    max(rows, key=lambda row: row[f'val_{key}']),
  )


def _costs(row: Row) -> dict[str, float]:
  """Return the costs of a row, the latency if it was timed."""
  timed = row.get('latency_ms', {}).get('batch_1', {})
  known = {**row.get('device', {}), **row, 'latency_ms': timed.get('p50')}
  return {x: known[x] for x in settings.COSTS if known.get(x) is not None}


def _of_reference(config: ConfigDict, rows: Sequence[Row]) -> float | None:
  """Return the validation accuracy that may drop, None if none is limited."""
  if budget.DROP not in budget.limits(config):
    return None
  of, key = budget.reference_of(config), metrics.goal_of(config.train.loss).key
  return statistics.fmean(
    row[f'val_{key}']
    for row in rows
    if (row['network'], row['recipe']) == (of, jobs.DENSE)
  )


def in_words(costs: dict[str, float]) -> str:
  """Return costs with their units.

  >>> in_words({'bytes': 2812, 'latency_ms': 0.0213})
  '2,812 bytes, 0.0213 ms'
  """
  return ', '.join(UNITS[name].format(x) for name, x in costs.items())


def alone(config: ConfigDict, best: Finalist) -> ConfigDict:
  """Return a config that trains one finalist, and what it is compared with.

  Args:
    config: Of what was trained in full; see `stages.within`.
    best: The finalist.
  """
  found = budget.without(config)
  teachers = jobs.taught_by(config, best.recipe)
  kept = {jobs.reference_of(config, best.network), best.network, *teachers}
  for name in {*config.networks} - kept:
    del found.networks[name]
  for name in {*config.recipes} - {best.recipe}:
    del found.recipes[name]
  for name, item in found.networks.items():
    item.recipes = (best.recipe,) if name == best.network else ()
  return found


def sentences(experiment: Experiment, rows: Sequence[Row]) -> list[str]:
  """Return what the best network is, why, and what was tried.

  Args:
    experiment: The study.
    rows: Its rows.
  """
  config = experiment.config
  best, *others = judged(config, rows)
  most = in_words(budget.limits(config))
  said = f'The best network within {most}'
  if not best.inside:
    said = f'No network is within {most} once trained in full. The nearest'
  out = [f'{said}: {_described(best)}']
  out.append(f'Its recipe: {best.row["method"]}')
  out += [
    f'Runner-up: {_described(x)}. It {_lacks(best, x)}' for x in others[:1]
  ]
  out.append(_tried(experiment, len(others) + 1))
  out.append(
    f'Its file: {experiment.folder / best.row["artefact"]}; '
    f'{experiment.folder / "best.py"} trains it alone'
  )
  return out


def _described(one: Finalist) -> str:
  mean = 100 * statistics.fmean(one.scores)
  spread, most, count = '', '', len(one.scores)
  if count > 1:
    most = 'at most '
    spread = f' ± {100 * statistics.stdev(one.scores):.2f}'
  costs = {x: y for x, y in one.costs.items() if x != budget.DROP}
  return (
    f'{one.network} with {one.recipe}, {mean:.2f}{spread} % on the test set '
    f'({count} seed{"s" * (count > 1)}), {most}{in_words(costs)}'
  )


def _lacks(best: Finalist, other: Finalist) -> str:
  """Return why one finalist is not the best."""
  if other.lacks:
    return f'is outside the budget: {", ".join(other.lacks)}'
  less = 100 * (best.validation - other.validation)
  if less < 0:
    larger = other.costs['bytes'] - best.costs['bytes']
    return f'is larger by {larger:,.0f} bytes'
  return f'has {less:.2f} points less on the validation set'


def _tried(experiment: Experiment, finalists: int) -> str:
  joint = experiment._replace(config=stages.first(experiment.config))
  every = [t for _, of_one in tuning.trials(joint) for t in of_one]
  done = [t for t in every if t.values]
  inside = [t for t in done if tuning.rank(joint.config, t)[0] == 0]
  search, second = joint.config.search, joint.config.recipe_search
  return (
    f'Tried: {len(every)} trials of {search.epochs} epochs and {second.epochs} '
    f'under the recipe, {len(inside)} inside, {len(done) - len(inside)} '
    f'outside, {len(every) - len(done)} that could not be trained; '
    f'{finalists} were trained in full'
  )
