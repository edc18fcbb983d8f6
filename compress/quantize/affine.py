"""Grids: which numbers a few bits stand for. Pure arithmetic, no nodes.

A code q stands for s (q - z). A weight has one step s and one zero z for the
whole tensor, for each channel, or for each group of inputs of a channel; what
of the weight shares them is a *column* here.
"""

import math
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from compress.tree import Array, Path

Per: TypeAlias = str | int  # 'tensor', 'channel', or inputs in a group

LEAST = 1e-9  # a learned step or clip that training makes smaller stays this


class Coded(NamedTuple):
  """A weight on its grid.

  Attributes:
    codes: Whole numbers as floats, the shape of the weight.
    scale: The step of each column: `()`, `[channels]` or `[groups, channels]`.
    zero: The code of 0 of each column, as `scale`; None where it is 0.
  """

  codes: Array
  scale: Array
  zero: Array | None


@jax.custom_jvp
def straight_through(grid: Array, x: Array) -> Array:
  """Return `grid` bit for bit, -0 as 0, with the gradient of `x`.

  No arithmetic does: `x + (grid - x)` rounds twice, and in `grid + (x - x)`
  a compiler that contracts to fused multiply-adds keeps a rounding error of x.
  """
  del x
  return _positive_zeros(grid)


@straight_through.defjvp
def _straight_through_jvp(
  primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
  grid, _ = primals
  return _positive_zeros(grid), tangents[1].astype(jnp.result_type(grid))


def _positive_zeros(grid: Array) -> Array:
  """Return an array whose zeros have no sign, as integer codes have none."""
  return jnp.where(grid == 0, jnp.zeros_like(grid), grid)


def columns(w: Array, per: Per, fill: float = 0.0) -> Array:
  """Return what shares a step along the first axis.

  Groups are of consecutive inputs, of at most `per` and as equal as can be, so
  that their number alone tells where they end.

  Args:
    w: Weight `[..., channels]`.
    per: 'tensor', 'channel', or the most inputs in a group.
    fill: What a last group that is shorter is filled up with.

  Returns:
    `[size]`, `[size, channels]` or `[size, groups, channels]`.

  >>> columns(jnp.arange(10).reshape(5, 2), 3).shape
  (3, 2, 2)
  """
  if per == 'tensor':
    return w.reshape(-1)
  rows = w.reshape(-1, w.shape[-1])
  if per == 'channel':
    return rows
  count = -(-len(rows) // int(per))
  size = -(-len(rows) // count)
  short = ((0, count * size - len(rows)), (0, 0))
  padded = jnp.pad(rows, short, constant_values=fill)
  return padded.reshape(count, size, -1).swapaxes(0, 1)


def stretched(x: Array, shape: tuple[int, ...]) -> Array:
  """Return one number a column so that it broadcasts over the weight.

  Args:
    x: `()`, `[channels]` or `[groups, channels]`.
    shape: Of the weight, `[..., channels]`.

  Returns:
    `x`, or `[..., channels]` if it is by groups.
  """
  if x.ndim < 2:
    return x
  inputs = math.prod(shape[:-1])
  size = -(-inputs // len(x))
  return jnp.repeat(x, size, axis=0)[:inputs].reshape(shape)


def symmetric_scale(
  w: Array, bits: int, per: Per = 'channel', share: Array | None = None
) -> Array:
  r"""Return the step of a symmetric grid, one a column.

  $s_c = \max_{i} |w_{ic}| / (2^{b-1} - 1)$; 1 for a column that is all zero.

  Args:
    w: Weight `[..., channels]`.
    bits: Width of the grid; the lowest code is not used, so that the grid is
      symmetric (Jacob+ 2018, arXiv 1712.05877, section 3).
    per: What shares a step; see `columns`.
    share: How much of that maximum the grid spans, by column; None is all.

  Returns:
    `()`, `[channels]` or `[groups, channels]`, positive.
  """
  top = jnp.max(columns(jnp.abs(w), per), axis=0)
  top = top if share is None else top * share
  scale = _divided(top, 2 ** (bits - 1) - 1)
  return jnp.where(scale > 0, scale, 1.0)  # a tiny top underflows as well


def _divided(x: Array, by: int) -> Array:
  """Return the quotient, the same bits compiled or not.

  XLA would multiply a scalar by the reciprocal of a number that it knows.
  """
  return x / jax.lax.optimization_barrier(jnp.asarray(by, x.dtype))


def encode(w: Array, scale: Array, bits: int) -> Array:
  """Return the codes `round(w / scale)` inside the grid, as floats."""
  top = 2 ** (bits - 1) - 1
  return jnp.clip(jnp.round(w / stretched(scale, w.shape)), -top, top)


def shifted_scale(low: Array, high: Array, bits: int) -> tuple[Array, Array]:
  r"""Return the step and the zero point of affine grids.

  $s = (h - l) / (2^b - 1)$ and $z = \mathrm{round}(-l / s)$ once $[l, h]$
  contains 0, which is then on the grid (Jacob+ 2018, equation 13).

  Args:
    low: Ends of the ranges, any shape.
    high: As `low`.
    bits: Width of the grid.

  Returns:
    `(scale, zero)`, as `low`; zero is a whole number in [0, 2^bits - 1].
  """
  low, high = jnp.minimum(low, 0.0), jnp.maximum(high, 0.0)
  top = 2**bits - 1
  scale = _divided(high - low, top)
  scale = jnp.where(scale > 0, scale, 1.0)
  return scale, jnp.clip(jnp.round(-low / scale), 0, top)


def coded(
  w: Array,
  bits: int,
  per: Per = 'channel',
  share: Array | None = None,
  symmetric: bool = True,
) -> Coded:
  """Put a weight on the grid that its own range gives.

  Args:
    w: Weight `[..., channels]`.
    bits: Width of the grid.
    per: What shares a step; see `columns`.
    share: How much of the range the grid spans, by column; None is all.
    symmetric: Whether 0 is in the middle of the grid; else the range is that
      of the weights, in codes from -2^(bits-1).

  Returns:
    The codes and the grid.

  >>> w = jnp.array([[0.0], [3.0]])
  >>> coded(w, 2, symmetric=False).codes.ravel().tolist()
  [-2.0, 1.0]
  """
  if symmetric:
    scale = symmetric_scale(w, bits, per, share)
    return Coded(encode(w, scale, bits), scale, None)
  parts = columns(w, per)
  part = 1.0 if share is None else share
  low, high = parts.min(axis=0) * part, parts.max(axis=0) * part
  scale, zero = shifted_scale(low, high, bits)
  step, middle = (stretched(x, w.shape) for x in (scale, zero))
  half = 2 ** (bits - 1)
  codes = jnp.clip(jnp.round(w / step) + middle, 0, 2 * half - 1) - half
  return Coded(codes, scale, zero - half)


def decoded(codes: Array, scale: Array, zero: Array | None) -> Array:
  """Return `scale * (codes - zero)`, in the type of the scale."""
  whole = codes.astype(scale.dtype)
  if zero is not None:
    whole = whole - stretched(zero, codes.shape).astype(scale.dtype)
  return whole * stretched(scale, codes.shape)


def affine(x: Array, low: Array, high: Array, bits: int) -> Array:
  r"""Round `x` to an affine grid over `[low, high]` that contains 0.

  $q = \mathrm{clip}(\mathrm{round}(x / s) + z)$, result $s (q - z)$, with the
  zero point $z$ nudged to an integer (Jacob+ 2018, equation 12). The gradient
  is 1 inside the range and 0 outside.

  Args:
    x: Any shape.
    low: `()`, at most 0 once nudged.
    high: `()`, at least 0 once nudged.
    bits: Width of the grid.

  Returns:
    `x` on the grid.
  """
  scale, zero = shifted_scale(low, high, bits)
  top = 2**bits - 1
  code = jnp.clip(jnp.round(x / scale) + zero, 0, top)
  inside = jnp.clip(x, scale * (0 - zero), scale * (top - zero))
  return straight_through(scale * (code - zero), inside)


def positive(x: Array) -> Array:
  """Return a learned step or clip as it is used, at least `LEAST`."""
  return jnp.maximum(jnp.abs(x), LEAST)


def expect_bits(where: str, what: str, bits: int, least: int = 2) -> None:
  """Check a width.

  Raises:
    ValueError: If it is no integer from `least` to 16.
  """
  if not (type(bits) is int and least <= bits <= 16):
    raise ValueError(
      f'{where}: expected {what} from {least} to 16, got {bits!r}.'
    )


def expect_widths(where: str, weight_bits: int, activation_bits: int) -> None:
  """Check the widths of weights and of their inputs, 0 for float inputs.

  Raises:
    ValueError: If one is impossible.
  """
  expect_bits(where, 'weight_bits', weight_bits)
  if activation_bits:
    expect_bits(where, 'activation_bits', activation_bits)


def expect_per(where: str, per: Per) -> None:
  """Check what shares a step.

  Raises:
    ValueError: If it is neither 'tensor', 'channel' nor a size of groups.
  """
  if per not in ('tensor', 'channel') and not (type(per) is int and per >= 1):
    raise ValueError(
      f"{where}: expected per='tensor', 'channel' or the inputs in a group "
      f'from 1, got {per!r}.'
    )


def expect_range(where: str, path: Path, low: float, high: float) -> None:
  """Check the range that a layer's input was seen to have.

  Raises:
    ValueError: If it is not finite, or one point.
  """
  if not (math.isfinite(low) and math.isfinite(high)):
    raise ValueError(
      f'{where} at {path}: expected inputs in a finite range, got '
      f'[{low:g}, {high:g}]. Look for weights or calibration examples that are '
      'not finite.'
    )
  if not low < high:
    raise ValueError(
      f'{where} at {path}: expected inputs that differ, got {low:g} alone. '
      'All units before this layer are dead, or all examples alike: train or '
      'prune what is before it more gently, calibrate on other examples, or '
      'leave these inputs alone with activation_bits=0.'
    )
