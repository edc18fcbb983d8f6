"""Places of arrays as C formulas of loop variables."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Affine(NamedTuple):
  """Places that are linear in the indices: `base + sum(stride * index)`."""

  base: int
  strides: tuple[int, ...]


def affine(places: np.ndarray) -> Affine | None:
  """Return places as a formula, None if they are not linear.

  >>> affine(np.arange(6).reshape(2, 3)[:, ::2])
  Affine(base=0, strides=(3, 2))
  """
  if places.size == 0:
    return Affine(0, (0,) * places.ndim)
  base = int(places.flat[0])
  found: np.ndarray = np.full((1,) * places.ndim, base, np.int64)
  strides = []
  for axis, n in enumerate(places.shape):
    at = [0] * places.ndim
    at[axis] = min(1, n - 1)
    step = int(places[tuple(at)]) - base
    strides.append(step)
    shape = [1] * places.ndim
    shape[axis] = n
    found = found + step * np.arange(n).reshape(shape)
  if not np.array_equal(np.broadcast_to(found, places.shape), places):
    return None
  return Affine(base, tuple(strides))


def least(array: np.ndarray) -> np.ndarray:
  """Return an array of size 1 along the axes where it does not change.

  >>> least(np.array([[1, 2], [1, 2]])).tolist()
  [[1, 2]]
  """
  for axis in range(array.ndim):
    first = array.take([0], axis) if array.shape[axis] > 1 else array
    same = np.broadcast_to(first, array.shape)
    array = first if _same(same, array) else array
  return array


def _same(a: np.ndarray, b: np.ndarray) -> bool:
  return np.array_equal(a, b, equal_nan=a.dtype.kind == 'f')


def packed(shape: Sequence[int]) -> tuple[int, ...]:
  """Return the strides of an array without gaps, 0 along axes of size 1.

  >>> packed((2, 1, 3))
  (3, 0, 1)
  """
  found, step = [], 1
  for n in reversed(shape):
    found.append(step if n > 1 else 0)
    step *= n
  return tuple(reversed(found))


def joint(
  shape: Sequence[int], strides: Sequence[Sequence[int]]
) -> list[list[int]]:
  """Return groups of neighboring axes that can be one loop.

  Args:
    shape: Sizes of the loops.
    strides: Of each array that is read or written.

  >>> joint((2, 3, 1, 4), [(12, 4, 0, 1), (0, 0, 0, 1)])
  [[0, 1], [3]]
  """
  groups: list[list[int]] = []
  for axis, n in enumerate(shape):
    if n == 1:
      continue
    last = groups[-1][-1] if groups else None
    if last is not None and all(x[last] == n * x[axis] for x in strides):
      groups[-1].append(axis)
    else:
      groups.append([axis])
  return groups


def formula(at: Affine, names: Sequence[str]) -> str:
  """Return places as C.

  >>> formula(Affine(3, (8, 0, 1)), ('i', 'j', 'k'))
  '8 * i + k + 3'
  """
  parts = [
    name if step == 1 else f'{step} * {name}'
    for name, step in zip(names, at.strides, strict=True)
    if step and name
  ]
  if at.base or not parts:
    parts.append(str(at.base))
  return ' + '.join(parts).replace('+ -', '- ')
