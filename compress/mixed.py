"""Mixed precision: one budget in, a width for each layer out."""

from typing import Any, NamedTuple

import numpy as np

from compress import allocate, grid, quantize, tree
from compress.clip import Clip
from compress.grid import Per
from compress.method import Ctx, Method, expect_probe
from compress.quantize import How
from compress.tree import Array, Params, Path

FLOAT_BITS = 32  # of the numbers of the dense network


class Budget(NamedTuple):
  """How many bits there are, and how to find out where.

  Attributes:
    of: What is counted: 'bits' of a weight, 'size' or 'bops'.
    most: Of 'bits' the mean over the weights; else a share of float32.
    choices: The widths there are.
    damage: How a width is judged, one of `allocate.DAMAGES`.
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

  Each layer is quantized alone to each width, the damage is measured
  (`allocate.sensitivity`; 'trace' is HAWQ-V2's, Dong+ 2020, arXiv 1911.03852),
  and a knapsack chooses the widths of least total damage within the budget.
  Everything else is as in `quantize.grid`. One of the first three is the
  budget; under `only`, it is that of the weights that match.

  There is no budget in milliseconds: from 2 bits on, what is timed decodes the
  codes once and then runs dense float32 kernels, which take as long at any
  width, so that a clock would choose widths by its noise.

  Args:
    bits: Mean bits a weight.
    size: Share of the bytes of the float32 weights, in (0, 1].
    bops: Share of the bit operations of float32, multiplications times weight
      bits times activation bits, in (0, 1].
    ms: Refused, with what to ask for instead.
    choices: Widths, each 2 to 16; each costs one pass over the calibration
      data and layer.
    activation_bits: As `quantize.grid`.
    damage: One of 'energy', 'fisher', 'loss' and 'trace'.
    per: As `quantize.grid`.
    symmetric: As `quantize.grid`.
    clip: As `quantize.grid`.

  Returns:
    The method.

  Raises:
    ValueError: If there is not one budget, it is less than the narrowest
      widths take, or an argument is impossible.
  """
  where = 'quantize.auto'
  if ms is not None:
    raise ValueError(
      f'{where}: expected a budget of bits, size or bops, got ms={ms!r}. Dense '
      'float32 kernels run the codes, equally fast at any width. Name the bits '
      'instead, or remove channels: prune.filters(ms=...).'
    )
  given = {'bits': bits, 'size': size, 'bops': bops}
  budget = _budget(where, given, choices, damage)
  how = How(per, symmetric, clip, activation_bits)

  def widths(params: Params, ctx: Ctx) -> Any:
    found = allocation(params, ctx, budget, how)
    return lambda path: found[path]

  return quantize.by_widths(where, widths, how)


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
  harm = allocate.sensitivity(
    ctx,
    params,
    dict.fromkeys(weights, wide),
    lambda path, w, bits: how.node(w, bits),
    budget.damage,
  )
  chosen = allocate.knapsack(list(harm.values()), cost, limit)
  picked = np.asarray(chosen).tolist()
  return {p: wide[i] for p, i in zip(weights, picked, strict=True)}


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
  top = FLOAT_BITS if of == 'bits' else 1
  if not 0 < most <= top:
    raise ValueError(f'{where}: expected {of} in (0, {top}], got {most!r}.')
  if not isinstance(choices, tuple | list) or not choices:
    raise ValueError(
      f'{where}: expected choices of widths as (2, 4, 8), got {choices!r}.'
    )
  for bits in choices:
    grid.expect_bits(where, 'choices', bits)
  if damage not in allocate.DAMAGES:
    raise ValueError(
      f'{where}: expected a damage of {", ".join(allocate.DAMAGES)}, got '
      f'{damage!r}.'
    )
  return Budget(of, most, tuple(choices), damage)
