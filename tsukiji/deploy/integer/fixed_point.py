"""Fixed-point multiplication of integers."""

from typing import Any, NamedTuple

import numpy as np

LIMIT = 2**31 - 1


class Fixed(NamedTuple):
  """Factors in fixed point: `multiplier / 2**31 * 2**shift`.

  Attributes:
    multiplier: int32, 0 or from 2**30.
    shift: int32, to the left if positive.
  """

  multiplier: np.ndarray
  shift: np.ndarray


def fixed(factor: np.ndarray) -> Fixed:
  """Return factors in fixed point (Jacob+ 2018, equations 5 and 6).

  Args:
    factor: Array of any shape, at least 0.

  Returns:
    The factors to 31 bits.

  >>> fixed(np.array([0.75, 3.0]))
  Fixed(multiplier=array([1610612736, 1610612736], dtype=int32),
    shift=array([0, 2], dtype=int32))
  """
  part, shift = np.frexp(np.asarray(factor, np.float64))
  multiplier = np.round(part * 2**31).astype(np.int64)
  overflow = multiplier == 2**31
  multiplier, shift = (
    np.where(overflow, 2**30, multiplier),
    np.where(overflow, shift + 1, shift),
  )
  return Fixed(multiplier.astype(np.int32), shift.astype(np.int32))


def times(x: np.ndarray, by: Fixed) -> np.ndarray:
  """Multiply int32 by fixed-point factors, as gemmlowp does.

  A saturating rounding doubling high multiplication, then a rounding right
  shift, both with ties away from 0 (Jacob+ 2018, section 2.2 and appendix B).

  Args:
    x: int32 `[..., channels]`.
    by: Factors that broadcast to x.

  Returns:
    int32.

  >>> times(np.array([5, -5], np.int32), fixed(np.array(0.5)))
  array([ 3, -3], dtype=int32)
  """
  left = np.maximum(by.shift, 0).astype(np.int64)
  right = np.clip(-by.shift, 0, 31).astype(np.int64)
  wide = np.clip(x.astype(np.int64) << np.minimum(left, 31), -LIMIT, LIMIT)
  product = wide * by.multiplier.astype(np.int64)
  high = _away(product, 31)
  return _away(high, right).astype(np.int32)


def _away(x: np.ndarray, bits: Any) -> np.ndarray:
  """Divide by 2**bits in integer arithmetic, ties away from 0."""
  half = (np.int64(1) << bits) >> 1
  return np.sign(x) * ((np.abs(x) + half) >> bits)
