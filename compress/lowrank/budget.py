"""Ranks by one budget: the fold and rank of each layer follow from data."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from compress import allocation, kinds, tree
from compress.allocation import MakeMeasure
from compress.dataflow import Observer, Product
from compress.errors import expect_name
from compress.lowrank import factors
from compress.lowrank.factors import FOLDS
from compress.method import (
  Ctx,
  Method,
  expect_clock,
  expect_probe,
  shapes_only,
)
from compress.tree import Array, Params, Path

BUDGETS = ('macs', 'size', 'ms')
BISECTIONS = 6  # of the search for a time


class Choice(NamedTuple):
  """The fold and rank of a weight; rank 0 keeps it dense."""

  fold: str
  rank: int


class Options(NamedTuple):
  """How ranks are found; see `auto`."""

  sensitivity: str | MakeMeasure
  goal: str
  folds: tuple[str, ...]
  candidates: int


class Candidates(NamedTuple):
  """The choices for each weight, their costs and sensitivities.

  Attributes:
    choices: By path.
    cost: By path, `[candidates]` multiplications or numbers.
    sensitivity: By path, `[candidates]`.
  """

  choices: dict[Path, list[Choice]]
  cost: dict[Path, np.ndarray]
  sensitivity: dict[Path, Array]


def auto(
  *,
  macs: float | None = None,
  size: float | None = None,
  ms: float | None = None,
  sensitivity: str | MakeMeasure = 'loss',
  goal: str = 'sum',
  fold: str = 'best',
  candidates: int = 12,
) -> Method:
  r"""Factor to one budget, with the rank of each layer found from data.

  Each weight is factored to several ranks on its own, its sensitivity is
  measured, and the budget is divided among the weights: with the goal 'sum' by
  a knapsack (`allocation.knapsack`), with 'max' for the least worst
  sensitivity. `sensitivity='operator', goal='max'` is the allocation of ALDS
  (Liebenwein+ 2021, arXiv 2107.11442, equations 4 and 5): the sensitivity is
  $\sigma_{r+1} / \sigma_1$, the relative error in the operator norm, and needs
  no data. A layer whose factors would cost as much as it does, and under
  `macs` and `ms` a grouped convolution, stays dense.

  Exactly one of the first three is given; under `only`, the budget is that of
  the weights that match.

  Args:
    macs: Share of the multiplications that remain at most, in (0, 1].
    size: Share of the numbers that remain at most, in (0, 1].
    ms: Milliseconds that the lowered network may take; the probe measures.
    sensitivity: One of those of `allocation.sensitivity`, or 'operator'.
    goal: 'sum' or 'max'.
    fold: 'channel', 'spatial' (see `lowrank.svd`), or 'best' for the less
      sensitive of the two in each layer.
    candidates: Ranks measured for each layer and fold, at least 2.

  Returns:
    The method.

  Raises:
    ValueError: If there is not exactly one budget, it cannot be met, an
      argument is out of range or calibration data is missing.
  """
  where = 'lowrank.auto'
  of, share = _budget(where, {'macs': macs, 'size': size, 'ms': ms})
  allocation.expect_measure(where, sensitivity, ('operator',))
  expect_name(where, 'goal', goal, ('max', 'sum'))
  expect_name(where, 'fold', fold, (*FOLDS, 'best'))
  if type(candidates) is not int or candidates < 2:
    raise ValueError(
      f'{where}: expected at least 2 candidates, got {candidates!r}.'
    )
  folds = FOLDS if fold == 'best' else (fold,)
  options = Options(sensitivity, goal, folds, candidates)

  def init(params: Params, ctx: Ctx) -> Params:
    kinds.refuse(where, kinds.FACTORS, params)
    count = 'size' if of == 'size' else 'macs'
    found = gathered(where, params, ctx, count, options)
    if of == 'ms':
      return _timed(where, params, ctx, found, options, share)
    return _applied(params, allocated(where, found, options, share))

  return Method(init)


def allocated(
  where: str, found: Candidates, options: Options, share: float
) -> dict[Path, Choice]:
  """Return the choice for each weight under a share of the dense cost.

  Raises:
    ValueError: If rank 1 everywhere costs more.
  """
  costs, losses = list(found.cost.values()), list(found.sensitivity.values())
  dense = sum(row[0] for row in costs)
  least = sum(row.min() for row in costs)
  if least > share * dense:
    raise ValueError(
      f'{where}: expected a share of at least {least / dense:.3g}, the cost of '
      f'rank 1, got {share!r}.'
    )
  sums = options.goal == 'sum'
  solve: Any = allocation.knapsack if sums else allocation.minimax
  picked = allocation.picked(solve(losses, costs, share * dense), costs)
  return {
    path: row[i]
    for (path, row), i in zip(found.choices.items(), picked, strict=True)
  }


def gathered(
  where: str, params: Params, ctx: Ctx, of: str, options: Options
) -> Candidates:
  """Return the candidates of every weight: dense, then ranks by fold."""
  weights: dict[Path, Array] = {}
  tree.map_arrays(lambda path, w: weights.setdefault(path, w), params)
  uses = _uses(where, params, ctx, weights) if of == 'macs' else {}
  full = {
    (path, fold): factors.truncated(w, min(factors.folded(w, fold).shape), fold)
    for path, w in weights.items()
    for fold in options.folds
  }
  choices, cost, sensitivity = {}, {}, {}
  for path, w in weights.items():
    last, first = uses.get(path, (1, 1))
    row, price, losses = [Choice('', 0)], [float(w.size * last)], [jnp.zeros(1)]
    # Without two spatial axes both folds are the same.
    for fold in options.folds if w.ndim == 4 else options.folds[:1]:
      node = full[path, fold]
      top = node.u.shape[-1]
      begin = first if fold == 'spatial' and w.ndim == 4 else last
      each = (node.u.size * begin + node.v.size * last) / top
      largest = min(top, math.ceil(price[0] / each) - 1)
      ranks = _ranks(largest, options.candidates)
      if ranks and first:
        row += [Choice(fold, rank) for rank in ranks]
        price += [each * rank for rank in ranks]
        losses.append(_losses(params, ctx, path, node, ranks, options))
    choices[path], cost[path] = row, np.asarray(price)
    sensitivity[path] = jnp.concatenate(losses)
  return Candidates(choices, cost, sensitivity)


def cut(node: factors.LowRank, rank: int) -> factors.LowRank:
  """Return the first terms of a product, and zeros: one shape for all ranks."""
  kept = jnp.arange(node.u.shape[-1]) < rank
  return factors.LowRank(jnp.where(kept, node.u, 0), node.v)


def _losses(
  params: Params,
  ctx: Ctx,
  path: Path,
  node: factors.LowRank,
  ranks: list[int],
  options: Options,
) -> Array:
  """Return the sensitivity to each rank of one weight, in falling order."""
  if options.sensitivity == 'operator':
    values = jnp.append(factors.singular_values(node), 0.0)
    return values[jnp.array(ranks)]
  found = allocation.sensitivity(
    ctx,
    params,
    {path: ranks},
    lambda p, w, rank: cut(node, rank),
    options.sensitivity,
  )
  return found[path]


def _ranks(largest: int, count: int) -> list[int]:
  """Return ranks from the largest that costs less than the weight to 1."""
  if largest < 1:
    return []
  tries = np.round(np.geomspace(largest, 1, count)).astype(int).tolist()
  return list(dict.fromkeys(tries))


def _uses(
  where: str, params: Params, ctx: Ctx, weights: dict[Path, Array]
) -> dict[Path, tuple[int, int]]:
  """Return how often the last and the first factor of a weight are used.

  In the spatial fold, the first has a window along the height only and
  therefore more positions than the layer. It is 0 for grouped convolutions,
  whose factors are no layers.
  """
  probe = expect_probe(where, ctx)
  wider = {}
  observer = Observer(
    _first_positions,
    jnp.add,
    lambda x, own: x[0] if own else jnp.sum(x),
    lambda shape: jnp.int32(0),
  )
  if shapes_only():  # grouped convolutions stay as they are there, too
    wider = {
      path: 0
      for path, site in probe.sites.items()
      if site.kind == 'conv' and site.groups > 1
    }
  elif probe.observe is not None:
    found = probe.observe(params, observer, 1)
    wider = {path: int(np.asarray(n)[0]) for path, n in found.items()}
  for path in weights:
    if path not in probe.uses:
      raise ValueError(
        f'{where} at {path}: expected a weight whose uses are known '
        f'({", ".join(probe.uses)}). Give a size instead.'
      )
  return {p: (probe.uses[p], wider.get(p, probe.uses[p])) for p in weights}


def _first_positions(product: Product, x: Array) -> Array | None:
  """Return the positions of the window of a layer without its width."""
  eqn, params = product.eqn, product.eqn.params
  if eqn.primitive.name == 'dot_general':
    return None  # both factors are used as often as the weight
  if params['feature_group_count'] > 1:
    return jnp.int32(0)
  numbers = params['dimension_numbers']
  if len(numbers.out_spec) != 4:
    return None
  _, _, *out = (eqn.outvars[0].aval.shape[i] for i in numbers.out_spec)
  _, _, *given = (eqn.invars[0].aval.shape[i] for i in numbers.lhs_spec)
  _, _, *window = (eqn.invars[1].aval.shape[i] for i in numbers.rhs_spec)
  # The second factor has the window, stride and padding of the width.
  return jnp.int32(out[0] * (given[1] if window[1] > 1 else out[1]))


def _applied(params: Params, chosen: dict[Path, Choice]) -> Params:
  def factor(path: Path, w: Array) -> Any:
    fold, rank = chosen[path]
    return factors.truncated(w, rank, fold) if rank else w

  return tree.map_arrays(factor, params)


def _timed(
  where: str,
  params: Params,
  ctx: Ctx,
  found: Candidates,
  options: Options,
  ms: float,
) -> Params:
  """Return the largest network within a time, by bisection."""
  clock = expect_clock(where, expect_probe(where, ctx), 'macs or size')
  if clock(params) <= ms:
    return params
  dense = sum(row[0] for row in found.cost.values())
  least_share = sum(row.min() for row in found.cost.values()) / dense
  low = least_share * (1 + 1e-9)  # not less than that after rounding
  high, best = 1.0, _applied(params, allocated(where, found, options, low))
  least = clock(best)
  if least > ms:
    raise ValueError(
      f'{where}: expected at least {least:.4g} ms, the time of rank 1, got '
      f'{ms!r}.'
    )
  for _ in range(BISECTIONS):
    middle = (low + high) / 2
    tried = _applied(params, allocated(where, found, options, middle))
    if clock(tried) <= ms:
      low, best = middle, tried
    else:
      high = middle
  return best


def _budget(where: str, given: dict[str, float | None]) -> tuple[str, float]:
  """Return the one budget that was given."""
  named = [(of, share) for of, share in given.items() if share is not None]
  if len(named) != 1:
    raise ValueError(
      f'{where}: expected one budget of {", ".join(BUDGETS)}, got '
      f'{dict(named) or None!r}.'
    )
  of, share = named[0]
  if not 0 < share <= (math.inf if of == 'ms' else 1):
    what = 'ms above 0' if of == 'ms' else f'{of} in (0, 1]'
    raise ValueError(f'{where}: expected {what}, got {share!r}.')
  return of, share
