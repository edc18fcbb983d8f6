"""Tensors of an ONNX graph: shapes, and the order of entries."""

from typing import Any, NamedTuple

import numpy as np

from tsukiji.deploy.onnx.builder import Graph
from tsukiji.models.spec import Shape


class Value(NamedTuple):
  """A tensor of the graph.

  Attributes:
    name: Its name.
    shape: Shape of one example in the network, channels last.
    order: The index in the network of each entry of a flat axis, or None for
      the same order.
    divisor: Divisor that is not applied yet, or None.
    is_integer: Whether it is a dequantized tensor of codes.
  """

  name: str
  shape: Shape
  order: np.ndarray | None = None
  divisor: float | None = None
  is_integer: bool = False


def divided(graph: Graph, x: Value) -> Value:
  """Return a tensor with its divisor applied."""
  if x.divisor is None:
    return x
  name = graph.add('Div', x.name, graph.constant(x.divisor))
  return x._replace(name=name, divisor=None)


def in_order(graph: Graph, x: Value) -> Value:
  """Return a tensor in the order of the network."""
  if x.order is None:
    return x
  places = graph.constant(np.argsort(x.order), np.int64)
  return Value(graph.add('Gather', x.name, places, axis=1), x.shape)


def channels_first(shape: Shape) -> np.ndarray | None:
  """Return the indices that flatten an example with channels first.

  >>> channels_first((1, 2, 2)).tolist()
  [0, 2, 1, 3]
  """
  if len(shape) != 3 or 1 in (shape[2], shape[0] * shape[1]):
    return None
  return np.arange(np.prod(shape)).reshape(shape).transpose(2, 0, 1).ravel()


def vector(graph: Graph, values: Any, x: Value) -> str:
  """Append constants per channel, or one for all, so that they broadcast."""
  found = np.asarray(values, np.float32)
  if found.size == 1:
    return graph.constant(found.reshape(()))
  if len(x.shape) == 3:
    return graph.constant(found.reshape(-1, 1, 1))
  return graph.constant(found if x.order is None else found[x.order])


def unsupported(name: str, got: str) -> ValueError:
  """Return the error of a layer or weight that is not supported."""
  return ValueError(
    f'onnx at {name}: expected a layer or a weight that ONNX can express, '
    f'got {got}. Run it with the engine jax.'
  )
