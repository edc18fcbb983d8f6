"""Weights as 16-bit floats."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from compress import kinds, tree
from compress.method import Ctx, Method
from compress.quantize.affine import straight_through
from compress.tree import Array, Compressed, Params


@struct.dataclass
class Half(Compressed):
  """A weight as 16-bit floats.

  Attributes:
    halves: float16, or the bits of bfloat16 as uint16, `[..., channels]`.
    gain: Factor of each channel, `[channels]` float32, or None for 1.
  """

  kind: ClassVar[str] = kinds.GRID

  halves: Array
  gain: Array | None = None

  @property
  def bits(self) -> int:
    """Width of a number."""
    return 16

  def decode(self) -> Array:
    """Return the weight as float32."""
    x = self.halves
    if x.dtype == jnp.uint16:
      x = jax.lax.bitcast_convert_type(x, jnp.bfloat16)
    x = x.astype(jnp.float32)
    return x if self.gain is None else x * self.gain

  def apply_mask(self, mask: Array) -> 'Half':
    """Return the node with 0 where `mask` is False."""
    zero = jnp.zeros((), self.halves.dtype)
    return Half(jnp.where(mask, self.halves, zero), self.gain)

  def scatter(self, keep: Array, axis: int, size: int) -> 'Half':
    """Return the node with 0 along an axis except at `keep`."""
    gain = self.gain
    if gain is not None and axis == self.halves.ndim - 1:
      gain = tree.scattered(gain, keep, 0, size, fill=1)
    return Half(tree.scattered(self.halves, keep, axis, size), gain)

  def scale_channels(self, gain: Array) -> 'Half':
    """Return the node times `gain`; the 16-bit floats do not change."""
    return Half(self.halves, gain if self.gain is None else self.gain * gain)


@struct.dataclass
class LatentHalf(Compressed):
  """A float weight that is rounded to 16 bits in the forward pass.

  Attributes:
    w: The latent weight.
    storage: 'float16' or 'bfloat16'.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  inner: ClassVar[tuple[str, ...]] = ('w',)
  kind: ClassVar[str] = kinds.GRID

  w: Any
  storage: str = struct.field(pytree_node=False)

  @property
  def bits(self) -> int:
    """Width of a number."""
    return 16

  def _halves(self) -> Array:
    top = float(jnp.finfo(self.storage).max)
    return jnp.clip(self.w, -top, top).astype(self.storage)

  def decode(self) -> Array:
    """Return the rounded weight, with a straight-through gradient."""
    return straight_through(self._halves().astype(self.w.dtype), self.w)

  def freeze(self) -> Any:
    """Return the 16-bit floats."""
    if tree.is_node(self.w):
      return self
    return stored(self._halves())


def stored(x: Array) -> Half:
  """Return an array of float16 or bfloat16 as a node of the same numbers."""
  if x.dtype == jnp.bfloat16:  # which NumPy does not have
    x = jax.lax.bitcast_convert_type(x, jnp.uint16)
  return Half(x)


def half(dtype: str = 'float16') -> Method:
  """Store weights as 16-bit floats, clipped to the finite range of the type.

  Args:
    dtype: 'float16' (11 bits of precision, up to 65504) or 'bfloat16' (8 bits,
      the range of float32).

  Returns:
    The method.

  Raises:
    ValueError: If the type is not one of these or a weight is quantized
      already.
  """
  if dtype not in ('float16', 'bfloat16'):
    raise ValueError(
      f"quantize.half: expected 'float16' or 'bfloat16', got {dtype!r}."
    )

  def init(params: Params, ctx: Ctx) -> Params:
    kinds.refuse('quantize.half', kinds.GRID, params)
    return tree.map_arrays(lambda path, w: LatentHalf(w, dtype), params)

  return Method(init)
