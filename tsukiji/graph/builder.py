"""Nodes of a graph as they are found."""

from typing import Any, NamedTuple

import numpy as np

from tsukiji.graph.nodes import Node, Ref

Shape = tuple[int, ...]


class Value(NamedTuple):
  """A value of the function that is traced.

  Attributes:
    ref: What gives it.
    shape: Its shape there: 1 where the function broadcasts it.
  """

  ref: Ref
  shape: Shape


class Builder:
  """Nodes of a graph as they are found.

  Attributes:
    nodes: The nodes so far.
    where: Line of the source that gives the next ones, for errors.
    origins: What was reshaped first, by the index of a reshape of it.
  """

  def __init__(self) -> None:
    """Begin without nodes."""
    self.nodes: list[Node] = []
    self.where = ''
    self.origins: dict[Ref, Value] = {}

  def add(self, op: str, *inputs: Ref, **attrs: Any) -> int:
    """Append a node and return its index."""
    self.nodes.append(Node(op, inputs, {**attrs, 'where': self.where}))
    return len(self.nodes) - 1

  def origin(self, x: Value) -> Value:
    """Return what a value is a reshape of, through all reshapes."""
    return self.origins.get(x.ref, x) if type(x.ref) is int else x

  def whole(self, x: Value, aval: Any) -> Ref:
    """Return a value in the shape that the function gives it."""
    if x.shape == tuple(aval.shape):
      return x.ref
    return self.add('broadcast', x.ref, shape=tuple(aval.shape))


def constant(x: Any) -> Value:
  """Return a constant."""
  array = np.asarray(x)
  return Value(array, array.shape)
