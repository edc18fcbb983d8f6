"""Lossless coding of floats: exponents are range coded, the rest is stored.

Trained weights have similar magnitudes, so that the 8 bits of an exponent have
an entropy below 3 bits. Signs and fractions are nearly random, but the last
bits of fractions that were rounded are zeros.
"""

import math

import numpy as np

from tsukiji.deploy.tsk import range_coder
from tsukiji.deploy.tsk.varint import check

FRACTION = {'bfloat16': 7, 'float16': 10, 'float32': 23}  # bits
PART = 2**16  # values decoded at a time
KEPT, SIGNED, NEGATIVE, SPREAD = 31, 32, 64, 128  # bits of a first byte


def known(dtype: np.dtype) -> bool:
  """Return whether values of a dtype have this coding."""
  return dtype.name in FRACTION


def encode(x: np.ndarray) -> bytes:
  """Return floats as bytes, without what they have in common.

  A byte says how many bits of the fractions are not 0 in all, whether signs
  differ (`SIGNED`), or all are negative (`NEGATIVE`), and whether exponents
  differ (`SPREAD`). The least exponent follows, and their range if they
  differ; then exponents under their histogram, and signs and fractions.

  Args:
    x: Any shape but an empty one; of a dtype in `FRACTION`, contiguous.

  Returns:
    The coding, without dtype and shape.
  """
  below, top = _widths(x.dtype)
  bits = x.ravel().view(f'u{x.itemsize}').astype(np.int64)
  fraction, sign = bits & (1 << below) - 1, bits >> top
  exponent = bits >> below & (1 << top - below) - 1
  used = int(np.bitwise_or.reduce(fraction))
  zeros = (used & -used).bit_length() - 1 if used else below
  low, high = int(exponent.min()), int(exponent.max())
  signed = bool(np.any(sign != sign[0]))
  flags = SIGNED * signed | NEGATIVE * int(sign[0] and not signed)
  head = [below - zeros | flags | SPREAD * (high > low), low]
  step, finish = range_coder.writer()
  if high > low:
    head.append(high - low)
    offsets = (exponent - low).astype(np.int32)
    range_coder.histogram(step, offsets, high - low + 1)
  rest = fraction >> zeros | (sign << below - zeros if signed else 0)
  range_coder.uniform(step, rest.astype(np.int32), below - zeros + signed)
  return bytes(head) + finish()


def decode(
  data: bytes | memoryview, dtype: np.dtype, shape: tuple[int, ...]
) -> np.ndarray:
  """Decode floats, bit for bit.

  Args:
    data: The result of `encode`.
    dtype: Of the floats, `known`.
    shape: Of the floats.

  Returns:
    A new array.

  Raises:
    ValueError: If the bytes are not a coding of such an array.

  >>> x = np.float32([0.5, -0.0, np.nan])
  >>> decode(encode(x), x.dtype, x.shape)
  array([ 0.5, -0. ,  nan], dtype=float32)
  """
  below, top = _widths(dtype)
  size = 3 if len(data) and data[0] & SPREAD else 2
  check(len(data) >= size, f'{size} bytes', len(data))
  kept, signed, low = data[0] & KEPT, bool(data[0] & SIGNED), data[1]
  span = data[2] if size == 3 else 0
  check(kept <= below, f'at most {below} bits of fractions', kept)
  check(low + span < 1 << top - below, f'exponents of {dtype}', low + span)
  exponent = np.zeros(math.prod(shape), np.uint8)
  bits = np.empty(exponent.shape, f'u{dtype.itemsize}')
  step, exhausted = range_coder.reader(data[size:])
  if span:
    range_coder.histogram(step, exponent, span + 1)
  for start in range(0, len(bits), PART):
    part = slice(start, start + PART)
    rest = np.zeros(len(bits[part]), np.int32)
    range_coder.uniform(step, rest, kept + signed)
    sign = (rest >> kept) | bool(data[0] & NEGATIVE)
    fraction = (rest & (1 << kept) - 1) << below - kept
    power = exponent[part].astype(np.int64) + low
    bits[part] = sign.astype(np.int64) << top | power << below | fraction
  check(exhausted(), f'the end of a stream behind {shape} floats', 'more bytes')
  return bits.view(dtype).reshape(shape)


def decode_exponents(
  data: bytes | memoryview, dtype: np.dtype, shape: tuple[int, ...]
) -> np.ndarray:
  """Decode floats of earlier files, which had no head.

  Arguments, result and errors are those of `decode`.
  """
  below, top = _widths(dtype)
  head = below | SIGNED | SPREAD, 0, (1 << top - below) - 1
  return decode(bytes(head) + bytes(data), dtype, shape)


def _widths(dtype: np.dtype) -> tuple[int, int]:
  """Return the number of bits below the exponent, and below the sign."""
  return FRACTION[dtype.name], 8 * dtype.itemsize - 1
