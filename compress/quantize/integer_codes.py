"""Quantized weights as they are stored, and the grids of layer inputs."""

import abc
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from compress import kinds, tree
from compress.quantize import affine
from compress.tree import Array, Compressed


@struct.dataclass
class Inputs:
  """The grid to which the input of a layer is rounded.

  Attributes:
    low: Smallest value of the range, `()`.
    high: Largest value of the range, `()`.
    bits: Width of the grid.
  """

  low: Array
  high: Array
  bits: int = struct.field(pytree_node=False)

  def round(self, x: Array) -> Array:
    """Return `x` rounded to the grid."""
    return affine.fake_quantize(x, self.low, self.high, self.bits)

  def follow(self, observed: Array, momentum: Array | float) -> 'Inputs':
    """Update the range `[min, max]` by an exponential moving average."""
    low, high = (
      momentum * old + (1 - momentum) * new
      for old, new in ((self.low, observed[0]), (self.high, observed[1]))
    )
    return Inputs(low, high, self.bits)

  def plain(self) -> 'Inputs':
    """Return the grid as it is stored."""
    return self


@struct.dataclass
class Quantized(Compressed):
  """A weight as integer codes, as it is stored and deployed.

  Attributes:
    codes: int8 or int16 `[..., channels]`, in
      `[-(2**(bits-1) - 1), 2**(bits-1) - 1]`.
    scale: `()`, `[channels]` or `[groups, channels]` float32; groups consist
      of consecutive inputs, see `affine.columns`.
    inputs: The grid of the layer's input, or None for float inputs.
    bits: Width of a code.
  """

  kind: ClassVar[str] = kinds.GRID

  codes: Array
  scale: Array
  inputs: Inputs | None
  bits: int = struct.field(pytree_node=False)

  def decode(self) -> Array:
    """Return `codes * scale`."""
    return affine.dequantize(self.codes, self.scale, None)

  @property
  def transforms_input(self) -> bool:
    """Whether the layer's input has a grid."""
    return self.inputs is not None

  def transform_input(self, x: Array) -> Array:
    """Return the layer input, rounded to its grid."""
    return self.inputs.round(x) if self.inputs else x

  def apply_mask(self, mask: Array) -> Any:
    """Return the node with code 0 where `mask` is False."""
    return self.replace(codes=jnp.where(mask, self.codes, 0))

  def scatter(self, keep: Array, axis: int, size: int) -> Any:
    """Return the node with code 0 along an axis except at `keep`.

    None for groups of inputs, since the zeros would change the groups.
    """
    last = axis == self.codes.ndim - 1
    if self.scale.ndim == 2 and not last:
      return None
    codes = tree.scattered(self.codes, keep, axis, size)
    scale = self.scale
    if last and scale.ndim:
      scale = tree.scattered(scale, keep, scale.ndim - 1, size, fill=1)
    return self.replace(codes=codes, scale=scale)

  def scale_channels(self, gain: Array) -> Any:
    """Return the node times `gain`; the codes do not change."""
    return self.replace(scale=self.scale * gain)


@struct.dataclass
class Shifted(Quantized):
  """A weight as integer codes about a zero point: `scale * (codes - zero)`.

  Attributes:
    codes: int8 or int16 `[..., channels]`, from -2**(bits-1).
    zero: The zero point, the shape of `scale` and the dtype of the codes; or
      float32, an odd multiple of 0.5, if 0 is between two codes.
  """

  zero: Array

  def decode(self) -> Array:
    """Return `scale * (codes - zero)`."""
    return affine.dequantize(self.codes, self.scale, self.zero)

  def apply_mask(self, mask: Array) -> Any:
    """Return the node with 0 where `mask` is False; None if 0 has no code."""
    if jnp.issubdtype(self.zero.dtype, jnp.floating):
      return None
    zero = affine.broadcast_columns(self.zero, self.codes.shape)
    return self.replace(codes=jnp.where(mask, self.codes, zero))

  def scatter(self, keep: Array, axis: int, size: int) -> Any:
    """Return the node with 0 along an axis except at `keep`, or None."""
    wide = super().scatter(keep, axis, size)
    if wide is None or jnp.issubdtype(self.zero.dtype, jnp.floating):
      return None
    zero = self.zero
    if axis == self.codes.ndim - 1 and zero.ndim:
      zero = tree.scattered(zero, keep, zero.ndim - 1, size)
    there = tree.scattered(jnp.ones(self.codes.shape, bool), keep, axis, size)
    middle = affine.broadcast_columns(zero, wide.codes.shape)
    codes = jnp.where(there, wide.codes, middle)
    return wide.replace(codes=codes, zero=zero)


def stored(
  found: affine.Coded, inputs: Any, bits: int, *, between: bool = False
) -> Quantized:
  """Return a quantized weight as it is stored.

  Args:
    found: The codes and the grid.
    inputs: The grid of the layer's input, or None for float inputs.
    bits: Width of a code.
    between: Whether 0 is between two codes, so that it has no integer code.

  Returns:
    `Quantized`, or `Shifted` if there is a zero point.
  """
  width = jnp.int8 if bits <= 8 else jnp.int16
  codes, grids = found.codes.astype(width), inputs and inputs.plain()
  if found.zero is None:
    return Quantized(codes, found.scale, grids, bits)
  zero = found.zero if between else found.zero.astype(width)
  return Shifted(codes, found.scale, grids, bits, zero)


class LatentWeight(Compressed):
  """Base class of latent float weights that are trained on a grid.

  Attributes:
    w: The latent weight `[..., channels]`.
    inputs: The grid of the layer's input, or None for float inputs.
    bits: Width of the weight grid.
    between: Whether 0 is between two codes.
  """

  inner: ClassVar[tuple[str, ...]] = ('w',)
  kind: ClassVar[str] = kinds.GRID
  between: ClassVar[bool] = False

  w: Any
  inputs: Any
  bits: int

  @abc.abstractmethod
  def quantize(self) -> affine.Coded:
    """Return the codes and the grid."""

  @property
  def transforms_input(self) -> bool:
    """Whether the layer's input has a grid, here or in an inner node."""
    inside = tree.is_node(self.w) and self.w.transforms_input
    return self.inputs is not None or inside

  def transform_input(self, x: Array) -> Array:
    """Return the layer input, rounded to its grid."""
    x = super().transform_input(x)
    return self.inputs.round(x) if self.inputs else x

  def freeze(self) -> Any:
    """Return the integer codes and their grid."""
    if tree.is_node(self.w):
      return self
    grids = self.inputs and self.inputs.plain()
    return _stored(self.replace(inputs=None)).replace(inputs=grids)


@jax.jit
def _stored(node: LatentWeight) -> Quantized:
  """Return a weight with float inputs as it is stored, in one program."""
  return stored(node.quantize(), None, node.bits, between=node.between)
