r"""Products of signs packed into words of 32, summed by popcounts.

$\sum_i a_i b_i = n - 2\,\mathrm{popcount}(a \oplus b)$ for signs $a_i$ and
$b_i$ (Courbariaux & Hubara+ 2016, arXiv 1602.02830, section 4).
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from compress.tree import Array

WORD = 32  # signs in a word
SIDES = 'DHW'


def words(signs: Array) -> Array:
  """Pack signs along the last axis, 32 to a word.

  Args:
    signs: `[..., n]` bool, True for +1.

  Returns:
    `[..., ceil(n / 32)]` uint32; unused bits of the last word are 0.

  >>> words(jnp.array([True, False, True])).tolist()
  [5]
  """
  short = -signs.shape[-1] % WORD
  padded = jnp.pad(signs, [(0, 0)] * (signs.ndim - 1) + [(0, short)])
  bits = padded.reshape(*signs.shape[:-1], -1, WORD).astype(jnp.uint32)
  return jnp.sum(bits << jnp.arange(WORD, dtype=jnp.uint32), -1)


def dot(a: Array, b: Array, size: int) -> Array:
  r"""Return the sum of products of packed signs.

  The outer loop runs over words and the inner one over channels: the opposite
  is up to 17 times slower on a CPU.

  Args:
    a: `[words, ...]` uint32.
    b: `[words, channels]` uint32.
    size: Number of signs in the words.

  Returns:
    `[..., channels]` int32, in [-size, size].

  >>> one = words(jnp.array([[True, False, True]])).T
  >>> dot(one, one, 3).tolist()
  [[3]]
  """

  def add(unlike: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
    x, y = pair
    bits = jax.lax.population_count(x[..., None] ^ y)
    return unlike + bits.astype(jnp.int32), None

  start = jnp.zeros((*a.shape[1:], b.shape[1]), jnp.int32)
  unlike, _ = jax.lax.scan(add, start, (a, b))
  return size - 2 * unlike


class Packed(NamedTuple):
  """A packed binary weight.

  Attributes:
    words: `[taps * words, channels]` uint32.
    sums: The sum of the signs of each tap, `[*taps, 1, channels]` float32.
    size: Number of signs per channel.
  """

  words: Array
  sums: Array
  size: int


def packed(weight: Array) -> Packed:
  """Pack a binary weight, `[*taps, n, channels]` bool."""
  *taps, n, channels = weight.shape
  found = jnp.swapaxes(words(jnp.swapaxes(weight, -1, -2)), -1, -2)
  sums = jnp.where(weight, 1.0, -1.0).sum(-2, keepdims=True)
  return Packed(found.reshape(-1, channels), sums, math.prod((*taps, n)))


def dense(signs: Array, weight: Packed) -> Array:
  """Multiply signs by a matrix of signs.

  Args:
    signs: `[..., n]` bool.
    weight: Packed from `[n, channels]`.

  Returns:
    `[..., channels]` int32.
  """
  packed = jnp.moveaxis(words(signs), -1, 0)
  return dot(packed, weight.words, weight.size)


def conv(
  signs: Array,
  weight: Packed,
  strides: Sequence[int],
  padding: Sequence[tuple[int, int]],
  dilation: Sequence[int] | None = None,
) -> Array:
  """Convolve signs with binary filters; padding counts as 0.

  Args:
    signs: `[batch, *sides, n]` bool.
    weight: Packed from `[*taps, n, channels]`.
    strides: Along the sides.
    padding: Before and after each side.
    dilation: Of the filters; None for 1.

  Returns:
    `[batch, *sides, channels]` int32.
  """
  apart = dilation or (1,) * len(strides)
  around = [(0, 0), *padding, (0, 0)]
  taps = weight.sums.shape[:-2]
  padded = jnp.pad(words(signs), around)
  sums = dot(_patches(padded, taps, strides, apart), weight.words, weight.size)
  outside = 1 - jnp.pad(jnp.ones((1, *signs.shape[1:-1], 1)), around)
  return sums + _met(outside, weight.sums, strides, apart)


def _patches(
  x: Array, taps: Sequence[int], strides: Sequence[int], apart: Sequence[int]
) -> Array:
  """Return `[taps * words, batch, *sides]` of a padded image."""
  parts = []
  for at in itertools.product(*map(range, taps)):
    sides = zip(at, x.shape[1:-1], taps, strides, apart, strict=True)
    places = (
      slice(i * d, i * d + size - (count - 1) * d, stride)
      for i, size, count, stride, d in sides
    )
    parts.append(x[(slice(None), *places)])
  found = jnp.moveaxis(jnp.stack(parts), -1, 1)
  return found.reshape(-1, *found.shape[2:])


def _met(
  outside: Array, sums: Array, strides: Sequence[int], apart: Sequence[int]
) -> Array:
  """Return the sums of the weights at padded inputs.

  Padded words count as -1, which adding these sums corrects. `outside` is 1
  where the image is padded, `[1, *sides, 1]`.
  """
  sides = SIDES[-len(strides) :]
  found = jax.lax.conv_general_dilated(
    outside,
    sums,
    strides,
    'VALID',
    rhs_dilation=apart,
    dimension_numbers=(f'N{sides}C', f'{sides}IO', f'N{sides}C'),
  )
  return found.astype(jnp.int32)
