"""Mixed precision: one budget in, a width for each layer out."""

import math
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from compress import allocation as allocation_lib
from compress import tree
from compress.method import Ctx, Method, expect_clock, expect_probe
from compress.quantize import affine
from compress.quantize.affine import Per
from compress.quantize.fake_quant import How
from compress.quantize.observers import Clip
from compress.quantize.uniform import FLOAT_BITS, by_widths
from compress.tree import Array, Params, Path

WIDEST = 8  # bits that an integer kernel takes


class Budget(NamedTuple):
  """How many bits there are, and how to find out where.

  Attributes:
    of: What is counted: 'bits' of a weight, 'size', 'bops' or 'ms'.
    most: Of 'bits' the mean over the weights, milliseconds; else a share of
      float32.
    choices: The widths there are.
    damage: How a width is judged, one of `allocation.MEASURES`.
  """

  of: str
  most: float
  choices: tuple[int, ...]
  damage: str


def auto(
  *,
  bits: float | None = None,
  size: float | None = None,
  bops: float | None = None,
  ms: float | None = None,
  choices: tuple[int, ...] = (2, 3, 4, 6, 8),
  activation_bits: int = 0,
  damage: str = 'loss',
  per: Per = 'channel',
  symmetric: bool = True,
  clip: Clip = 'absmax',
) -> Method:
  r"""Quantize to one budget, with the width of each layer found from data.

  Each layer is quantized alone to each width, the damage is measured (see
  `allocation.sensitivity`; 'trace' is HAWQ-V2's, Dong+ 2020, arXiv 1911.03852),
  and a knapsack chooses the widths of least total damage within the budget.
  Everything else is as in `quantize.uniform`. One of the first three is the
  budget; under `only`, it is that of the weights that match.

  Kernels of integers take as long at any width up to 8 bits, and only layers
  with quantized inputs have them, so that milliseconds are another choice: all
  layers get the widest of `choices` up to 8 bits, and become floats again, the
  one that is hurt most first, as long as the clock allows. It times one example
  in the fastest engine there is; XLA's has no kernels of integers.

  Args:
    bits: Mean bits a weight.
    size: Share of the bytes of the float32 weights, in (0, 1].
    bops: Share of the bit operations of float32, multiplications times weight
      bits times activation bits, in (0, 1].
    ms: Milliseconds of one example; needs `activation_bits`.
    choices: Widths, each 2 to 16; each costs one pass over the calibration
      data and layer.
    activation_bits: As `quantize.uniform`.
    damage: One of 'energy', 'fisher', 'loss' and 'trace'.
    per: As `quantize.uniform`.
    symmetric: As `quantize.uniform`.
    clip: As `quantize.uniform`.

  Returns:
    The method.

  Raises:
    ValueError: If there is not one budget, it is less than the narrowest
      widths take, or integers in every layer, or an argument is impossible.
  """
  where = 'quantize.auto'
  given = {'bits': bits, 'size': size, 'bops': bops, 'ms': ms}
  budget = _budget(where, given, choices, damage)
  how = How(per, symmetric, clip, activation_bits)
  if budget.of == 'ms':
    return _timed(where, budget, how)

  def widths(params: Params, ctx: Ctx) -> Any:
    found = allocation(params, ctx, budget, how)
    return lambda path: found[path]

  return by_widths(where, widths, how)


def allocation(
  params: Params, ctx: Ctx, budget: Budget, how: How
) -> dict[Path, int]:
  """Return the width of each weight, to print or to set by hand.

  Args:
    params: The trained weights: arrays and nodes.
    ctx: With a probe for what needs data.
    budget: As the arguments of `auto` say it.
    how: What else is said of the grids.

  Returns:
    Bits by path.

  Raises:
    ValueError: If the narrowest widths exceed the budget.
  """
  weights: dict[Path, Array] = {}
  tree.map_arrays(lambda path, w: weights.setdefault(path, w), params)
  wide = tuple(sorted(budget.choices, reverse=True))
  prices = _prices(budget, weights, ctx)
  cost = [price * np.asarray(wide, np.float64) for price in prices]
  limit = budget.most * sum(prices) * _unit(budget, how)
  least = sum(row[-1] for row in cost)
  if least > limit:
    raise ValueError(
      f'quantize.auto: expected a budget that {wide[-1]} bits a weight fit '
      f'in, got {budget.of}={budget.most!r}. It takes at least '
      f'{budget.most * least / limit:.4g}.'
    )
  harm = allocation_lib.sensitivity(
    ctx,
    params,
    dict.fromkeys(weights, wide),
    lambda path, w, bits: how.node(w, bits),
    budget.damage,
  )
  chosen = allocation_lib.knapsack(list(harm.values()), cost, limit)
  picked = np.asarray(chosen).tolist()
  return {p: wide[i] for p, i in zip(weights, picked, strict=True)}


def _timed(where: str, budget: Budget, how: How) -> Method:
  """Return integers in as many layers as a time takes, floats elsewhere."""
  whole = [bits for bits in budget.choices if bits <= WIDEST]
  if not whole or not 0 < how.activation_bits <= WIDEST:
    raise ValueError(
      f'{where}: expected choices and activation_bits up to {WIDEST} with ms, '
      f'got {budget.choices} and {how.activation_bits}. Kernels of integers '
      'take no others.'
    )
  bits = max(whole)

  def widths(params: Params, ctx: Ctx) -> Any:
    probe = expect_probe(where, ctx)
    clock = expect_clock(where, probe, 'bits, size or bops')
    weights: dict[Path, Array] = {}
    tree.map_arrays(lambda path, w: weights.setdefault(path, w), params)

    def time(floats: Collection[Path]) -> float:
      found = {p: FLOAT_BITS if p in floats else bits for p in weights}
      made = by_widths(where, lambda *_: found.__getitem__, how)
      return clock(made.init(params, ctx))

    floats: tuple[Path, ...] = tuple(weights)
    if time(floats) > budget.most:
      floats = ()
      least = time(floats)
      if least > budget.most:
        raise ValueError(
          f'{where}: expected at least {least:.4g} ms, what integers in every '
          f'layer take, got {budget.most!r}. Raise it, let an engine with '
          'integers run, or remove channels: prune.filters(ms=...).'
        )
      for path in _by_harm(params, ctx, [*weights], bits, budget, how):
        if time((*floats, path)) <= budget.most:
          floats = (*floats, path)
    return lambda path: FLOAT_BITS if path in floats else bits

  return by_widths(where, widths, how)


def _by_harm(
  params: Params,
  ctx: Ctx,
  paths: list[Path],
  bits: int,
  budget: Budget,
  how: How,
) -> list[Path]:
  """Return weights by what a width does to them, the worst first."""
  harm = allocation_lib.sensitivity(
    ctx,
    params,
    dict.fromkeys(paths, (bits,)),
    lambda path, w, bits: how.node(w, bits),
    budget.damage,
  )
  return sorted(paths, key=lambda path: -float(harm[path][0]))


def _unit(budget: Budget, how: How) -> float:
  """Return how many bits a weight a budget of 1 stands for."""
  if budget.of == 'bits':
    return 1.0
  if budget.of == 'size':
    return FLOAT_BITS
  return FLOAT_BITS**2 / (how.activation_bits or FLOAT_BITS)


def _prices(budget: Budget, weights: dict[Path, Array], ctx: Ctx) -> list[int]:
  """Return what a bit of each array counts."""
  if budget.of != 'bops':
    return [w.size for w in weights.values()]
  uses = expect_probe('quantize.auto', ctx).uses
  for path in weights:
    if path not in uses:
      raise ValueError(
        f'quantize.auto at {path}: expected a weight whose uses are known '
        f'({", ".join(uses)}). Give a size instead of bops.'
      )
  return [uses[path] * w.size for path, w in weights.items()]


def _budget(
  where: str,
  given: dict[str, float | None],
  choices: tuple[int, ...],
  damage: str,
) -> Budget:
  named = {of: most for of, most in given.items() if most is not None}
  if len(named) != 1:
    raise ValueError(
      f'{where}: expected one budget of {", ".join(given)}, got '
      f'{named or None!r}.'
    )
  of, most = named.popitem()
  top = {'bits': FLOAT_BITS, 'ms': math.inf}.get(of, 1)
  if not 0 < most <= top:
    what = 'ms above 0' if of == 'ms' else f'{of} in (0, {top}]'
    raise ValueError(f'{where}: expected {what}, got {most!r}.')
  if not isinstance(choices, tuple | list) or not choices:
    raise ValueError(
      f'{where}: expected choices of widths as (2, 4, 8), got {choices!r}.'
    )
  for bits in choices:
    affine.expect_bits(where, 'choices', bits)
  if damage not in allocation_lib.MEASURES:
    raise ValueError(
      f'{where}: expected a damage of {", ".join(allocation_lib.MEASURES)}, '
      f'got {damage!r}.'
    )
  return Budget(of, most, tuple(choices), damage)
