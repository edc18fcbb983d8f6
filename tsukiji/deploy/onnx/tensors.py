"""Tensors of an ONNX graph: their shapes and the order of their numbers."""

from typing import Any, NamedTuple

import numpy as np

from tsukiji.deploy.onnx.builder import Graph
from tsukiji.models.spec import Shape


class Value(NamedTuple):
  """A tensor of the graph.

  Attributes:
    name: Its name.
    shape: Of one example, as the network has it: channels last.
    order: Which number of the network stands where along a flat axis, or None
      where they stand as they do there.
    divisor: What it is yet to be divided by, if anything.
    whole: Whether it is on a grid, right behind integers.
  """

  name: str
  shape: Shape
  order: np.ndarray | None = None
  divisor: float | None = None
  whole: bool = False


def divided(graph: Graph, x: Value) -> Value:
  """Return a tensor divided by what is left to divide by."""
  if x.divisor is None:
    return x
  name = graph.add('Div', x.name, graph.hold(x.divisor))
  return x._replace(name=name, divisor=None)


def in_order(graph: Graph, x: Value) -> Value:
  """Return a tensor as the network orders it."""
  if x.order is None:
    return x
  places = graph.hold(np.argsort(x.order), np.int64)
  return Value(graph.add('Gather', x.name, places, axis=1), x.shape)


def channels_first(shape: Shape) -> np.ndarray | None:
  """Return which number of a flat example stands where, channels first.

  >>> channels_first((1, 2, 2)).tolist()
  [0, 2, 1, 3]
  """
  if len(shape) != 3 or 1 in (shape[2], shape[0] * shape[1]):
    return None
  return np.arange(np.prod(shape)).reshape(shape).transpose(2, 0, 1).ravel()


def vector(graph: Graph, values: Any, x: Value) -> str:
  """Hold numbers a channel, or one for all, so that they broadcast."""
  found = np.asarray(values, np.float32)
  if found.size == 1:
    return graph.hold(found.reshape(()))
  if len(x.shape) == 3:
    return graph.hold(found.reshape(-1, 1, 1))
  return graph.hold(found if x.order is None else found[x.order])


def unsupported(name: str, got: str) -> ValueError:
  """Return the error of what ONNX cannot say."""
  return ValueError(
    f'onnx at {name}: expected a layer or a weight that ONNX can express, '
    f'got {got}. Run it with the engine jax.'
  )
