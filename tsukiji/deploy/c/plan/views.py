"""Operators that only move numbers, on arrays of places."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tsukiji.graph.operators import sized


def _reshape(x: np.ndarray, groups: Any) -> np.ndarray:
  shape: list[int] = []
  for axes, sizes in groups:
    known = abs(math.prod(sizes))
    rest = math.prod(x.shape[i] for i in axes) // max(1, known)
    shape += [rest if size == -1 else size for size in sizes]
  return x.reshape(shape)


def _slice(x: np.ndarray, begin: Any, end: Any, strides: Any) -> np.ndarray:
  parts = zip(begin, end, strides, strict=True)
  return x[tuple(slice(a, b, step) for a, b, step in parts)]


MOVES: Mapping[str, Callable[..., np.ndarray]] = {
  'broadcast': lambda x, shape: np.broadcast_to(x, sized(shape, 1)),
  'expand': lambda x, axes: np.expand_dims(x, axes),
  'reshape': _reshape,
  'rev': lambda x, axes: np.flip(x, axes),
  'slice': _slice,
  'transpose': lambda x, order: np.transpose(x, order),
}


def spaced(
  shape: tuple[int, ...], widths: Any
) -> tuple[tuple[int, ...], np.ndarray]:
  """Return a padded shape, and the places of the array in it.

  Args:
    shape: Of the array.
    widths: Entries before, after and between, for each axis; at least 0.

  >>> spaced((2,), ((1, 0, 1),))
  ((4,), array([1, 3], dtype=int32))
  """
  pairs = [*zip(shape, widths, strict=True)]
  whole = tuple(a + b + n + max(0, n - 1) * c for n, (a, b, c) in pairs)
  places = np.arange(math.prod(whole), dtype=np.int32).reshape(whole)
  parts = (slice(a, a + (n - 1) * (c + 1) + 1, c + 1) for n, (a, b, c) in pairs)
  return whole, places[tuple(parts)]


def cropped(x: np.ndarray, widths: Any) -> np.ndarray:
  """Return an array without the entries that negative widths take away."""
  parts = (
    slice(max(0, -a), n - max(0, -b))
    for n, (a, b, *_) in zip(x.shape, widths, strict=True)
  )
  return x[tuple(parts)]
