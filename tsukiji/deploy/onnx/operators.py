"""Layers in ONNX: what a `Spec` says, channels first."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias, TypeGuard

import numpy as np

from compress import tree
from compress.binary.inputs import Signed
from compress.channels.sliced import Sliced
from compress.quantize.nodes import Inputs, Quantized
from compress.tree import Compressed
from tsukiji.deploy.onnx import quantized as grids
from tsukiji.deploy.onnx.activations import ACTS
from tsukiji.deploy.onnx.builder import Graph
from tsukiji.deploy.onnx.quantized import Served
from tsukiji.models import norm as norms
from tsukiji.models import spec as sp
from tsukiji.models.spec import Layer, Shape

Round: TypeAlias = Callable[[str], str]
_LAST = (0, 2, 3, 1)  # of axes with channels first, channels last


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


class Network(NamedTuple):
  """What is written, and where to.

  Attributes:
    graph: What is appended to.
    params: Arrays and frozen nodes.
    stats: Statistics of the norms that are left.
    shapes: What comes out of each layer.
    served: The weights that stay integers, by layer.
  """

  graph: Graph
  params: dict[str, Any]
  stats: dict[str, Any]
  shapes: Iterator[Shape]
  served: dict[str, Served]


def sequence(net: Network, layers: tuple[Layer, ...], x: Value) -> Value:
  """Append layers in order.

  The input of an integer kernel is rounded right behind the layer before it:
  maxima and moves do not mind, and are then computed with integers.

  Args:
    net: What is written.
    layers: The layers.
    x: Their input.

  Returns:
    Their output.

  Raises:
    ValueError: If a layer has a weight that ONNX has no words for.
  """
  for layer, rounding in zip(layers, _roundings(net, layers), strict=True):
    if not _enters(net, layer):
      x = _divided(net.graph, x)
    if rounding is not None:
      x = x._replace(name=rounding(x.name), whole=True)
    if isinstance(layer, sp.Branch):
      x = _branch(net, layer, x)
    name, order = _single(net, layer, x)
    x = Value(name, next(net.shapes), order, _divisor(layer))
  return _divided(net.graph, x)


def _divisor(layer: Layer) -> float | None:
  """Return what a layer leaves to others to divide by."""
  if isinstance(layer, sp.Standardise) and len({*layer.std}) == 1:
    return layer.std[0]
  return None


def _divided(graph: Graph, x: Value) -> Value:
  if x.divisor is None:
    return x
  name = graph.add('Div', x.name, graph.hold(x.divisor))
  return x._replace(name=name, divisor=None)


def _enters(net: Network, layer: Layer) -> bool:
  """Tell whether a layer divides its input itself, by a grid of few bits."""
  if not _sums(layer) or layer.name in net.served:
    return False
  met = _met(layer.name, net.params[layer.name]['kernel'])
  return isinstance(met, Inputs) and met.bits <= grids.WIDEST


def in_order(graph: Graph, x: Value) -> Value:
  """Return a tensor as the network orders it."""
  if x.order is None:
    return x
  places = graph.hold(np.argsort(x.order), np.int64)
  return Value(graph.add('Gather', x.name, places, axis=1), x.shape)


def _roundings(net: Network, layers: tuple[Layer, ...]) -> list[Round | None]:
  """Return what rounds the input of each layer to integers.

  That is right behind sums of integers, with which engines fuse it, elsewhere
  right before the next ones.
  """
  ahead: list[Inputs | None] = []
  for layer in reversed(layers):
    last = ahead[-1] if ahead else None
    if _sums(layer):
      served = net.served.get(layer.name)
      last = served and served.inputs
    ahead.append(last if _keeps(layer) or _sums(layer) else None)
  found: list[Round | None] = []
  behind = False
  for layer, inputs in zip(layers, ahead[::-1], strict=True):
    if inputs is None or not (behind or _sums(layer)):
      found.append(None)
    else:
      found.append(
        functools.partial(
          grids.coded, net.graph, inputs, behind=behind, last=_sums(layer)
        )
      )
    if _sums(layer):
      behind = layer.name in net.served
    elif not _keeps(layer) and layer != sp.Act(fn='relu'):
      behind = False
  return found


def _sums(layer: Layer) -> TypeGuard[sp.Conv | sp.Dense]:
  return isinstance(layer, sp.Conv | sp.Dense)


def _keeps(layer: Layer) -> bool:
  """Tell whether what comes out of a layer on a grid is on it again."""
  maximum = isinstance(layer, sp.Pool) and layer.kind == 'max'
  return maximum or isinstance(layer, sp.Flatten | sp.Dropout)


def _met(name: str, kernel: Any) -> Inputs | Signed | None:
  """Return what the input of a layer meets: a grid, signs or nothing."""
  node = kernel
  while tree.is_node(node):
    if isinstance(node, Quantized):
      return node.inputs
    if isinstance(node, Signed) and not (node.sized and node is not kernel):
      return node
    kind = type(node)
    known = (
      kind.transform_input is Compressed.transform_input
      and kind.scale_output is Compressed.scale_output
    )
    if not known and not isinstance(node, Sliced):
      raise _unfit(name, kind.__name__)
    node = getattr(node, node.inner[0]) if node.inner else None
  return None


def _single(
  net: Network, layer: Layer, x: Value
) -> tuple[str, np.ndarray | None]:
  """Append one layer; return the name of its output, and its order."""
  graph = net.graph
  match layer:
    case sp.Conv() | sp.Dense():
      return _weighted(net, layer, x), None
    case sp.Standardise():
      less = graph.add('Sub', x.name, _vector(graph, layer.mean, x))
      if _divisor(layer) is not None:
        return less, x.order
      return graph.add('Div', less, _vector(graph, layer.std, x)), x.order
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
    case sp.Flatten() if len(x.shape) > 1 and x.whole:
      # Where ONNX Runtime has channels last, this move moves nothing.
      last = graph.add('Transpose', x.name, perm=_LAST)
      return graph.add('Flatten', last), None
    case sp.Flatten() if len(x.shape) > 1:
      return graph.add('Flatten', x.name), channels_first(x.shape)
    case sp.Flatten() | sp.Dropout() | sp.Branch():
      return x.name, x.order
  raise _unfit(type(layer).__name__, type(layer).__name__)


def channels_first(shape: Shape) -> np.ndarray | None:
  """Return which number of a flat example stands where, channels first.

  >>> channels_first((1, 2, 2)).tolist()
  [0, 2, 1, 3]
  """
  if len(shape) != 3 or 1 in (shape[2], shape[0] * shape[1]):
    return None
  return np.arange(np.prod(shape)).reshape(shape).transpose(2, 0, 1).ravel()


def _branch(net: Network, layer: sp.Branch, x: Value) -> Value:
  """Append paths and what merges them."""
  outs = [
    in_order(net.graph, sequence(net, path, x)).name for path in layer.paths
  ]
  if layer.merge == 'concat':
    return Value(net.graph.add('Concat', *outs, axis=1), x.shape)
  first, *others = outs
  for other in others:
    first = net.graph.add('Add', first, other)
  return Value(first, x.shape)


def _vector(graph: Graph, values: Any, x: Value) -> str:
  """Hold numbers a channel, or one for all, so that they broadcast."""
  found = np.asarray(values, np.float32)
  if found.size == 1:
    return graph.hold(found.reshape(()))
  if len(x.shape) == 3:
    return graph.hold(found.reshape(-1, 1, 1))
  return graph.hold(found if x.order is None else found[x.order])


def _norm(net: Network, layer: sp.Norm, x: Value) -> str:
  graph = net.graph
  affine, seen = net.params[layer.name], net.stats[layer.name]
  gain = norms.gain(layer, affine['scale'], seen['var'])
  less = graph.add('Sub', x.name, _vector(graph, seen['mean'], x))
  scaled = graph.add('Mul', less, _vector(graph, gain, x))
  return graph.add('Add', scaled, _vector(graph, affine['bias'], x))


def _prelu(net: Network, layer: sp.PReLU, x: Value) -> str:
  graph = net.graph
  held = {k: _vector(graph, v, x) for k, v in net.params[layer.name].items()}
  if not layer.shifts:
    return graph.add('PRelu', x.name, held['slope'])
  less = graph.add('Sub', x.name, held['before'])
  bent = graph.add('PRelu', less, held['slope'])
  return graph.add('Add', bent, held['after'])


def _weighted(net: Network, layer: sp.Conv | sp.Dense, x: Value) -> str:
  """Append a layer with weights."""
  graph, held = net.graph, net.params[layer.name]
  if layer.name in net.served:
    return _served(graph, layer, net.served[layer.name], x)
  kernel, bias = held['kernel'], held.get('bias')
  met = _met(layer.name, kernel)
  dense = np.asarray(tree.decode(kernel))
  weights = [graph.hold(_turned(layer, dense, x))]
  if isinstance(met, Signed):
    return _signed(graph, layer, met, weights, bias, x)
  if met is not None and x.divisor is not None:
    x = x._replace(name=grids.entered(graph, met, x.name, x.divisor))
  elif met is not None:
    x = x._replace(name=grids.rounded(graph, met, x.name))
  weights += [] if bias is None else [graph.hold(bias)]
  return _applied(graph, layer, x, weights)


def _served(
  graph: Graph, layer: sp.Conv | sp.Dense, served: Served, x: Value
) -> str:
  """Append a layer of integers; its input is on its grid already."""
  axis = 0 if isinstance(layer, sp.Conv) else 1
  codes = _turned(layer, served.codes, x)
  weights = [grids.dequantized(graph, codes, served.scale, axis)]
  if served.bias is not None:
    weights += [grids.dequantized(graph, served.bias, served.unit, 0)]
  return _applied(graph, layer, x, weights)


def _turned(
  layer: sp.Conv | sp.Dense, kernel: np.ndarray, x: Value
) -> np.ndarray:
  """Return a kernel as ONNX lays it out, for an input as it lies."""
  if isinstance(layer, sp.Conv):
    return kernel.transpose(3, 2, 0, 1)
  return kernel if x.order is None else kernel[x.order]


def _applied(
  graph: Graph, layer: sp.Conv | sp.Dense, x: Value, weights: list[str]
) -> str:
  if isinstance(layer, sp.Dense):
    return graph.add('Gemm', x.name, *weights)
  return graph.add(
    'Conv', x.name, *weights, group=layer.groups, **_window(layer, x.shape)
  )


def _window(layer: sp.Conv, shape: Shape) -> dict[str, Any]:
  """Return where a convolution looks."""
  before, after = [0, 0], [0, 0]
  if layer.padding == 'SAME':
    for i, (n, k, s) in enumerate(
      zip(shape[:2], layer.kernel, layer.strides, strict=True)
    ):
      padded = max((-(-n // s) - 1) * s + k - n, 0)
      before[i], after[i] = padded // 2, padded - padded // 2
  return {
    'kernel_shape': layer.kernel,
    'strides': layer.strides,
    'pads': before + after,
  }


def _signed(
  graph: Graph,
  layer: sp.Conv | sp.Dense,
  met: Signed,
  weights: list[str],
  bias: Any,
  x: Value,
) -> str:
  """Append a layer that sees signs, and whose sums may be scaled by sizes."""
  turned = x.name
  if met.threshold is not None:
    threshold = np.asarray(met.threshold)
    tiled = np.tile(threshold, x.shape[-1] // threshold.size)
    turned = graph.add('Sub', turned, _vector(graph, tiled, x))
  up = graph.add('GreaterOrEqual', turned, graph.hold(0.0))
  signs = graph.add('Where', up, graph.hold(1.0), graph.hold(-1.0))
  seen = x._replace(name=signs)
  if not met.sized:
    weights = [*weights, *([] if bias is None else [graph.hold(bias)])]
    return _applied(graph, layer, seen, weights)
  sums = _applied(graph, layer, seen, weights)
  sums = graph.add('Mul', sums, _sizes(graph, layer, x))
  if bias is None:
    return sums
  return graph.add('Add', sums, _vector(graph, bias, Value('', x.shape)))


def _sizes(graph: Graph, layer: sp.Conv | sp.Dense, x: Value) -> str:
  """Append the mean size of the inputs that each output is made of."""
  size = graph.add('Abs', x.name)
  mean = graph.add('ReduceMean', size, axes=[1], keepdims=1)
  if isinstance(layer, sp.Dense):
    return mean
  box = np.full((1, 1, *layer.kernel), 1 / np.prod(layer.kernel))
  window = _window(layer, x.shape)
  return graph.add('Conv', mean, graph.hold(box), **window)


def _unfit(name: str, got: str) -> ValueError:
  return ValueError(
    f'onnx at {name}: expected a layer or a weight that ONNX has words for, '
    f'got {got}. Run it with the engine jax.'
  )
