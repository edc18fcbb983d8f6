"""Axes and precision of the arrays of users.

Networks take [n, height, width, channels]. A window of a sequence is an image
of width 1, a row of a table one pixel, so that every channel of a sensor and
every column of a table has a mean and a deviation of its own, and convolutions
move along time.
"""

from typing import NamedTuple

import numpy as np

# Rounding to float32 may move a value by this part of its channel's deviation.
TOLERANCE = 1e-3


class Scaling(NamedTuple):
  """The mean that was subtracted from each channel, and its divisor.

  Attributes:
    mean: [channels], in the unit of the source.
    std: [channels], in the unit of the source.
  """

  mean: tuple[float, ...]
  std: tuple[float, ...]


def with_four_axes(x: np.ndarray) -> np.ndarray:
  """Return inputs as [n, height, width, channels].

  Args:
    x: [n, height, width, channels]; [n, features]; or with three axes
      [n, height, width] if it is uint8 or its images are square, else
      [n, time, channels].

  Returns:
    A view of `x`; `x` itself if it has another number of axes.

  >>> with_four_axes(np.zeros((9, 128, 6))).shape
  (9, 128, 1, 6)
  >>> with_four_axes(np.zeros((9, 28, 28))).shape
  (9, 28, 28, 1)
  >>> with_four_axes(np.zeros((9, 13))).shape
  (9, 1, 1, 13)
  """
  if x.ndim == 2:
    return x[:, None, None, :]
  if x.ndim != 3:
    return x
  is_image = x.dtype == np.uint8 or x.shape[1] == x.shape[2]
  return x[..., None] if is_image else x[:, :, None, :]


def scaling(x: np.ndarray) -> Scaling | None:
  """Return how to standardize inputs that float32 cannot distinguish.

  Args:
    x: [n, height, width, channels] of any real type: the training examples.

  Returns:
    Mean and deviation by channel in float64, the deviation of a constant one
    as 1; None where float32 is precise enough, or `x` has it already.

  >>> scaling(np.array([1.7e9, 1.7e9 + 2]).reshape(2, 1, 1, 1))
  Scaling(mean=(1700000001.0,), std=(1.0,))
  >>> scaling(np.array([0.0, 2.0]).reshape(2, 1, 1, 1)) is None
  True
  """
  wide = x.dtype.kind in 'fiu' and x.dtype.itemsize > 2
  if not wide or x.dtype == np.float32 or x.ndim != 4 or not x.size:
    return None
  x = x.astype(np.float64)
  if not np.isfinite(x).all():
    return None
  axes = (0, 1, 2)
  with np.errstate(over='ignore', invalid='ignore'):  # refused later on
    mean, std = x.mean(axes), x.std(axes)
    rounding = np.abs(x).max(axes) * np.finfo(np.float32).eps
  varies = x.min(axes) != x.max(axes)
  if not np.any(varies & (rounding > TOLERANCE * std)):
    return None
  std = np.where(varies, std, 1.0)
  return Scaling(tuple(mean.tolist()), tuple(std.tolist()))


def scaled(x: np.ndarray, by: Scaling) -> np.ndarray:
  """Return [n, height, width, channels] standardized in float64, as float32."""
  wide = x.astype(np.float64)
  return ((wide - np.array(by.mean)) / np.array(by.std)).astype(np.float32)
