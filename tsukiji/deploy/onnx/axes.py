"""Tensors of a model, whose axes may stand in another order than in the graph.

Engines compute convolutions with channels first. So each tensor knows where its
axes are, and is transposed only where an operator needs another order.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tsukiji.graph import evaluate
from tsukiji.graph.nodes import Graph

Sizes = tuple[int | None, ...]  # None for the number of examples
Order = tuple[int, ...]
COUNTS = (2, 3)  # examples, to see which sizes depend on their number


class Tensor(NamedTuple):
  """A tensor of the model.

  Attributes:
    name: Its name; '' for one that has none yet.
    shape: Its shape in the graph.
    dtype: Its type in the graph; every float is float32 in the model.
    order: The axis of the graph at each axis in the model, or None for the same
      order.
    value: The numbers of a constant, in the shape of the graph.
    divisor: Number by which the model has yet to divide it, or None.
    places: The index in the graph of each entry of the last axis, or None for
      the same order.
    is_integer: Whether it is a dequantized tensor of codes.
  """

  name: str
  shape: Sizes
  dtype: Any
  order: Order | None = None
  value: np.ndarray | None = None
  divisor: float | None = None
  places: np.ndarray | None = None
  is_integer: bool = False

  @property
  def is_float(self) -> bool:
    """Whether it is a float."""
    return is_float(self.dtype)

  @property
  def axes(self) -> Order:
    """The axis of the graph at each axis in the model."""
    return self.order or (*range(len(self.shape)),)


def held(x: Any) -> Tensor:
  """Return a constant without a name."""
  array = np.asarray(x)
  return Tensor('', array.shape, array.dtype, value=array)


def is_float(dtype: Any) -> bool:
  """Return whether a type is a float, of any width."""
  return bool(jax.numpy.issubdtype(dtype, jax.numpy.floating))


def results_of(
  graph: Graph, inputs: Sequence[Tensor], weights: Mapping[str, Any]
) -> list[Any]:
  """Return the results of all nodes, without names.

  Args:
    graph: The graph.
    inputs: What it takes.
    weights: Arrays by path.
  """
  shapes = evaluate.abstract(weights)

  def values(count: int) -> list[Any]:
    given = [
      jax.ShapeDtypeStruct(
        tuple(count if n is None else n for n in x.shape), x.dtype
      )
      for x in inputs
    ]
    return evaluate.shapes(graph, shapes, given, count)

  return [
    _tensors(a, b)
    for a, b in zip(values(COUNTS[0]), values(COUNTS[1]), strict=True)
  ]


def _tensors(a: Any, b: Any) -> Any:
  if isinstance(a, tuple | list):
    return [_tensors(x, y) for x, y in zip(a, b, strict=True)]
  pairs = zip(a.shape, b.shape, strict=True)
  return Tensor('', tuple(n if n == m else None for n, m in pairs), a.dtype)


def known(order: Any) -> Order | None:
  """Return an order, None if it moves nothing."""
  found = tuple(int(i) for i in order)
  return None if found == (*range(len(found)),) else found


def number(x: Tensor) -> float | None:
  """Return the one number of a constant, None if there are several."""
  if x.value is None or not x.is_float or x.value.size == 0:
    return None
  first = x.value.flat[0]
  return float(first) if np.all(x.value == first) else None


def channels_first(x: Tensor) -> np.ndarray | None:
  """Return the indices that flatten the entries of an example as they lie.

  >>> channels_first(Tensor('', (None, 1, 2, 2), 'f4', (0, 3, 1, 2))).tolist()
  [0, 2, 1, 3]
  """
  sizes = [n or 0 for n in x.shape[1:]]
  places = np.arange(np.prod(sizes)).reshape(sizes)
  found = places.transpose([i - 1 for i in x.axes[1:]]).ravel()
  return None if np.array_equal(found, places.ravel()) else found
