"""Steps and bounds of the integers of a value."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tsukiji.deploy.integer.fixed_point import LIMIT
from tsukiji.graph import evaluate
from tsukiji.graph.nodes import Node

Shape = tuple[int, ...]


class Form(NamedTuple):
  """The step and the bound of integers, of size 1 where they are all the same.

  Attributes:
    scale: The value of 1, float64 of as many axes as one example.
    bound: Upper bound of the magnitude, likewise.
  """

  scale: np.ndarray
  bound: np.ndarray

  def over(self, axes: Sequence[int]) -> 'Form | None':
    """Return the form of values along some axes; None if steps differ."""
    if any(self.scale.shape[axis] != 1 for axis in axes):
      return None
    bound = np.max(self.bound, axis=tuple(axes), keepdims=True)
    return Form(self.scale, bound)

  def without(self, axes: Sequence[int]) -> 'Form':
    """Return the form without axes, of size 1."""
    return Form(*(np.squeeze(x, tuple(axes)) for x in self))


def along(axis: int, ndim: int, *fields: np.ndarray) -> list[np.ndarray]:
  """Return arrays `[channels]` along one of several axes."""
  shape = [1] * ndim
  shape[axis] = -1
  return [x.reshape(shape) for x in fields]


def moved(node: Node, forms: Sequence[Form], shapes: Sequence[Shape]) -> Form:
  """Return the form of what a node moves and joins.

  Args:
    node: Of an operator that computes nothing.
    forms: Of its inputs.
    shapes: Of its inputs, for one example.
  """
  sizes = [int(np.prod(shape)) for shape in shapes]
  starts = np.cumsum([0, *sizes])
  numbered = [
    np.arange(start, start + size, dtype=np.int32).reshape(shape)
    for start, size, shape in zip(starts, sizes, shapes, strict=False)
  ]
  places = np.asarray(evaluate.value(node, numbered, {}, 1))

  def joined(fields: Sequence[np.ndarray]) -> np.ndarray:
    pairs = zip(fields, shapes, strict=True)
    whole = [np.broadcast_to(x, shape).ravel() for x, shape in pairs]
    return _least(np.concatenate(whole)[places])

  return Form(*(joined(fields) for fields in zip(*forms, strict=True)))


def _least(x: np.ndarray) -> np.ndarray:
  """Return an array of size 1 along axes where it does not change."""
  for axis in range(x.ndim):
    first = x.take([0], axis)
    x = first if np.array_equal(np.broadcast_to(first, x.shape), x) else x
  return x


def coded(x: Any, form: Form) -> np.ndarray:
  """Return a constant in the steps of a form, int32, no more than the limit."""
  codes = np.round(np.asarray(x, np.float64) / form.scale)
  return np.clip(codes, -LIMIT, LIMIT).astype(np.int32)
