"""Pruning by one number: the shares of the layers follow from the data."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from compress import allocation as allocation_lib
from compress import tree
from compress.method import Ctx, Method, expect_probe
from compress.prune import magnitude
from compress.prune.importance import SCORES
from compress.prune.magnitude import Masked
from compress.schedule import Schedule
from compress.tree import Array, Params, Path

FLOAT_BITS = 32  # of a weight that is kept, in the dense network too


class Budget(NamedTuple):
  """How much may be left of the weights in scope, and how to find out where.

  Attributes:
    of: What is counted: 'sparsity', 'macs' or 'size'.
    share: Of 'sparsity' what becomes 0; else what is left of the dense count.
    damage: How a candidate is judged, one of `allocate.DAMAGES`.
    score: Which weights of a layer go first, one of `SCORES`.
    candidates: Amounts tried a layer.
    floor: Least share that a layer keeps.
  """

  of: str
  share: float
  damage: str = 'loss'
  score: str = 'magnitude'
  candidates: int = 20
  floor: float = 0.002


def auto(
  sparsity: float | None = None,
  *,
  macs: float | None = None,
  size: float | None = None,
  damage: str = 'loss',
  score: str = 'magnitude',
  schedule: Schedule | None = None,
  candidates: int = 20,
  floor: float = 0.002,
) -> Method:
  r"""Prune to one budget, with the share of each layer found from data.

  Each layer is pruned alone to densities $f^{k / (C-1)}$, $k < C$, from whole
  to the floor $f$, the damage is measured (`allocate.sensitivity`), and a
  knapsack chooses the densities of least total damage that meet the budget.
  What rounding leaves of the budget goes back to the layers whose last step
  hurt most for its cost. Then each layer is pruned to its share as
  `prune.weights` does. The damage is that of one layer before any retraining:
  a guide to what hurts more, not a forecast.

  One of the first three is the budget. Under `only`, it is that of the
  weights that match.

  Args:
    sparsity: Share of zeros among all weights, in [0, 1), met exactly.
    macs: Share of the multiplications by weights that are not 0, in (0, 1];
      dense kernels do the others all the same.
    size: Share of the bytes of the float32 weights, in (0, 1]; a layer of
      density p counts 32 p + H(p) bits a weight, H the binary entropy of the
      positions.
    damage: 'loss', 'fisher', 'energy' or 'signal'; see
      `allocate.sensitivity`.
    score: Which weights of a layer go first; see `prune.weights`.
    schedule: How all shares rise together; by default all at once.
    candidates: Densities tried a layer, from 2; each costs one pass over the
      calibration data and layer.
    floor: Least share that a layer keeps, in (0, 1].

  Returns:
    The method.

  Raises:
    ValueError: If there is not one budget, it is out of range, less than the
      floors leave, or a choice is unknown.
  """
  budget = _budget(sparsity=sparsity, macs=macs, size=size)._replace(
    damage=damage, score=score, candidates=candidates, floor=floor
  )
  _check(budget)
  return magnitude.weights(
    lambda params, ctx: goals(params, ctx, budget),
    score=score,
    schedule=schedule,
  )


def allocation(params: Params, ctx: Ctx, budget: Budget) -> dict[Path, float]:
  """Return the share of zeros of each weight, to print or to set by hand.

  Args:
    params: The trained weights: arrays and nodes.
    ctx: With a probe for what needs data.
    budget: As the arguments of `auto` say it.

  Returns:
    Shares in [0, 1) by path: `prune.weights(allocation(...))` prunes the same
    weights as `auto`.

  Raises:
    ValueError: As `auto`.

  >>> one, other = 2.0 ** jnp.arange(8.0), jnp.ones(8)
  >>> allocation(
  ...   {'one': one.reshape(2, 4), 'other': other.reshape(2, 4)},
  ...   Ctx(),
  ...   Budget('sparsity', 0.5, damage='energy', floor=0.125),
  ... )
  {'one': 0.75, 'other': 0.25}
  """
  _check(budget)
  sizes = _sizes(params)
  found = goals(params, ctx, budget)
  return {path: int(n) / sizes[path] for path, n in found.items()}


def goals(params: Params, ctx: Ctx, budget: Budget) -> dict[Path, Array]:
  """Return how many zeros each weight gets, by path, each `()` int32."""
  sizes = _sizes(params)
  prices = _prices(budget, sizes, ctx)
  kept = [_kept(n, budget) for n in sizes.values()]
  cost = [
    price * _cost(budget, row, n)
    for row, n, price in zip(kept, sizes.values(), prices, strict=True)
  ]
  limit = _limit(budget, [float(row[0]) for row in cost])
  _check_room(budget, limit, [float(row[-1]) for row in cost])
  ranks = _ranks(params, ctx, budget.score)
  damage = allocation_lib.sensitivity(
    ctx,
    params,
    dict(zip(sizes, kept, strict=True)),
    lambda path, w, count: Masked(w, ranks[path] >= w.size - count),
    budget.damage,
  )
  harm = list(damage.values())
  chosen = allocation_lib.knapsack(harm, cost, limit)
  left = _take(kept, chosen).astype(jnp.int32)
  if budget.of != 'size':
    slopes = _take(list(map(_slopes, harm, cost)), chosen)
    left = _give_back(left, list(sizes.values()), prices, limit, slopes)
  return {p: n - k for (p, n), k in zip(sizes.items(), left, strict=True)}


def _sizes(params: Params) -> dict[Path, int]:
  sizes: dict[Path, int] = {}
  tree.map_arrays(lambda path, w: sizes.setdefault(path, w.size), params)
  return sizes


def _prices(budget: Budget, sizes: dict[Path, int], ctx: Ctx) -> list[int]:
  """Return what one weight of each array counts."""
  if budget.of != 'macs':
    return [1] * len(sizes)
  uses = expect_probe('prune.auto', ctx).uses
  for path in sizes:
    if path not in uses:
      raise ValueError(
        f'prune.auto at {path}: expected a weight whose uses are known '
        f'({", ".join(uses)}). Give a sparsity instead of macs.'
      )
  return [uses[path] for path in sizes]


def _kept(size: int, budget: Budget) -> np.ndarray:
  """Return how many weights each candidate keeps, falling from all of them."""
  shares = np.geomspace(1.0, budget.floor, budget.candidates)
  return np.maximum(np.round(shares * size), 1).astype(np.int64)


def _cost(budget: Budget, kept: np.ndarray, size: int) -> np.ndarray:
  """Return what counts of kept weights cost: in weights, or in bits."""
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


def _ranks(params: Params, ctx: Ctx, score: str) -> dict[Path, Array]:
  """Return the place of each weight among those of its array, least first."""
  ranks: dict[Path, Array] = {}
  worth = SCORES[score](params, ctx)

  def rank(path: Path, w: Array) -> Array:
    order = jnp.argsort(worth(path, w), axis=None, stable=True)
    ranks[path] = jnp.argsort(order).reshape(w.shape)
    return w

  tree.map_arrays(rank, params)
  return ranks


def _take(rows: list[Any], chosen: Array) -> Array:
  """Return the chosen entry of each row."""
  return jnp.stack(
    [jnp.asarray(row)[at] for row, at in zip(rows, chosen, strict=True)]
  )


def _slopes(harm: Array, cost: np.ndarray) -> Array:
  """Return what the last step to each candidate hurt, for what it saved."""
  saved = np.maximum(-np.diff(cost), 1.0)
  return jnp.concatenate([jnp.zeros(1), jnp.diff(harm) / saved])


def _give_back(
  left: Array, sizes: list[int], prices: list[int], limit: float, slopes: Array
) -> Array:
  """Keep as many weights more as the budget allows, where that helps most."""
  most, price = jnp.array(sizes, jnp.int32), jnp.array(prices, jnp.int32)
  room = jnp.int32(int(limit)) - jnp.sum(left * price)
  for at in jnp.argsort(-slopes):
    more = jnp.minimum(most[at] - left[at], room // price[at])
    left, room = left.at[at].add(more), room - more * price[at]
  return left


def _budget(**given: float | None) -> Budget:
  """Return the one budget that was given."""
  named = {of: share for of, share in given.items() if share is not None}
  if len(named) != 1:
    raise ValueError(
      f'prune.auto: expected one budget of {", ".join(given)}, got '
      f'{named or None!r}.'
    )
  return Budget(*named.popitem())


def _check(budget: Budget) -> None:
  """Refuse what no layers can meet."""
  of, share = budget.of, budget.share
  for what, got, names in (
    ('budget', of, ('sparsity', 'macs', 'size')),
    ('damage', budget.damage, tuple(allocation_lib.DAMAGES)),
    ('score', budget.score, tuple(SCORES)),
  ):
    if got not in names:
      raise ValueError(
        f'prune.auto: expected a {what} of {", ".join(names)}, got {got!r}.'
      )
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
  if limit >= 2**31:
    raise ValueError(
      f'prune.auto: expected a budget below 2**31, got {limit:g}. Give a '
      'sparsity instead of macs.'
    )
  if sum(least) > limit:
    raise ValueError(
      f'prune.auto: expected a floor that leaves at most {limit:g} of '
      f'{budget.of}, got {budget.floor!r}, which leaves {sum(least):g}. Lower '
      'the floor, or ask for less.'
    )
