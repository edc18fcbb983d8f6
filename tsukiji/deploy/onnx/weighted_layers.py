"""Convolutions and dense layers in ONNX: float, integer and binary."""

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
  """Return whether a layer multiplies by weights."""
  return isinstance(layer, sp.Conv | sp.Dense)


def grid_of(name: str, kernel: Any) -> Inputs | Signed | None:
  """Return the grid or the signs to which a layer rounds its input, if any.

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
  own: dict[str, Any],
  served: Served | None,
  x: Value,
) -> str:
  """Append a layer with weights and return the name of its output.

  Args:
    graph: The graph.
    layer: The layer.
    own: Its kernel and bias, arrays and frozen nodes.
    served: Its weights as integers; None for a float layer.
    x: Its input; for an integer layer, already rounded to the grid.

  Returns:
    The name.

  Raises:
    ValueError: If the rounding of the input is not supported.
  """
  if served is not None:
    return _served(graph, layer, served, x)
  kernel, bias = own['kernel'], own.get('bias')
  grid = grid_of(layer.name, kernel)
  dense = np.asarray(decoded(kernel))
  weights = [graph.constant(_turned(layer, dense, x))]
  if isinstance(grid, Signed):
    return _signed(graph, layer, grid, weights, bias, x)
  if grid is not None and x.divisor is not None:
    x = x._replace(name=grids.entered(graph, grid, x.name, x.divisor))
  elif grid is not None:
    x = x._replace(name=grids.rounded(graph, grid, x.name))
  weights += [] if bias is None else [graph.constant(bias)]
  return _applied(graph, layer, x, weights)


def _served(
  graph: Graph, layer: sp.Conv | sp.Dense, served: Served, x: Value
) -> str:
  """Append an integer layer; its input is already rounded to its grid."""
  axis = 0 if isinstance(layer, sp.Conv) else 1
  codes = _turned(layer, served.codes, x)
  weights = [grids.dequantized(graph, codes, served.scale, axis)]
  if served.bias is not None:
    weights += [grids.dequantized(graph, served.bias, served.unit, 0)]
  return _applied(graph, layer, x, weights)


def _turned(
  layer: sp.Conv | sp.Dense, kernel: np.ndarray, x: Value
) -> np.ndarray:
  """Return a kernel in the layout of ONNX, for the order of the input."""
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
  """Return the window attributes of a convolution."""
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
  """Append a layer with binary inputs, perhaps scaled by their magnitudes."""
  turned = x.name
  if grid.threshold is not None:
    threshold = np.asarray(grid.threshold)
    tiled = np.tile(threshold, x.shape[-1] // threshold.size)
    turned = graph.add('Sub', turned, vector(graph, tiled, x))
  up = graph.add('GreaterOrEqual', turned, graph.constant(0.0))
  signs = graph.add('Where', up, graph.constant(1.0), graph.constant(-1.0))
  binarized = x._replace(name=signs)
  if not grid.sized:
    weights = [*weights, *([] if bias is None else [graph.constant(bias)])]
    return _applied(graph, layer, binarized, weights)
  sums = _applied(graph, layer, binarized, weights)
  sums = graph.add('Mul', sums, _sizes(graph, layer, x))
  if bias is None:
    return sums
  return graph.add('Add', sums, vector(graph, bias, Value('', x.shape)))


def _sizes(graph: Graph, layer: sp.Conv | sp.Dense, x: Value) -> str:
  """Append the mean magnitude of the inputs of each output."""
  size = graph.add('Abs', x.name)
  mean = graph.add('ReduceMean', size, axes=[1], keepdims=1)
  if isinstance(layer, sp.Dense):
    return mean
  box = np.full((1, 1, *layer.kernel), 1 / np.prod(layer.kernel))
  window = _window(layer, x.shape)
  return graph.add('Conv', mean, graph.constant(box), **window)
