"""Nodes of shared weights: each entry is looked up among few numbers."""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import struct

from compress import kinds, tree
from compress.tree import Array, Compressed

FLOAT_BITS = 32  # of a shared number: what multipliers take


class Sharing(Compressed):
  """A weight whose entries are looked up among stored values.

  Attributes:
    values: The stored values, which are trained.
    gain: What each channel is multiplied by, `[channels]`, or None.
  """

  trainable: ClassVar[tuple[str, ...]] = ('values',)
  decayed: ClassVar[tuple[str, ...]] = ('values',)
  kind: ClassVar[str] = kinds.CODEBOOK
  bits: ClassVar[int] = FLOAT_BITS

  values: Array
  gain: Array | None

  def decode(self) -> Array:
    """Return the weight; the gradient of a value is summed over its uses."""
    w = self.looked_up()
    return w if self.gain is None else (w * self.gain).astype(w.dtype)

  def looked_up(self) -> Array:
    """Return the weight without the gain."""
    raise NotImplementedError

  def scale_channels(self, gain: Array) -> Any:
    """Return the node times `gain`; the values stay."""
    return self.replace(gain=gain if self.gain is None else self.gain * gain)


@struct.dataclass
class Shared(Sharing):
  """A weight as indices into a codebook of values.

  Attributes:
    values: The codebook, `[clusters]`.
    index: uint8 or uint16, the shape of the weight: 0 stands for 0 exactly,
      1 for the first of the values.
    gain: What each channel is multiplied by, `[channels]`, or None.
  """

  values: Array
  index: Array
  gain: Array | None = None

  def looked_up(self) -> Array:
    """Return the value of each index."""
    at = jnp.maximum(self.index.astype(jnp.int32) - 1, 0)
    return jnp.where(self.index > 0, self.values[at], 0)

  def apply_mask(self, mask: Array) -> 'Shared':
    """Return the node with index 0 where `mask` is False."""
    zero = jnp.zeros((), self.index.dtype)
    return self.replace(index=jnp.where(mask, self.index, zero))

  def scatter(self, keep: Array, axis: int, size: int) -> 'Shared':
    """Return the node with index 0 along an axis except at `keep`."""
    gain = self.gain
    if gain is not None and axis == self.index.ndim - 1:
      gain = tree.scattered(gain, keep, 0, size, fill=1)
    index = tree.scattered(self.index, keep, axis, size)
    return self.replace(index=index, gain=gain)


@struct.dataclass
class Products(Sharing):
  """A weight whose inputs are split into pieces, each one of a few codewords.

  Attributes:
    values: `[codebooks, clusters, length]`.
    index: uint8 or uint16 `[pieces, channels]`.
    gain: `[channels]`, or None.
    shape: Of the weight.
  """

  values: Array
  index: Array
  shape: tuple[int, ...] = struct.field(pytree_node=False)
  gain: Array | None = None

  def looked_up(self) -> Array:
    """Return the concatenated codewords."""
    books, _, length = self.values.shape
    pieces, channels = self.index.shape
    book = np.arange(pieces) * books // pieces
    found = self.values[book[:, None], self.index.astype(jnp.int32)]
    flat = found.transpose(0, 2, 1).reshape(pieces * length, channels)
    return flat[: int(np.prod(self.shape[:-1]))].reshape(self.shape)


@struct.dataclass
class Hashed(Sharing):
  r"""A weight $w_i = \xi(i) v_{h(i)}$ whose indices are computed, not stored.

  Attributes:
    values: `[buckets]`.
    seed: Of the hash, under 2**24.
    shape: Of the weight.
    gain: `[channels]`, or None.
  """

  values: Array
  seed: int = struct.field(pytree_node=False)
  shape: tuple[int, ...] = struct.field(pytree_node=False)
  gain: Array | None = None

  def looked_up(self) -> Array:
    """Return the value of each bucket under its sign."""
    at, sign = hashes(self.shape, len(self.values), self.seed)
    return self.values[at] * sign.astype(self.values.dtype)


def hashes(
  shape: tuple[int, ...], buckets: int, seed: int
) -> tuple[Array, Array]:
  """Return the bucket of each position, and its sign.

  Args:
    shape: Of the weight.
    buckets: How many there are.
    seed: Of both hashes.

  Returns:
    int32 and float32 arrays of the shape; the same on every machine.
  """
  at = jnp.arange(int(np.prod(shape)), dtype=jnp.uint32).reshape(shape)
  mixed = _scrambled(at ^ _scrambled(jnp.uint32(seed)))
  sign = _scrambled(mixed) & jnp.uint32(1)
  return (
    (mixed % jnp.uint32(buckets)).astype(jnp.int32),
    1.0 - 2.0 * sign.astype(jnp.float32),
  )


def _scrambled(x: Array) -> Array:
  """Return 32 bits mixed: the finalizer of MurmurHash3."""
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)
