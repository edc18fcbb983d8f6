"""Lists of the weights of a product, for `lane_product`."""

from typing import NamedTuple

import numpy as np

from tsukiji.deploy.c.kernels.chunks import chunks
from tsukiji.deploy.c.kernels.plain_product import strides_of
from tsukiji.deploy.c.kernels.sparse_product import listed
from tsukiji.deploy.c.plan import fours
from tsukiji.deploy.c.plan.steps import Step
from tsukiji.deploy.c.plan.values import Load

SHARED = (8, 4, 2)  # outputs of a matrix with the same places
WAITING = 4  # sums of one output, so that none waits for the one before


class Lists(NamedTuple):
  """Weights by outputs or blocks of them.

  Attributes:
    counts: Entries of each list.
    places: Of inputs.
    weights: Likewise.
    outputs: Of a block.
    length: Entries at once.
  """

  counts: np.ndarray
  places: np.ndarray
  weights: np.ndarray
  outputs: int = 1
  length: int = 1


class Placed(NamedTuple):
  """How the windows of a product lie.

  Attributes:
    base: First place.
    down: Places between two rows of windows.
    right: Places between two columns.
    lists: The weights.
  """

  base: int
  down: int
  right: int
  lists: Lists


def placed(step: Step) -> Placed:
  """Return the weights of a step and where its windows lie."""
  return _coded(step) if step.attrs['fours'] else _plain(step)


def _plain(step: Step) -> Placed:
  """Return how an input of single numbers lies."""
  (x,), window = step.reads, step.attrs['window']
  assert isinstance(x, Load)
  base, strides = strides_of(x)
  inputs = window.weights.shape[2]
  found = listed(window, strides)
  counts, places = np.diff(found.ends), found.places
  if window.groups > 1:
    own = len(counts) // window.groups
    group = np.repeat(np.arange(len(counts)) // own, counts)
    places = places + strides[2] * inputs * group
  lists = Lists(counts, places, found.weights)
  down, right = (s * n for s, n in zip(strides, window.strides, strict=False))
  if step.tail is not None and step.tail.shape[:2] == (1, 1):
    lists = _matrix(lists)
  return Placed(base, down, right, lists)


def _matrix(lists: Lists) -> Lists:
  """Return the lists of a matrix, of which each sum needs others beside it."""
  outputs, kind = len(lists.counts), lists.weights.dtype
  owner = np.repeat(np.arange(outputs), lists.counts)
  places, where = np.unique(lists.places, return_inverse=True)
  whole = np.zeros((outputs, len(places)), kind)
  whole[owner, where] = lists.weights
  found = [_shared(whole, places, n) for n in SHARED if outputs % n == 0]
  found.append(_filled(whole, places))
  # Loads: of a weight for each output, a place and an input for all.
  return min(found, key=lambda x: x.places.size * (2 + x.outputs))


def _shared(whole: np.ndarray, places: np.ndarray, share: int) -> Lists:
  """Return lists of blocks of outputs, of all places that one of them needs."""
  blocks = whole.reshape(len(whole) // share, share, len(places))
  block, at = np.nonzero(np.any(blocks, axis=1))
  counts = np.bincount(block, minlength=len(blocks))
  return Lists(counts, places[at], blocks[block, :, at], share, 1)


def _filled(whole: np.ndarray, places: np.ndarray) -> Lists:
  """Return lists whose lengths are multiples of `WAITING`."""
  counts = -(-np.count_nonzero(whole, axis=1) // WAITING) * WAITING
  spots = np.zeros(counts.sum(), np.int64)
  weights = np.zeros(counts.sum(), whole.dtype)
  starts = np.cumsum(counts) - counts
  for row, start in zip(whole, starts, strict=True):
    (at,) = np.nonzero(row)
    spots[start : start + len(at)] = places[at]
    weights[start : start + len(at)] = row[at]
  return Lists(counts, spots, weights, 1, WAITING)


def _coded(step: Step) -> Placed:
  """Return how an input of fours lies."""
  (x,), window, form = step.reads, step.attrs['window'], step.attrs['fours']
  assert isinstance(x, Load)
  weights, across = fours.stacked(window, form.across)
  first = form.places[:, :, :: fours.SIZE] // fours.SIZE
  row, column, group = (
    int(np.diff(first, axis=axis).flat[0]) if first.shape[axis] > 1 else 0
    for axis in range(3)
  )
  height, width, groups = weights.shape[:3]
  places = (
    row * window.dilation[0] * np.arange(height)[:, None, None]
    + column * across * np.arange(width)[:, None]
    + group * np.arange(groups)
  )
  found = chunks(
    weights.reshape(-1, fours.SIZE, weights.shape[-1]),
    places.ravel(),
    step.attrs['grid'].top,
  )
  lists = Lists(found.counts, found.places, found.weights, 1, found.length)
  base = int(first[0, 0, 0])
  return Placed(
    base, row * window.strides[0], column * window.strides[1], lists
  )
