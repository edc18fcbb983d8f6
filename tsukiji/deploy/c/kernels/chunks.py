"""Fours of weights in chunks whose sums of products have 16 bits."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LIMIT = 2**15 - 1
LENGTHS = (1, 2, 3, 4, 6, 8)  # fours of a chunk


class Chunks(NamedTuple):
  """Fours of weights in chunks whose sums of pairs have 16 bits.

  Attributes:
    length: Fours of a chunk.
    counts: Chunks of each output.
    places: Of all fours, output by output; 0 of those that fill a chunk.
    weights: `[fours, 4]`.
  """

  length: int
  counts: np.ndarray
  places: np.ndarray
  weights: np.ndarray


def chunks(
  weights: np.ndarray,
  places: np.ndarray,
  top: int,
  lengths: Sequence[int] = LENGTHS,
) -> Chunks:
  r"""Return lists of fours without zeros, in chunks for the fewest operations.

  Codes are in [0, top], so that the sum of some products lies between top
  times the sum of the negative weights and top times that of the others: a
  chunk holds fours for which both have 16 bits, in each of the two sums. Large
  ones are put first where they fit. A four whose own pairs do not fit is two.

  Args:
    weights: `[fours, 4, outputs]`, of at most 8 bits.
    places: `[fours]`.
    top: The largest code.
    lengths: Of chunks, to choose from.
  """
  fours, spots = _split(weights, places, top)
  found = [_packed(fours, spots, top, n) for n in lengths]
  costs = [(2 * x.length + 2) * x.counts.sum() for x in found]
  return found[int(np.argmin(costs))]


def _split(
  weights: np.ndarray, places: np.ndarray, top: int
) -> tuple[np.ndarray, np.ndarray]:
  """Return `[outputs, n, 4]` fours whose pairs fit, and `[outputs, n]` places.

  Large fours come first, fours of zeros last.
  """
  fours = np.moveaxis(weights.astype(np.int64), 2, 0)
  pairs = fours.reshape(*fours.shape[:2], 2, 2)
  large = top * np.abs(pairs.sum(axis=3)) > LIMIT
  large &= np.prod(pairs, axis=3) > 0  # of one sign
  second = np.where(large[..., None], pairs * [0, 1], 0).reshape(fours.shape)
  both = np.concatenate([fours - second, second], axis=1)
  spots = np.broadcast_to(np.concatenate([places, places]), both.shape[:2])
  order = np.argsort(-np.abs(both).sum(axis=2), axis=1, kind='stable')
  both = np.take_along_axis(both, order[..., None], axis=1)
  most = int(np.max(np.sum(np.any(both, axis=2), axis=1), initial=0))
  return both[:, :most], np.take_along_axis(spots, order, axis=1)[:, :most]


def _packed(
  fours: np.ndarray, spots: np.ndarray, top: int, length: int
) -> Chunks:
  """Return fours in the first chunks that hold them."""
  outputs, count = fours.shape[:2]
  every, used = np.arange(outputs), 0
  size = np.zeros((outputs, count + 1), np.int64)
  room = np.full((outputs, count + 1, 4), LIMIT // top)
  sums = np.stack([np.maximum(fours, 0), np.maximum(-fours, 0)], axis=2)
  taken = sums.reshape(*sums.shape[:3], 2, 2).sum(axis=4)
  taken = taken.reshape(outputs, count, 4)
  held = np.zeros((outputs, count, length, 4), np.int16)
  where = np.zeros((outputs, count, length), np.int32)
  for n in range(count):
    near = used + 1
    fits = np.all(room[:, :near] >= taken[:, n, None], axis=2)
    fits &= size[:, :near] < length
    at = np.argmax(fits, axis=1)
    some = np.any(fours[:, n], axis=1)
    own, chunk = every[some], at[some]
    slot = size[own, chunk]
    held[own, chunk, slot] = fours[own, n]
    where[own, chunk, slot] = spots[own, n]
    size[own, chunk] += 1
    room[own, chunk] -= taken[own, n]
    used = max(used, int(np.max(chunk, initial=-1)) + 1)
  full = size[:, :count] > 0
  return Chunks(
    length,
    full.sum(axis=1),
    where[full].reshape(-1),
    held[full].reshape(-1, 4),
  )


def words(weights: np.ndarray) -> np.ndarray:
  """Return fours as int32, the first weight in the lowest byte.

  >>> words(np.array([[1, 0, 0, -1]])).tolist()
  [-16777215]
  """
  shifts = 8 * np.arange(4)
  wide = (weights.astype(np.int64) & 255) << shifts
  return wide.sum(axis=-1).astype(np.uint32).view(np.int32)
