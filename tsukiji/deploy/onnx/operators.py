"""The layers of a `Spec` as ONNX operators, channels first."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from compress.quantize.integer_codes import Inputs
from tsukiji.deploy.onnx import quantized as grids
from tsukiji.deploy.onnx.activations import ACTS
from tsukiji.deploy.onnx.builder import Graph
from tsukiji.deploy.onnx.quantized import Served
from tsukiji.deploy.onnx.tensors import (
  Value,
  channels_first,
  divided,
  in_order,
  unsupported,
  vector,
)
from tsukiji.deploy.onnx.weighted_layers import grid_of, has_sums, product
from tsukiji.models import norm as norms
from tsukiji.models import spec as sp
from tsukiji.models.spec import Layer, Shape

Round: TypeAlias = Callable[[str], str]
_LAST = (0, 2, 3, 1)  # of axes with channels first, channels last


class Network(NamedTuple):
  """A network and the graph that it is written to.

  Attributes:
    graph: The graph.
    params: Arrays and frozen nodes.
    stats: Statistics of the remaining norms.
    shapes: Output shapes of the layers.
    served: The integer weights, by layer.
  """

  graph: Graph
  params: dict[str, Any]
  stats: dict[str, Any]
  shapes: Iterator[Shape]
  served: dict[str, Served]


def sequence(net: Network, layers: tuple[Layer, ...], x: Value) -> Value:
  """Append layers in order.

  The input of an integer kernel is rounded directly behind the layer before it,
  so that maxima and transposes in between are computed with integers.

  Args:
    net: The network.
    layers: The layers.
    x: Their input.

  Returns:
    Their output.

  Raises:
    ValueError: If a weight is not supported.
  """
  for layer, rounding in zip(layers, _roundings(net, layers), strict=True):
    if not _enters(net, layer):
      x = divided(net.graph, x)
    if rounding is not None:
      x = x._replace(name=rounding(x.name), is_integer=True)
    if isinstance(layer, sp.Branch):
      x = _branch(net, layer, x)
    name, order = _single(net, layer, x)
    x = Value(name, next(net.shapes), order, _divisor(layer))
  return divided(net.graph, x)


def _divisor(layer: Layer) -> float | None:
  """Return the divisor that the next layers apply for a layer, if any."""
  if isinstance(layer, sp.Standardise) and len({*layer.std}) == 1:
    return layer.std[0]
  return None


def _enters(net: Network, layer: Layer) -> bool:
  """Return whether a layer applies the divisor with its input grid."""
  if not has_sums(layer) or layer.name in net.served:
    return False
  grid = grid_of(layer.name, net.params[layer.name]['kernel'])
  return isinstance(grid, Inputs) and grid.bits <= grids.WIDEST


def _roundings(net: Network, layers: tuple[Layer, ...]) -> list[Round | None]:
  """Return the functions that round the input of each layer to integers.

  They apply directly behind integer layers, with which engines fuse them, or
  else directly before them.
  """
  ahead: list[Inputs | None] = []
  for layer in reversed(layers):
    last = ahead[-1] if ahead else None
    if has_sums(layer):
      served = net.served.get(layer.name)
      last = served and served.inputs
    ahead.append(last if _keeps(layer) or has_sums(layer) else None)
  found: list[Round | None] = []
  behind = False
  for layer, inputs in zip(layers, ahead[::-1], strict=True):
    if inputs is None or not (behind or has_sums(layer)):
      found.append(None)
    else:
      found.append(
        functools.partial(
          grids.coded, net.graph, inputs, behind=behind, last=has_sums(layer)
        )
      )
    if has_sums(layer):
      behind = layer.name in net.served
    elif not _keeps(layer) and layer != sp.Act(fn='relu'):
      behind = False
  return found


def _keeps(layer: Layer) -> bool:
  """Return whether a layer maps values on a grid to values on it."""
  maximum = isinstance(layer, sp.Pool) and layer.kind == 'max'
  return maximum or isinstance(layer, sp.Flatten | sp.Dropout)


def _single(
  net: Network, layer: Layer, x: Value
) -> tuple[str, np.ndarray | None]:
  """Append one layer; return the name of its output, and its order."""
  graph = net.graph
  match layer:
    case sp.Conv() | sp.Dense():
      own, served = net.params[layer.name], net.served.get(layer.name)
      return product(graph, layer, own, served, x), None
    case sp.Standardise():
      less = graph.add('Sub', x.name, vector(graph, layer.mean, x))
      if _divisor(layer) is not None:
        return less, x.order
      return graph.add('Div', less, vector(graph, layer.std, x)), x.order
    case sp.Norm():
      return _norm(net, layer, x), x.order
    case sp.Act():
      return ACTS[layer.fn](graph, x.name), x.order
    case sp.PReLU():
      return _prelu(net, layer, x), x.order
    case sp.Pool():
      op = 'MaxPool' if layer.kind == 'max' else 'AveragePool'
      sizes = {'kernel_shape': layer.window, 'strides': layer.strides}
      return graph.add(op, x.name, **sizes), None
    case sp.GlobalMean():
      return graph.add('Flatten', graph.add('GlobalAveragePool', x.name)), None
    case sp.Flatten() if len(x.shape) > 1 and x.is_integer:
      # If ONNX Runtime has channels last, this transpose moves nothing.
      last = graph.add('Transpose', x.name, perm=_LAST)
      return graph.add('Flatten', last), None
    case sp.Flatten() if len(x.shape) > 1:
      return graph.add('Flatten', x.name), channels_first(x.shape)
    case sp.Flatten() | sp.Dropout() | sp.Branch():
      return x.name, x.order
  raise unsupported(type(layer).__name__, type(layer).__name__)


def _branch(net: Network, layer: sp.Branch, x: Value) -> Value:
  """Append paths and their merge."""
  outs = [
    in_order(net.graph, sequence(net, path, x)).name for path in layer.paths
  ]
  if layer.merge == 'concat':
    return Value(net.graph.add('Concat', *outs, axis=1), x.shape)
  first, *others = outs
  for other in others:
    first = net.graph.add('Add', first, other)
  return Value(first, x.shape)


def _norm(net: Network, layer: sp.Norm, x: Value) -> str:
  graph = net.graph
  affine, stats = net.params[layer.name], net.stats[layer.name]
  gain = norms.gain(layer, affine['scale'], stats['var'])
  less = graph.add('Sub', x.name, vector(graph, stats['mean'], x))
  scaled = graph.add('Mul', less, vector(graph, gain, x))
  return graph.add('Add', scaled, vector(graph, affine['bias'], x))


def _prelu(net: Network, layer: sp.PReLU, x: Value) -> str:
  graph = net.graph
  own = {k: vector(graph, v, x) for k, v in net.params[layer.name].items()}
  if not layer.shifts:
    return graph.add('PRelu', x.name, own['slope'])
  less = graph.add('Sub', x.name, own['before'])
  bent = graph.add('PRelu', less, own['slope'])
  return graph.add('Add', bent, own['after'])
