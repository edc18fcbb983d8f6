"""Ranks by one number: the fold and rank of each layer follow from data."""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from compress import allocation, tree
from compress.lowrank import factors
from compress.lowrank.decompose import refuse_structure
from compress.lowrank.factors import FOLDS
from compress.method import Ctx, Method, expect_clock, expect_probe
from compress.prune.masked import expect_name
from compress.tree import Array, Params, Path

BUDGETS = ('macs', 'size', 'ms')
DAMAGES = (*allocation.DAMAGES, 'operator')
HALVINGS = 6  # of the search for a time


class Choice(NamedTuple):
  """What becomes of a weight; rank 0 leaves it whole."""

  fold: str
  rank: int


class How(NamedTuple):
  """How ranks are found; see `auto`."""

  damage: str
  goal: str
  folds: tuple[str, ...]
  candidates: int


class Candidates(NamedTuple):
  """What may become of each weight, what it then costs and does.

  Attributes:
    choices: By path.
    cost: By path, `[candidates]` multiplications or numbers.
    harm: By path, `[candidates]`.
  """

  choices: dict[Path, list[Choice]]
  cost: dict[Path, np.ndarray]
  harm: dict[Path, Array]


def auto(
  *,
  macs: float | None = None,
  size: float | None = None,
  ms: float | None = None,
  damage: str = 'loss',
  goal: str = 'sum',
  fold: str = 'best',
  candidates: int = 12,
) -> Method:
  r"""Factor to one budget, with the rank of each layer found from data.

  Each weight alone is cut to several ranks, the damage measured, and the
  budget shared out: with the goal 'sum' by a knapsack
  (`allocate.sensitivity`), with 'max' so that the worst layer is hurt least.
  `damage='operator', goal='max'` is the allocation of ALDS (Liebenwein+ 2021,
  arXiv 2107.11442, equations 4 and 5): the damage is $\sigma_{r+1} / \sigma_1$,
  the relative error in the operator norm, and needs no data. A layer whose
  factors would cost as much as it does stays whole.

  One of the first three is the budget; under `only`, it is that of the weights
  that match.

  Args:
    macs: Share of the multiplications left at most, in (0, 1].
    size: Share of the numbers left at most, in (0, 1].
    ms: Milliseconds that the lowered network may take; the probe measures.
    damage: One of `allocate.DAMAGES`, or 'operator'.
    goal: 'sum' or 'max'.
    fold: 'channel', 'spatial' (see `lowrank.svd`), or 'best' for whichever
      does less damage, by layer.
    candidates: Ranks tried a layer and fold, from 2.

  Returns:
    The method.

  Raises:
    ValueError: If there is not one budget, it cannot be met, an argument is
      impossible or calibration data is missing.
  """
  where = 'lowrank.auto'
  of, share = _budget(where, {'macs': macs, 'size': size, 'ms': ms})
  expect_name(where, 'damage', damage, DAMAGES)
  expect_name(where, 'goal', goal, ('max', 'sum'))
  expect_name(where, 'fold', fold, (*FOLDS, 'best'))
  if type(candidates) is not int or candidates < 2:
    raise ValueError(
      f'{where}: expected candidates from 2, got {candidates!r}.'
    )
  how = How(damage, goal, FOLDS if fold == 'best' else (fold,), candidates)

  def init(params: Params, ctx: Ctx) -> Params:
    refuse_structure(where, params)
    found = gathered(
      where, params, ctx, 'size' if of == 'size' else 'macs', how
    )
    if of == 'ms':
      return _timed(where, params, ctx, found, how, share)
    return _applied(params, allocated(where, found, how, share))

  return Method(init)


def allocated(
  where: str, found: Candidates, how: How, share: float
) -> dict[Path, Choice]:
  """Return what becomes of each weight under a share of the whole cost.

  Raises:
    ValueError: If rank 1 everywhere costs more.
  """
  costs, harms = list(found.cost.values()), list(found.harm.values())
  whole = sum(row[0] for row in costs)
  least = sum(row.min() for row in costs)
  if least > share * whole:
    raise ValueError(
      f'{where}: expected a share of at least {least / whole:.3g}, what rank 1 '
      f'costs, got {share!r}.'
    )
  solve: Any = allocation.knapsack if how.goal == 'sum' else allocation.minimax
  picked = np.asarray(solve(harms, costs, share * whole)).tolist()
  return {
    path: row[i]
    for (path, row), i in zip(found.choices.items(), picked, strict=True)
  }


def gathered(
  where: str, params: Params, ctx: Ctx, of: str, how: How
) -> Candidates:
  """Return the candidates of every weight: whole, then ranks by fold."""
  weights: dict[Path, Array] = {}
  tree.map_arrays(lambda path, w: weights.setdefault(path, w), params)
  uses = _uses(where, params, ctx, weights) if of == 'macs' else {}
  full = {
    (path, fold): factors.truncated(w, min(factors.folded(w, fold).shape), fold)
    for path, w in weights.items()
    for fold in how.folds
  }
  choices, cost, harm = {}, {}, {}
  for path, w in weights.items():
    last, first = uses.get(path, (1, 1))
    row, price, hurt = [Choice('', 0)], [float(w.size * last)], [jnp.zeros(1)]
    # Two sides are needed for the second fold to be another one.
    for fold in how.folds if w.ndim == 4 else how.folds[:1]:
      node = full[path, fold]
      top = node.u.shape[-1]
      begin = first if fold == 'spatial' and w.ndim == 4 else last
      each = (node.u.size * begin + node.v.size * last) / top
      ladder = _ladder(min(top, math.ceil(price[0] / each) - 1), how.candidates)
      if ladder and first:
        row += [Choice(fold, rank) for rank in ladder]
        price += [each * rank for rank in ladder]
        hurt.append(_harm(params, ctx, path, node, fold, ladder, how.damage))
    choices[path], cost[path] = row, np.asarray(price)
    harm[path] = jnp.concatenate(hurt)
  return Candidates(choices, cost, harm)


def cut(node: factors.LowRank, rank: int) -> factors.LowRank:
  """Return the first terms of a product."""
  return factors.LowRank(node.u[..., :rank], node.v[..., :rank, :])


def _harm(
  params: Params,
  ctx: Ctx,
  path: Path,
  node: factors.LowRank,
  fold: str,
  ladder: list[int],
  damage: str,
) -> Array:
  """Return what each rank of one weight does, falling ranks one by one."""
  if damage == 'operator':
    # The factors hold the roots of the singular values.
    values = jnp.sum(node.u**2, axis=tuple(range(node.u.ndim - 1)))
    values = jnp.append(values, 0.0) / jnp.maximum(
      values[0], jnp.finfo(values.dtype).tiny
    )
    return values[jnp.array(ladder)]
  found = allocation.sensitivity(
    ctx, params, {path: ladder}, lambda p, w, rank: cut(node, rank), damage
  )
  return found[path]


def _ladder(top: int, count: int) -> list[int]:
  """Return ranks from the largest that pays down to 1."""
  if top < 1:
    return []
  tries = np.round(np.geomspace(top, 1, count)).astype(int).tolist()
  return list(dict.fromkeys(tries))


def _uses(
  where: str, params: Params, ctx: Ctx, weights: dict[Path, Array]
) -> dict[Path, tuple[int, int]]:
  """Return how often the last and the first factor of a weight are used.

  The first of the spatial fold has a window along one side alone, so that it
  is moved over more positions than the layer; 0 where a convolution has groups,
  whose factors are of no plain layers.
  """
  probe = expect_probe(where, ctx)
  wider = {}

  def see(seen: Any, module: nn.Module, x: Array) -> Array | None:
    if not isinstance(module, nn.Conv):
      return None  # both factors are used as often as the layer
    if module.feature_group_count > 1:
      return jnp.int32(0)
    if np.size(module.kernel_size) != 2:
      return None
    count = _first_positions(module, x.shape[-3:-1])
    return jnp.int32(count) + (0 if seen is None else seen)

  if probe.inputs is not None:
    found = probe.inputs(params, see, 1)
    counts = {path: n for path, n in found.items() if n is not None}
    wider = {path: int(np.asarray(n)[0]) for path, n in counts.items()}
  for path in weights:
    if path not in probe.uses:
      raise ValueError(
        f'{where} at {path}: expected a weight whose uses are known '
        f'({", ".join(probe.uses)}). Give a size instead.'
      )
  return {p: (probe.uses[p], wider.get(p, probe.uses[p])) for p in weights}


def _first_positions(module: nn.Conv, sides: tuple[int, ...]) -> int:
  """Return the positions of a window that is one column wide."""

  def both(x: Any) -> tuple[Any, ...]:
    return (1, 1) if x is None else (x, x) if isinstance(x, int) else tuple(x)

  window: Any = both(module.kernel_size)
  padding: Any = module.padding
  strides, spread = both(module.strides), both(module.kernel_dilation)
  if padding in ('CIRCULAR', 'REFLECT'):
    padding = 'SAME'
  if not isinstance(padding, str):
    padding = [p if isinstance(p, tuple) else (p, p) for p in both(padding)]
  if window[1] > 1:
    # The second factor has the window, stride and padding of this side.
    strides = (strides[0], 1)
    padding = padding if isinstance(padding, str) else [padding[0], (0, 0)]
  shape = jax.eval_shape(
    functools.partial(
      jax.lax.conv_general_dilated,
      window_strides=strides,
      padding=padding,
      rhs_dilation=spread,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    ),
    jax.ShapeDtypeStruct((1, *sides, 1), jnp.float32),
    jax.ShapeDtypeStruct((window[0], 1, 1, 1), jnp.float32),
  ).shape
  return int(shape[1] * shape[2])


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
  how: How,
  ms: float,
) -> Params:
  """Return the largest network that takes at most so long, by halving."""
  clock = expect_clock(where, expect_probe(where, ctx), 'macs or size')
  if clock(params) <= ms:
    return params
  whole = sum(row[0] for row in found.cost.values())
  least_share = sum(row.min() for row in found.cost.values()) / whole
  low = least_share * (1 + 1e-9)  # which rounds to no less than that
  high, best = 1.0, _applied(params, allocated(where, found, how, low))
  least = clock(best)
  if least > ms:
    raise ValueError(
      f'{where}: expected at least {least:.4g} ms, what rank 1 takes, got '
      f'{ms!r}.'
    )
  for _ in range(HALVINGS):
    middle = (low + high) / 2
    tried = _applied(params, allocated(where, found, how, middle))
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
