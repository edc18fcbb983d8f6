"""What ONNX has in one node: biases, means, integer kernels."""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compress.binary.inputs import Signed
from compress.tree import Compressed
from tsukiji.deploy.onnx.activations import activated
from tsukiji.deploy.onnx.axes import Order, held, number
from tsukiji.deploy.onnx.norms import normalized
from tsukiji.deploy.onnx.quantized import CODING, Coding, Served, served
from tsukiji.graph.nodes import Graph, Node, Ref, input_name
from tsukiji.graph.operators import BINARY, UNARY

Nodes = list[Node]
Readers = dict[Ref, list[int]]  # the nodes that read it, len(nodes) the end
KEEPS = ('reduce_window_max', 'reshape', 'transpose')  # grids stay grids
SUMS = ('reduce_sum', 'reduce_window_sum')
ALIKE = (*UNARY, *BINARY, 'cast', 'ipow', 'round', 'select')


def fused(
  graph: Graph,
  results: Sequence[Any],
  grids: Mapping[str, Any] | None = None,
  least: float = math.inf,
) -> tuple[list[Node | None], dict[str, Order]]:
  """Return the nodes to write, and the orders of axes in which inputs enter.

  Args:
    graph: The network, or the body of a loop.
    results: Tensors of its nodes.
    grids: Kernels whose inputs are rounded here, by path: frozen nodes.
    least: Minimum length of a dot product for an integer kernel.

  Returns:
    The nodes, None for those that nothing reads, and orders by the names of
    inputs.
  """
  nodes = _with_biases(graph, results, grids or {})
  nodes = normalized(activated(nodes), results)
  nodes = _with_means(nodes, graph, results)
  nodes = _with_kernels(nodes, grids or {}, least)
  nodes = _with_codes(nodes, graph, results)
  readers = _readers(nodes, graph)
  needed = _needed(nodes, graph)
  orders = {}
  for i, x in enumerate(graph.inputs):
    order = _entrance(nodes, readers, input_name(i))
    if order and len(order) == 1 + len(x.shape):
      orders[input_name(i)] = order
  left = [node if i in needed else None for i, node in enumerate(nodes)]
  return left, orders


def _readers(nodes: Sequence[Node], graph: Graph) -> Readers:
  found: Readers = collections.defaultdict(list)
  needed = _needed(nodes, graph)
  for i, node in enumerate(nodes):
    for ref in node.inputs if i in needed else ():
      if isinstance(ref, int | str):
        found[ref].append(i)
  for ref in graph.outputs:
    if isinstance(ref, int | str):
      found[ref].append(len(nodes))
  return found


def _needed(nodes: Sequence[Node], graph: Graph) -> set[int]:
  """Return the nodes on which the outputs depend."""
  found: set[int] = set()
  todo: list[Ref] = [*graph.outputs]
  while todo:
    ref = todo.pop()
    if isinstance(ref, int) and ref not in found:
      found.add(ref)
      todo += nodes[ref].inputs
  return found


def _with_biases(
  graph: Graph, results: Sequence[Any], grids: Mapping[str, Any]
) -> Nodes:
  """Give products the constants that are added behind them, one a channel."""
  readers = _readers(graph.nodes, graph)

  def joined(node: Node) -> Node:
    for ref, other in (node.inputs, node.inputs[::-1]):
      if not isinstance(ref, int) or len(readers[ref]) > 1:
        continue
      made = graph.nodes[ref]
      axis = _channels(made, results[ref], grids)
      if axis is not None and isinstance(other, np.ndarray):
        rank = len(results[ref].shape)
        shape = (1,) * (rank - other.ndim) + other.shape
        if shape[axis] == results[ref].shape[axis] == math.prod(shape):
          attrs = {**made.attrs, 'bias': other.reshape(-1)}
          return made._replace(attrs=attrs)
    return node

  return [joined(node) if node.op == 'add' else node for node in graph.nodes]


def _channels(node: Node, result: Any, grids: Mapping[str, Any]) -> int | None:
  """Return the axis of the outputs of a product that takes a bias."""
  if node.op not in ('conv', 'dot'):
    return None
  dims, kernel = node.attrs['dims'], node.inputs[1]
  kernel = grids.get(kernel, kernel) if isinstance(kernel, str) else kernel
  if isinstance(kernel, Signed) and kernel.sized:
    return None
  if node.op == 'conv':
    return int(dims[2][1])
  matrix = isinstance(kernel, np.ndarray | Compressed) and kernel.ndim == 2
  rows = dims[0][0] == (1,) and is_dense(dims) and len(result.shape) == 2
  return 1 if matrix and rows else None


def is_dense(dims: Any) -> bool:
  """Return whether a product of a matrix sums over one axis."""
  (left, right), batch = dims
  return len(left) == len(right) == 1 and not any(batch)


def _with_means(nodes: Nodes, graph: Graph, results: Sequence[Any]) -> Nodes:
  """Mark sums that are only divided, or multiplied, by a number."""
  readers = _readers(nodes, graph)

  def divides(i: int, ref: int) -> bool:
    if i == len(nodes) or nodes[i].op not in ('div', 'mul'):
      return False
    first, second = nodes[i].inputs
    if nodes[i].op == 'mul' and isinstance(first, np.ndarray):
      first, second = second, first
    other = isinstance(second, np.ndarray) and number(held(second))
    return type(first) is int and first == ref and bool(other)

  def marked(i: int, node: Node) -> Node:
    is_sum = node.op in SUMS and results[i].is_float
    if is_sum and all(divides(j, i) for j in readers[i]):
      return node._replace(attrs={**node.attrs, 'mean': True})
    return node

  return [marked(i, node) for i, node in enumerate(nodes)]


def _with_kernels(
  nodes: Nodes, grids: Mapping[str, Any], least: float
) -> Nodes:
  """Give products their integer kernels, or the grids of their inputs."""

  def given(node: Node) -> Node:
    path = node.inputs[1] if node.op in ('conv', 'dot') else None
    if not isinstance(path, str) or path not in grids:
      return node
    kernel = grids[path]
    found = None
    if math.prod(kernel.shape[:-1]) >= least:
      found = served(kernel, node.attrs.get('bias'))
    return node._replace(attrs={**node.attrs, 'kernel': found or kernel})

  return [given(node) for node in nodes]


def _with_codes(nodes: Nodes, graph: Graph, results: Sequence[Any]) -> Nodes:
  """Round the inputs of integer kernels directly behind the one before them.

  So maxima and transposes in between are computed with integers.
  """
  readers, needed = _readers(nodes, graph), _needed(nodes, graph)
  found = [*nodes]

  def code(i: int, inputs: Any, behind: bool, last: bool) -> None:
    coding = Coding(inputs, behind=behind, last=last)
    found[i] = nodes[i]._replace(attrs={**nodes[i].attrs, CODING: coding})

  for i, node in enumerate(nodes):
    kernel = node.attrs.get('kernel')
    if not isinstance(kernel, Served) or i not in needed:
      continue
    kept: list[int] = []
    at: Any = node.inputs[0]
    while _once(at, readers) and nodes[at].op in KEEPS:
      kept.append(at)
      at = nodes[at].inputs[0]
    behind = _is_behind(at, nodes, readers, results)
    code(i, kernel.inputs, behind, last=True)
    for j in kept if behind else ():
      code(j, kernel.inputs, behind, last=False)
  return found


def _once(ref: Ref, readers: Readers) -> bool:
  return isinstance(ref, int) and len(readers[ref]) == 1


def _is_behind(
  at: Any, nodes: Nodes, readers: Readers, results: Sequence[Any]
) -> bool:
  """Return whether a tensor is the output of an integer kernel."""
  while _once(at, readers):
    node = nodes[at]
    if isinstance(node.attrs.get('kernel'), Served):
      return node.op == 'conv' or len(results[at].shape) == 2
    if node.op not in KEEPS and not is_relu(node):
      return False
    at = next(x for x in node.inputs if not isinstance(x, np.ndarray))
  return False


def is_relu(node: Node) -> bool:
  """Return whether a node is the maximum of 0 and a tensor."""
  zeros = [isinstance(x, np.ndarray) and not np.any(x) for x in node.inputs]
  return node.op == 'max' and sum(zeros) == 1


def _entrance(nodes: Nodes, readers: Readers, name: Ref) -> Order | None:
  """Return the order in which an input meets its first convolution."""
  while len(readers[name]) == 1 and readers[name][0] < len(nodes):
    (i,) = readers[name]
    node = nodes[i]
    if node.op == 'conv' and node.inputs[0] == name:
      return tuple(node.attrs['dims'][0])
    if node.op not in ALIKE:
      return None
    name = i
  return None
