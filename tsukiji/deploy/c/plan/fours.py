"""Codes of 8 bits in fours, so that a vector holds fours of 8 neighbors.

A four is 4 channels of a pixel, or the codes of the next columns where there
are only 1 or 2 channels. Fours of one row lie channels first: 8 of neighboring
columns, or of as many examples, are one vector of 32 bytes, which is multiplied
by 4 weights of one output.
"""

from typing import NamedTuple

import numpy as np

from tsukiji.deploy.c.plan.steps import Window

SIZE = 4
LANES = 8  # fours of a vector


class Fours(NamedTuple):
  """How codes lie in fours.

  Attributes:
    places: `[rows, columns, channels]` of the codes, first of a four or alone.
    copies: `[rows, columns, channels, copies]`: where each code is stored.
    bytes: Of all.
    across: Columns of a four.
  """

  places: np.ndarray
  copies: np.ndarray
  bytes: int
  across: int


def fours(shape: tuple[int, ...]) -> Fours:
  """Return where codes lie.

  Args:
    shape: Rows, columns and channels.

  >>> fours((1, 2, 8)).places[0, :, 0].tolist(), fours((1, 2, 8)).bytes
  ([0, 4], 16)
  >>> fours((1, 3, 1)).copies[0, 1, 0].tolist()
  [16, 13, 10, 7]
  """
  rows, columns, channels = shape
  across = SIZE // channels if channels in (1, 2) else 1
  groups, wide = -(-channels // SIZE), columns + across - 1
  row, column, channel, copy = np.ogrid[:rows, :columns, :channels, :across]
  group, place = np.divmod(channel, SIZE)
  at = (row * groups + group) * wide + column + across - 1 - copy
  copies = (SIZE * at + place + channels * copy).astype(np.int32)
  size = SIZE * rows * groups * wide
  return Fours(copies[..., 0], copies, size, across)


def stacked(window: Window, across: int) -> tuple[np.ndarray, int]:
  """Return weights in fours: `[rows, columns, groups, 4, outputs]`.

  Args:
    window: The product, without groups of channels.
    across: Columns of a four.

  Returns:
    The weights, and the columns between two neighboring ones.
  """
  height, width, inputs, outputs = window.weights.shape
  flat = window.weights
  if across > 1:
    flat = flat.reshape(height, 1, width * inputs, outputs)
  more = -flat.shape[2] % SIZE
  flat = np.pad(flat, ((0, 0), (0, 0), (0, more), (0, 0)))
  found = flat.reshape(*flat.shape[:2], -1, SIZE, outputs)
  return (found.swapaxes(1, 2), across) if across > 1 else (found, 1)


def is_row(window: Window, columns: int) -> bool:
  """Return whether the windows of a row can be one vector."""
  return columns >= LANES and window.strides[1] == 1
