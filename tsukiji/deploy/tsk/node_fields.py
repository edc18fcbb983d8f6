"""The fields of a node in a file, checked on access."""

import math
from collections.abc import Collection
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from compress import tree
from tsukiji.deploy.tsk.header import check

Shape = tuple[int, ...]
EXTENT_LIMIT = 2**31  # of an axis
INTEGERS, FLOATS, BOOLS = 'iu', 'f', 'b'


class Leaf(NamedTuple):
  """The shape and the dtype of an array."""

  shape: Shape
  dtype: np.dtype

  @property
  def size(self) -> int:
    """Return the number of entries."""
    return math.prod(self.shape)

  @property
  def bytes(self) -> int:
    """Return the bytes of the array."""
    return self.size * self.dtype.itemsize


def is_array(x: Any) -> bool:
  """Return whether an object is an array, or has a shape and a dtype."""
  named = ('shape', 'dtype')
  return not tree.is_node(x) and all(hasattr(x, name) for name in named)


def promoted(one: np.dtype, other: np.dtype) -> np.dtype:
  """Return the dtype of a sum; float32 for two kinds of 16-bit floats.

  >>> promoted(np.dtype('f2'), np.dtype(jnp.bfloat16))
  dtype('float32')
  """
  try:
    return np.result_type(one, other)
  except TypeError:  # NumPy has no common dtype of bfloat16 and some others
    return np.dtype('f4')


def _kind(dtype: np.dtype) -> str:
  return FLOATS if jnp.issubdtype(dtype, jnp.floating) else dtype.kind


class Made(NamedTuple):
  """The decoded array of a node and its cost.

  Attributes:
    leaf: The decoded array.
    extra: Bytes of intermediate values.
    macs: Multiply-adds.
  """

  leaf: Leaf
  extra: int
  macs: int = 0


class Fields(NamedTuple):
  """The fields of a node.

  Attributes:
    path: Path of the node, for error messages.
    node: The node; its arrays are anything with a shape and a dtype.
    inner: The decoded arrays of its inner fields, by field.
  """

  path: str
  node: Any
  inner: dict[str, Leaf]

  def expect(self, right: bool, expected: str, got: Any) -> None:
    """Raise the error of a damaged file unless a condition holds."""
    check(right, f'{expected} at {self.path}', got)

  def array(
    self, name: str, kinds: str = INTEGERS + FLOATS, axes: int | None = None
  ) -> Leaf:
    """Return an array of certain kinds of numbers."""
    x = self.inner.get(name, getattr(self.node, name))
    self.expect(is_array(x), f'an array {name}', type(x).__name__)
    leaf = Leaf(tuple(x.shape), np.dtype(x.dtype))
    right = _kind(leaf.dtype) in kinds
    self.expect(right, f'{name} of kind {kinds}', leaf.dtype)
    axes = len(leaf.shape) if axes is None else axes
    self.expect(len(leaf.shape) == axes, f'{axes} axes of {name}', leaf.shape)
    return leaf

  def fitting(self, name: str, w: Leaf, kinds: str = FLOATS) -> Leaf:
    """Return a weight with the dtype of a factor that broadcasts to it.

    The factor may be None: then it is the weight.
    """
    if getattr(self.node, name) is None:
      return w
    factor = self.array(name, kinds)
    last = w.shape[len(w.shape) - len(factor.shape) :]
    right = len(factor.shape) <= len(w.shape) and all(
      n in (1, m) for n, m in zip(factor.shape, last, strict=True)
    )
    self.expect(right, f'{name} that broadcasts to {w.shape}', factor.shape)
    return Leaf(w.shape, promoted(w.dtype, factor.dtype))

  def integer(self, name: str, low: int, high: int) -> int:
    """Return an integer in [low, high]."""
    n = getattr(self.node, name)
    right = type(n) is int and low <= n <= high
    self.expect(right, f'{name} in [{low}, {high}]', n)
    assert isinstance(n, int)
    return n

  def name(self, name: str, known: Collection[str]) -> str:
    """Return one of some names."""
    value = getattr(self.node, name)
    right = type(value) is str and value in known
    self.expect(right, f'{name} to be one of {", ".join(known)}', value)
    assert isinstance(value, str)
    return value

  def shape(self, name: str = 'shape', axes: int | None = None) -> Shape:
    """Return a shape."""
    value = getattr(self.node, name)
    right = type(value) is tuple and all(
      type(n) is int and 0 <= n < EXTENT_LIMIT for n in value
    )
    right = right and len(value) in (range(1, 33) if axes is None else [axes])
    self.expect(right, f'a shape {name}', value)
    assert isinstance(value, tuple)
    return value
