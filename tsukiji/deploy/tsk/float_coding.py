"""Lossless coding of floats: exponents are range coded, the rest is stored.

Trained weights have similar magnitudes, so that the 8 bits of an exponent have
an entropy below 3 bits. Signs and fractions are nearly random.
"""

import math

import numpy as np

from tsukiji.deploy.tsk import range_coder

FRACTION = {'bfloat16': 7, 'float16': 10, 'float32': 23}  # bits
PART = 2**16  # values decoded at a time


def known(dtype: np.dtype) -> bool:
  """Return whether values of a dtype have this coding."""
  return dtype.name in FRACTION


def encode(x: np.ndarray) -> bytes:
  """Return floats as bytes.

  Args:
    x: Any shape but an empty one; of a dtype in `FRACTION`, contiguous.

  Returns:
    The coding, without dtype and shape.
  """
  below, top = _widths(x.dtype)
  bits = x.ravel().view(f'u{x.itemsize}').astype(np.int64)
  exponent = bits >> below & (1 << top - below) - 1
  rest = bits >> top << below | bits & (1 << below) - 1
  step, finish = range_coder.writer()
  range_coder.histogram(step, exponent.astype(np.int32), 1 << top - below)
  range_coder.uniform(step, rest.astype(np.int32), 1 + below)
  return finish()


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
  exponent = np.empty(math.prod(shape), np.uint8)
  bits = np.empty(exponent.shape, f'u{dtype.itemsize}')
  step, exhausted = range_coder.reader(data)
  range_coder.histogram(step, exponent, 1 << top - below)
  for start in range(0, len(bits), PART):
    part = slice(start, start + PART)
    rest = np.empty(len(bits[part]), np.int32)
    range_coder.uniform(step, rest, 1 + below)
    sign, fraction = rest >> below, rest & (1 << below) - 1
    high = (
      sign.astype(np.int64) << top | exponent[part].astype(np.int64) << below
    )
    bits[part] = high | fraction
  if not exhausted():
    raise ValueError(
      f'floats: expected the end of a stream behind {shape} values, got more '
      'bytes. They are damaged, or belong to another array.'
    )
  return bits.view(dtype).reshape(shape)


def _widths(dtype: np.dtype) -> tuple[int, int]:
  """Return the number of bits below the exponent, and below the sign."""
  return FRACTION[dtype.name], 8 * dtype.itemsize - 1
