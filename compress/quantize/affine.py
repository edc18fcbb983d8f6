"""Affine quantization of arrays: steps, zero points, codes.

A code q represents the value s (q - z). A weight has one step s and one zero
point z per tensor, per channel, or per group of inputs of a channel. The
entries of a weight that share them form a *column*.
"""

import math
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from compress.tree import Array, Path

Per: TypeAlias = str | int  # 'tensor', 'channel', or inputs in a group

SMALLEST = 1e-9  # lower bound of a step or clip that is trained


class Coded(NamedTuple):
  """The codes of a weight and its grid.

  Attributes:
    codes: Integers as floats, the shape of the weight.
    scale: Step of each column: `()`, `[channels]` or `[groups, channels]`.
    zero: Zero point of each column, the shape of `scale`; None for 0.
  """

  codes: Array
  scale: Array
  zero: Array | None


@jax.custom_jvp
def straight_through(grid: Array, x: Array) -> Array:
  """Return `grid` bit for bit, -0 as 0, with the gradient of `x`.

  Arithmetic does not: `x + (grid - x)` rounds twice, and in `grid + (x - x)`
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
  """Replace -0 by 0, since integer codes have no negative zero."""
  return jnp.where(grid == 0, jnp.zeros_like(grid), grid)


def columns(w: Array, per: Per, fill: float = 0.0) -> Array:
  """Return a weight with the entries of each column along the first axis.

  Groups consist of at most `per` consecutive inputs and are as equal in size
  as possible, so that the number of groups determines their bounds.

  Args:
    w: Weight `[..., channels]`.
    per: 'tensor', 'channel', or the maximum number of inputs in a group.
    fill: Value that pads a last group that is shorter.

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


def broadcast_columns(x: Array, shape: tuple[int, ...]) -> Array:
  """Return values per column in a shape that broadcasts against the weight.

  Args:
    x: `()`, `[channels]` or `[groups, channels]`.
    shape: Shape of the weight, `[..., channels]`.

  Returns:
    `x`, or `[..., channels]` if `x` has an axis of groups.
  """
  if x.ndim < 2:
    return x
  inputs = math.prod(shape[:-1])
  size = -(-inputs // len(x))
  return jnp.repeat(x, size, axis=0)[:inputs].reshape(shape)


def symmetric_scale(
  w: Array, bits: int, per: Per = 'channel', clip_ratio: Array | None = None
) -> Array:
  r"""Return the step of a symmetric grid for each column.

  $s_c = \max_{i} |w_{ic}| / (2^{b-1} - 1)$; 1 for a column of zeros.

  Args:
    w: Weight `[..., channels]`.
    bits: Width of the grid; the lowest code is not used, so that the grid is
      symmetric (Jacob+ 2018, arXiv 1712.05877, section 3).
    per: Granularity of the step; see `columns`.
    clip_ratio: Fraction of that maximum that the grid spans, per column; None
      for 1.

  Returns:
    `()`, `[channels]` or `[groups, channels]`, positive.
  """
  top = jnp.max(columns(jnp.abs(w), per), axis=0)
  top = top if clip_ratio is None else top * clip_ratio
  scale = divide(top, 2 ** (bits - 1) - 1)
  return jnp.where(scale > 0, scale, 1.0)  # a tiny top underflows as well


def divide(x: Array, by: float) -> Array:
  """Return the quotient, the same bits with and without compilation.

  XLA would replace division by a constant, or of several arrays by one number,
  by multiplication.
  """
  return x / jax.lax.optimization_barrier(jnp.asarray(by, x.dtype))


def encode(w: Array, scale: Array, bits: int) -> Array:
  """Return the codes `round(w / scale)`, clipped to the grid, as floats."""
  top = 2 ** (bits - 1) - 1
  return jnp.clip(jnp.round(w / broadcast_columns(scale, w.shape)), -top, top)


def asymmetric_scale(low: Array, high: Array, bits: int) -> tuple[Array, Array]:
  r"""Return the steps and the zero points of affine grids.

  $s = (h - l) / (2^b - 1)$ and $z = \mathrm{round}(-l / s)$, where $[l, h]$ is
  extended to contain 0, which is then on the grid (Jacob+ 2018, equation 13).

  Args:
    low: Lower ends of the ranges, any shape.
    high: Upper ends, the shape of `low`.
    bits: Width of the grid.

  Returns:
    `(scale, zero)`, the shape of `low`; zero points are integers in
    [0, 2^bits - 1].
  """
  low, high = jnp.minimum(low, 0.0), jnp.maximum(high, 0.0)
  top = 2**bits - 1
  scale = divide(high - low, top)
  scale = jnp.where(scale > 0, scale, 1.0)
  return scale, jnp.clip(jnp.round(-low / scale), 0, top)


def quantize(
  w: Array,
  bits: int,
  per: Per = 'channel',
  clip_ratio: Array | None = None,
  symmetric: bool = True,
) -> Coded:
  """Quantize a weight to a grid that spans its range.

  Args:
    w: Weight `[..., channels]`.
    bits: Width of the grid.
    per: Granularity of the step; see `columns`.
    clip_ratio: Fraction of the range that the grid spans, per column; None
      for 1.
    symmetric: Whether the grid is symmetric about 0. An asymmetric grid spans
      the range of the weights, with codes from -2^(bits-1).

  Returns:
    The codes and the grid.

  >>> w = jnp.array([[0.0], [3.0]])
  >>> quantize(w, 2, symmetric=False).codes.ravel().tolist()
  [-2.0, 1.0]
  """
  if symmetric:
    scale = symmetric_scale(w, bits, per, clip_ratio)
    return Coded(encode(w, scale, bits), scale, None)
  parts = columns(w, per)
  ratio = 1.0 if clip_ratio is None else clip_ratio
  low, high = parts.min(axis=0) * ratio, parts.max(axis=0) * ratio
  scale, zero = asymmetric_scale(low, high, bits)
  step, middle = (broadcast_columns(x, w.shape) for x in (scale, zero))
  half = 2 ** (bits - 1)
  codes = jnp.clip(jnp.round(w / step) + middle, 0, 2 * half - 1) - half
  return Coded(codes, scale, zero - half)


def dequantize(codes: Array, scale: Array, zero: Array | None) -> Array:
  """Return `scale * (codes - zero)` in the dtype of the scale."""
  shifted = codes.astype(scale.dtype)
  if zero is not None:
    shifted = shifted - broadcast_columns(zero, codes.shape).astype(scale.dtype)
  return shifted * broadcast_columns(scale, codes.shape)


def fake_quantize(x: Array, low: Array, high: Array, bits: int) -> Array:
  r"""Round `x` to an affine grid over `[low, high]`, extended to contain 0.

  $q = \mathrm{clip}(\mathrm{round}(x / s) + z)$, result $s (q - z)$, with the
  zero point $z$ nudged to an integer (Jacob+ 2018, equation 12). The gradient
  is 1 inside the range and 0 outside.

  Args:
    x: Array of any shape.
    low: Lower end of the range, `()`.
    high: Upper end of the range, `()`.
    bits: Width of the grid.

  Returns:
    `x` rounded to the grid.
  """
  scale, zero = asymmetric_scale(low, high, bits)
  top = 2**bits - 1
  code = jnp.clip(jnp.round(x / scale) + zero, 0, top)
  inside = jnp.clip(x, scale * (0 - zero), scale * (top - zero))
  return straight_through(scale * (code - zero), inside)


def positive(x: Array) -> Array:
  """Return the magnitude of a trained step or clip, at least `SMALLEST`."""
  return jnp.maximum(jnp.abs(x), SMALLEST)


def expect_bits(where: str, what: str, bits: int, least: int = 2) -> None:
  """Check a bit width.

  Raises:
    ValueError: If it is not an integer from `least` to 16.
  """
  if not (type(bits) is int and least <= bits <= 16):
    raise ValueError(
      f'{where}: expected {what} from {least} to 16, got {bits!r}.'
    )


def expect_widths(where: str, weight_bits: int, activation_bits: int) -> None:
  """Check the bit widths of weights and of layer inputs, 0 for float inputs.

  Raises:
    ValueError: If a width is not valid.
  """
  expect_bits(where, 'weight_bits', weight_bits)
  if activation_bits:
    expect_bits(where, 'activation_bits', activation_bits)


def expect_per(where: str, per: Per) -> None:
  """Check the granularity of steps.

  Raises:
    ValueError: If it is not 'tensor', 'channel' or a group size.
  """
  if per not in ('tensor', 'channel') and not (type(per) is int and per >= 1):
    raise ValueError(
      f"{where}: expected per='tensor', 'channel' or a group size from 1, got "
      f'{per!r}.'
    )


def expect_range(where: str, path: Path, low: float, high: float) -> None:
  """Check the observed range of a layer's input.

  Raises:
    ValueError: If it is not finite or consists of one value.
  """
  if not (math.isfinite(low) and math.isfinite(high)):
    raise ValueError(
      f'{where} at {path}: expected a finite range of inputs, got '
      f'[{low:g}, {high:g}]. Check the weights and the calibration examples '
      'for values that are not finite.'
    )
  if not low < high:
    raise ValueError(
      f'{where} at {path}: expected inputs that differ, got only {low:g}. '
      'All units before this layer are dead, or all examples are the same: '
      'prune the layers before it less, calibrate on other examples, or keep '
      'these inputs in floats with activation_bits=0.'
    )
