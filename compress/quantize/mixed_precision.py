"""Mixed precision: a bit width for each layer, chosen within a budget."""

import math
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from compress import allocation as allocation_lib
from compress import tree
from compress.allocation import MakeMeasure
from compress.method import Ctx, Method, expect_clock, expect_probe
from compress.quantize import affine
from compress.quantize.affine import Per
from compress.quantize.fake_quant import GridConfig
from compress.quantize.observers import Clip
from compress.quantize.uniform import FLOAT_BITS, by_widths
from compress.tree import Array, Params, Path

WIDEST = 8  # bits of the operands of an integer kernel


class Budget(NamedTuple):
  """A budget and how to divide it among layers.

  Attributes:
    of: The budgeted quantity: 'bits', 'size', 'bops' or 'ms'.
    limit: Mean bits per weight for 'bits', milliseconds for 'ms'; else a
      fraction of that of float32.
    choices: The widths to choose from.
    sensitivity: Measure of a width, as `allocation.sensitivity`.
  """

  of: str
  limit: float
  choices: tuple[int, ...]
  sensitivity: str | MakeMeasure


def auto(
  *,
  bits: float | None = None,
  size: float | None = None,
  bops: float | None = None,
  ms: float | None = None,
  choices: tuple[int, ...] = (2, 3, 4, 6, 8),
  activation_bits: int = 0,
  sensitivity: str | MakeMeasure = 'loss',
  per: Per = 'channel',
  symmetric: bool = True,
  clip: Clip = 'absmax',
) -> Method:
  r"""Quantize to one budget, with the width of each layer found from data.

  Each layer is quantized on its own to each width, its sensitivity is measured
  (`allocation.sensitivity`; 'trace' is that of HAWQ-V2, Dong+ 2020, arXiv
  1911.03852), and a knapsack chooses the widths of least total sensitivity that
  meet the budget. Everything else is as in `quantize.uniform`. Exactly one of
  the first four arguments is given. Under `only`, the budget is that of the
  weights that match.

  Integer kernels take the same time at any width up to 8 bits, and only layers
  with quantized inputs have them. With `ms`, all layers therefore have the
  widest of `choices` up to 8 bits, and layers are returned to float, the most
  sensitive first, while the time allows. The time is that of one example in
  the fastest engine installed; the XLA engine has no integer kernels.

  Args:
    bits: Mean bits per weight.
    size: Share of the bytes of the float32 weights, in (0, 1].
    bops: Share of the bit operations of float32, multiplications times weight
      bits times activation bits, in (0, 1].
    ms: Milliseconds of one example; needs `activation_bits`.
    choices: Widths, each 2 to 16; each takes one pass over the calibration
      data per layer.
    activation_bits: See `quantize.uniform`.
    sensitivity: 'loss', 'fisher', 'trace', 'energy' or 'signal'; see
      `allocation.sensitivity`.
    per: See `quantize.uniform`.
    symmetric: See `quantize.uniform`.
    clip: See `quantize.uniform`.

  Returns:
    The method.

  Raises:
    ValueError: If there is not exactly one budget, it is below that of the
      narrowest widths or of integers in every layer, or an argument is not
      valid.
  """
  where = 'quantize.auto'
  given = {'bits': bits, 'size': size, 'bops': bops, 'ms': ms}
  budget = _budget(where, given, choices, sensitivity)
  config = GridConfig(per, symmetric, clip, activation_bits)
  if budget.of == 'ms':
    return _timed(where, budget, config)

  def widths(params: Params, ctx: Ctx) -> Any:
    found = allocation(params, ctx, budget, config)
    return lambda path: found[path]

  return by_widths(where, widths, config)


def allocation(
  params: Params, ctx: Ctx, budget: Budget, config: GridConfig
) -> dict[Path, int]:
  """Return the width of each weight.

  Args:
    params: The trained weights: arrays and nodes.
    ctx: With a probe for what needs data.
    budget: As the arguments of `auto`.
    config: The other options.

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
  limit = budget.limit * sum(prices) * _unit(budget, config)
  least = sum(row[-1] for row in cost)
  if least > limit:
    raise ValueError(
      f'quantize.auto: expected {budget.of} of at least '
      f'{budget.limit * least / limit:.4g}, that of {wide[-1]} bits in every '
      f'weight, got {budget.limit!r}. Raise it or add narrower choices.'
    )
  found = allocation_lib.sensitivity(
    ctx,
    params,
    dict.fromkeys(weights, wide),
    lambda path, w, bits: config.node(w, bits),
    budget.sensitivity,
  )
  chosen = allocation_lib.knapsack(list(found.values()), cost, limit)
  picked = allocation_lib.picked(chosen, cost)
  return {p: wide[i] for p, i in zip(weights, picked, strict=True)}


def _timed(where: str, budget: Budget, config: GridConfig) -> Method:
  """Return floats in as many layers as a time allows, integers elsewhere."""
  narrow = [bits for bits in budget.choices if bits <= WIDEST]
  if not narrow or not 0 < config.activation_bits <= WIDEST:
    raise ValueError(
      f'{where}: expected choices and activation_bits up to {WIDEST} with ms, '
      f'got {budget.choices} and {config.activation_bits}. Integer kernels '
      'support no others.'
    )
  bits = max(narrow)

  def widths(params: Params, ctx: Ctx) -> Any:
    probe = expect_probe(where, ctx)
    clock = expect_clock(where, probe, 'bits, size or bops')
    weights: dict[Path, Array] = {}
    tree.map_arrays(lambda path, w: weights.setdefault(path, w), params)

    def time(floats: Collection[Path]) -> float:
      found = {p: FLOAT_BITS if p in floats else bits for p in weights}
      made = by_widths(where, lambda *_: found.__getitem__, config)
      return clock(made.init(params, ctx))

    floats: tuple[Path, ...] = tuple(weights)
    if time(floats) > budget.limit:
      floats = ()
      least = time(floats)
      if least > budget.limit:
        raise ValueError(
          f'{where}: expected at least {least:.4g} ms, the time with integers '
          f'in every layer, got {budget.limit!r}. Raise it, install an engine '
          'with integer kernels, or remove channels: prune.filters(ms=...).'
        )
      for path in _by_sensitivity(
        params, ctx, [*weights], bits, budget, config
      ):
        if time((*floats, path)) <= budget.limit:
          floats = (*floats, path)
    return lambda path: FLOAT_BITS if path in floats else bits

  return by_widths(where, widths, config)


def _by_sensitivity(
  params: Params,
  ctx: Ctx,
  paths: list[Path],
  bits: int,
  budget: Budget,
  config: GridConfig,
) -> list[Path]:
  """Return weights by their sensitivity to a width, the largest first."""
  found = allocation_lib.sensitivity(
    ctx,
    params,
    dict.fromkeys(paths, (bits,)),
    lambda path, w, bits: config.node(w, bits),
    budget.sensitivity,
  )
  return sorted(paths, key=lambda path: -float(found[path][0]))


def _unit(budget: Budget, config: GridConfig) -> float:
  """Return the bits per weight that correspond to a budget of 1."""
  if budget.of == 'bits':
    return 1.0
  if budget.of == 'size':
    return FLOAT_BITS
  return FLOAT_BITS**2 / (config.activation_bits or FLOAT_BITS)


def _prices(budget: Budget, weights: dict[Path, Array], ctx: Ctx) -> list[int]:
  """Return the cost of one bit in each array."""
  if budget.of != 'bops':
    return [w.size for w in weights.values()]
  uses = expect_probe('quantize.auto', ctx).uses
  for path in weights:
    if path not in uses:
      raise ValueError(
        f'quantize.auto at {path}: expected a weight with known uses, as '
        f'{", ".join(uses)}. Give size instead of bops.'
      )
  return [uses[path] * w.size for path, w in weights.items()]


def _budget(
  where: str,
  given: dict[str, float | None],
  choices: tuple[int, ...],
  sensitivity: str | MakeMeasure,
) -> Budget:
  named = {of: limit for of, limit in given.items() if limit is not None}
  if len(named) != 1:
    raise ValueError(
      f'{where}: expected one budget of {", ".join(given)}, got '
      f'{named or None!r}.'
    )
  of, limit = named.popitem()
  top = {'bits': FLOAT_BITS, 'ms': math.inf}.get(of, 1)
  if not 0 < limit <= top:
    what = 'ms above 0' if of == 'ms' else f'{of} in (0, {top}]'
    raise ValueError(f'{where}: expected {what}, got {limit!r}.')
  if not isinstance(choices, tuple | list) or not choices:
    raise ValueError(
      f'{where}: expected choices of widths as (2, 4, 8), got {choices!r}.'
    )
  for bits in choices:
    affine.expect_bits(where, 'choices', bits)
  allocation_lib.expect_measure(where, sensitivity, ())
  return Budget(of, limit, tuple(choices), sensitivity)
