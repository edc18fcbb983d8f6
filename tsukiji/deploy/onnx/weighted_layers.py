"""Convolutions and dense layers in ONNX: of floats, of integers, of signs."""

from typing import Any, TypeGuard

import numpy as np

from compress import tree
from compress.binary.inputs import Signed
from compress.channels.sliced import Sliced
from compress.quantize.integer_codes import Inputs, Quantized
from compress.tree import Compressed
from tsukiji.deploy.decoding import decoded
from tsukiji.deploy.onnx import quantized as grids
from tsukiji.deploy.onnx.builder import Graph
from tsukiji.deploy.onnx.quantized import Served
from tsukiji.deploy.onnx.tensors import Value, unsupported, vector
from tsukiji.models import spec as sp
from tsukiji.models.spec import Layer, Shape


def has_sums(layer: Layer) -> TypeGuard[sp.Conv | sp.Dense]:
  """Tell whether a layer multiplies by weights."""
  return isinstance(layer, sp.Conv | sp.Dense)


def grid_of(name: str, kernel: Any) -> Inputs | Signed | None:
  """Return the grid or the signs that a layer rounds its input to, if any.

  Raises:
    ValueError: If a node changes inputs or outputs in another way.
  """
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
      raise unsupported(name, kind.__name__)
    node = getattr(node, node.inner[0]) if node.inner else None
  return None


def product(
  graph: Graph,
  layer: sp.Conv | sp.Dense,
  held: dict[str, Any],
  served: Served | None,
  x: Value,
) -> str:
  """Append a layer with weights and return the name of its output.

  Args:
    graph: What is appended to.
    layer: The layer.
    held: Its kernel and bias, arrays and frozen nodes.
    served: Its weights as integers; None for a layer of floats.
    x: Its input; of an integer layer, on its grid already.

  Returns:
    The name.

  Raises:
    ValueError: If ONNX cannot express how the input is rounded.
  """
  if served is not None:
    return _served(graph, layer, served, x)
  kernel, bias = held['kernel'], held.get('bias')
  grid = grid_of(layer.name, kernel)
  dense = np.asarray(decoded(kernel))
  weights = [graph.hold(_turned(layer, dense, x))]
  if isinstance(grid, Signed):
    return _signed(graph, layer, grid, weights, bias, x)
  if grid is not None and x.divisor is not None:
    x = x._replace(name=grids.entered(graph, grid, x.name, x.divisor))
  elif grid is not None:
    x = x._replace(name=grids.rounded(graph, grid, x.name))
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
  grid: Signed,
  weights: list[str],
  bias: Any,
  x: Value,
) -> str:
  """Append a layer that sees signs, and whose sums may be scaled by sizes."""
  turned = x.name
  if grid.threshold is not None:
    threshold = np.asarray(grid.threshold)
    tiled = np.tile(threshold, x.shape[-1] // threshold.size)
    turned = graph.add('Sub', turned, vector(graph, tiled, x))
  up = graph.add('GreaterOrEqual', turned, graph.hold(0.0))
  signs = graph.add('Where', up, graph.hold(1.0), graph.hold(-1.0))
  seen = x._replace(name=signs)
  if not grid.sized:
    weights = [*weights, *([] if bias is None else [graph.hold(bias)])]
    return _applied(graph, layer, seen, weights)
  sums = _applied(graph, layer, seen, weights)
  sums = graph.add('Mul', sums, _sizes(graph, layer, x))
  if bias is None:
    return sums
  return graph.add('Add', sums, vector(graph, bias, Value('', x.shape)))


def _sizes(graph: Graph, layer: sp.Conv | sp.Dense, x: Value) -> str:
  """Append the mean size of the inputs that each output is made of."""
  size = graph.add('Abs', x.name)
  mean = graph.add('ReduceMean', size, axes=[1], keepdims=1)
  if isinstance(layer, sp.Dense):
    return mean
  box = np.full((1, 1, *layer.kernel), 1 / np.prod(layer.kernel))
  window = _window(layer, x.shape)
  return graph.add('Conv', mean, graph.hold(box), **window)
