"""Pruning to a budget, with the sparsity of each layer found from data."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from compress import allocation as allocation_lib
from compress import tree
from compress.allocation import MakeMeasure
from compress.errors import expect_name
from compress.method import Ctx, Method, expect_probe
from compress.prune import magnitude
from compress.prune.importance import SCORES, Score, score_by_name
from compress.prune.magnitude import Masked
from compress.schedule import Schedule
from compress.tree import Array, Params, Path

FLOAT_BITS = 32  # of a kept weight, as in the dense network


class Budget(NamedTuple):
  """A budget for the weights in scope, and how to divide it among layers.

  Attributes:
    of: 'sparsity', 'macs' or 'size'.
    share: Share of zeros for 'sparsity'; else the share of the dense count
      that remains.
    sensitivity: Measure of a candidate, as `allocation.sensitivity`.
    score: Order in which the weights of a layer are pruned, one of `SCORES`.
    candidates: Densities measured for each layer.
    floor: Least share that a layer keeps.
  """

  of: str
  share: float
  sensitivity: str | MakeMeasure = 'loss'
  score: str | Score = 'magnitude'
  candidates: int = 20
  floor: float = 0.002


def auto(
  sparsity: float | None = None,
  *,
  macs: float | None = None,
  size: float | None = None,
  sensitivity: str | MakeMeasure = 'loss',
  score: str | Score = 'magnitude',
  schedule: Schedule | None = None,
  candidates: int = 20,
  floor: float = 0.002,
) -> Method:
  r"""Prune to one budget, with the share of each layer found from data.

  Each layer is pruned on its own to densities $f^{k / (C-1)}$, $k < C$, down to
  the floor $f$, its sensitivity is measured (`allocation.sensitivity`), and a
  knapsack chooses the densities of least total sensitivity that meet the
  budget. What rounding leaves of the budget is given to the layers with the
  steepest last step. Then each layer is pruned to its share as by
  `prune.weights`. Sensitivities are measured before any retraining: they rank
  layers and do not predict the loss.

  Exactly one of the first three is given. Under `only`, the budget is that of
  the weights that match.

  Args:
    sparsity: Share of zeros among all weights, in [0, 1), met exactly.
    macs: Share of the multiplications by weights that are not 0, in (0, 1];
      a dense kernel also multiplies by zeros.
    size: Share of the bytes of the float32 weights, in (0, 1]; a layer of
      density p counts 32 p + H(p) bits a weight, H the binary entropy of the
      positions.
    sensitivity: 'loss', 'fisher', 'trace', 'energy' or 'signal'; see
      `allocation.sensitivity`.
    score: Order in which the weights of a layer are pruned; see
      `prune.weights`.
    schedule: Growth of all shares over the run; by default one-shot.
    candidates: Densities measured for each layer, at least 2; each takes one
      pass over the calibration data.
    floor: Least share that a layer keeps, in (0, 1].

  Returns:
    The method.

  Raises:
    ValueError: If there is not exactly one budget, it is out of range or below
      what the floors keep, or an option is unknown.
  """
  budget = _budget(sparsity=sparsity, macs=macs, size=size)._replace(
    sensitivity=sensitivity, score=score, candidates=candidates, floor=floor
  )
  _check(budget)
  return magnitude.weights(
    lambda params, ctx: zero_counts(params, ctx, budget),
    score=score,
    schedule=schedule,
  )


def allocation(params: Params, ctx: Ctx, budget: Budget) -> dict[Path, float]:
  """Return the share of zeros of each weight.

  Args:
    params: The trained weights: arrays and nodes.
    ctx: With a probe for what needs data.
    budget: As the arguments of `auto`.

  Returns:
    Shares in [0, 1) by path: `prune.weights(allocation(...))` prunes the same
    weights as `auto`.

  Raises:
    ValueError: As `auto`.

  >>> one, other = 2.0 ** jnp.arange(8.0), jnp.ones(8)
  >>> allocation(
  ...   {'one': one.reshape(2, 4), 'other': other.reshape(2, 4)},
  ...   Ctx(),
  ...   Budget('sparsity', 0.5, sensitivity='energy', floor=0.125),
  ... )
  {'one': 0.75, 'other': 0.25}
  """
  _check(budget)
  sizes = _sizes(params)
  found = zero_counts(params, ctx, budget)
  return {path: int(n) / sizes[path] for path, n in found.items()}


def zero_counts(params: Params, ctx: Ctx, budget: Budget) -> dict[Path, Array]:
  """Return the number of zeros of each weight, by path, `()` int32."""
  sizes = _sizes(params)
  unit_costs = _unit_costs(budget, sizes, ctx)
  kept = [_kept(n, budget) for n in sizes.values()]
  cost = [
    unit * _cost(budget, row, n)
    for row, n, unit in zip(kept, sizes.values(), unit_costs, strict=True)
  ]
  limit = _limit(budget, [float(row[0]) for row in cost])
  _check_room(budget, limit, [float(row[-1]) for row in cost])
  ranks = _ranks(params, ctx, budget.score)
  measured = allocation_lib.sensitivity(
    ctx,
    params,
    dict(zip(sizes, kept, strict=True)),
    lambda path, w, count: Masked(w, ranks[path] >= w.size - count),
    budget.sensitivity,
  )
  rows = list(measured.values())
  chosen = allocation_lib.knapsack(rows, cost, limit)
  left = _take(kept, chosen).astype(jnp.int32)
  if budget.of != 'size':
    slopes = _take(list(map(_slopes, rows, cost)), chosen)
    left = _spend_rest(left, list(sizes.values()), unit_costs, limit, slopes)
  return {p: n - k for (p, n), k in zip(sizes.items(), left, strict=True)}


def _sizes(params: Params) -> dict[Path, int]:
  sizes: dict[Path, int] = {}
  tree.map_arrays(lambda path, w: sizes.setdefault(path, w.size), params)
  return sizes


def _unit_costs(budget: Budget, sizes: dict[Path, int], ctx: Ctx) -> list[int]:
  """Return the cost of one weight of each array."""
  if budget.of != 'macs':
    return [1] * len(sizes)
  uses = expect_probe('prune.auto', ctx).uses
  for path in sizes:
    if path not in uses:
      raise ValueError(
        f'prune.auto at {path}: expected a weight with a known number '
        f'of uses ({", ".join(uses)}). Give a sparsity instead of macs.'
      )
  return [uses[path] for path in sizes]


def _kept(size: int, budget: Budget) -> np.ndarray:
  """Return how many weights each candidate keeps, in decreasing order."""
  shares = np.geomspace(1.0, budget.floor, budget.candidates)
  return np.maximum(np.round(shares * size), 1).astype(np.int64)


def _cost(budget: Budget, kept: np.ndarray, size: int) -> np.ndarray:
  """Return the cost of counts of kept weights: in weights, or in bits."""
  if budget.of != 'size':
    return kept
  p = kept / size
  empty = np.where(p < 1, 1 - p, 1.0)  # 0 log 0 = 0
  entropy = -p * np.log2(p) - (1 - p) * np.log2(empty)
  return FLOAT_BITS * kept + size * entropy


def _limit(budget: Budget, dense: list[float]) -> float:
  """Return the budget in the unit of the costs."""
  if budget.of == 'sparsity':
    return sum(dense) - round(budget.share * sum(dense))
  return budget.share * sum(dense)


def _ranks(params: Params, ctx: Ctx, score: str | Score) -> dict[Path, Array]:
  """Return the rank of each weight within its array, lowest score first."""
  ranks: dict[Path, Array] = {}
  score_fn = score_by_name('prune.auto', score, None)(params, ctx)

  def rank(path: Path, w: Array) -> Array:
    order = jnp.argsort(score_fn(path, w), axis=None, stable=True)
    ranks[path] = jnp.argsort(order).reshape(w.shape)
    return w

  tree.map_arrays(rank, params)
  return ranks


def _take(rows: list[Any], chosen: Array) -> Array:
  """Return the chosen entry of each row."""
  return jnp.stack(
    [jnp.asarray(row)[at] for row, at in zip(rows, chosen, strict=True)]
  )


def _slopes(row: Array, cost: np.ndarray) -> Array:
  """Return the sensitivity per saved cost of the step to each candidate."""
  saved = np.maximum(-np.diff(cost), 1.0)
  return jnp.concatenate([jnp.zeros(1), jnp.diff(row) / saved])


def _spend_rest(
  left: Array,
  sizes: list[int],
  unit_costs: list[int],
  limit: float,
  slopes: Array,
) -> Array:
  """Keep as many more weights as the budget allows, steepest layers first."""

  def spend(left: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    kept = np.asarray(left, np.int64)
    units = np.asarray(unit_costs, np.int64)
    room = int(limit) - int(np.sum(kept * units))
    for at in np.argsort(-np.asarray(slopes), kind='stable'):
      more = min(sizes[at] - kept[at], room // units[at])
      kept[at] += more
      room -= more * units[at]
    return kept.astype(np.int32)

  # On the host: counts of multiplications exceed 32 bits.
  shape = jax.ShapeDtypeStruct(left.shape, jnp.int32)
  return jax.pure_callback(spend, shape, left, slopes)


def _budget(**given: float | None) -> Budget:
  """Return the budget that was given."""
  named = {of: share for of, share in given.items() if share is not None}
  if len(named) != 1:
    raise ValueError(
      f'prune.auto: expected one budget of {", ".join(given)}, got '
      f'{named or None!r}.'
    )
  return Budget(*named.popitem())


def _check(budget: Budget) -> None:
  """Raise ValueError if a budget is impossible for any network."""
  of, share = budget.of, budget.share
  for what, got, names in (
    ('budget', of, ('sparsity', 'macs', 'size')),
    ('sensitivity', budget.sensitivity, tuple(allocation_lib.MEASURES)),
    ('score', budget.score, tuple(SCORES)),
  ):
    if not callable(got):
      expect_name('prune.auto', what, got, names)
  amounts: tuple[tuple[bool, str, float], ...] = (
    (
      0 <= share < 1 if of == 'sparsity' else 0 < share <= 1,
      'a sparsity in [0, 1)' if of == 'sparsity' else f'{of} in (0, 1]',
      share,
    ),
    (
      isinstance(budget.candidates, int) and budget.candidates >= 2,
      'at least 2 candidates',
      budget.candidates,
    ),
    (0 < budget.floor <= 1, 'a floor in (0, 1]', budget.floor),
  )
  for right, what, amount in amounts:
    if not right:
      raise ValueError(f'prune.auto: expected {what}, got {amount!r}.')


def _check_room(budget: Budget, limit: float, least: list[float]) -> None:
  if sum(least) > limit:
    raise ValueError(
      f'prune.auto: expected a floor that leaves at most {limit:g} of '
      f'{budget.of}, got {budget.floor!r}, which leaves {sum(least):g}. Lower '
      'the floor or raise the budget.'
    )
