"""Weights of any layout as methods see them: outputs last, behind the input."""

from typing import Any

from compress.dataflow import Arranged
from tsukiji.deploy.onnx.fusing import is_dense
from tsukiji.graph.nodes import Graph, Node, pruned, reads

Weights = dict[str, Any]


def arranged(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
  """Return a network whose products take kernels as methods see them.

  Args:
    graph: The network.
    weights: Arrays and nodes, by path.

  Returns:
    The same network, and weights of which some are not `Arranged` any more.
  """
  nodes = [_behind(graph, weights, node) for node in graph.nodes]
  graph = pruned(graph._replace(nodes=tuple(nodes)))
  counts = reads(graph)
  counts.subtract(
    str(node.inputs[1]) for node in graph.nodes if _multiplies(node, weights)
  )
  inner = {
    path: x
    for path, x in weights.items()
    if isinstance(x, Arranged)
    and len(x.w.shape) == len(x.shape)
    and not counts[path]
  }
  nodes = [
    _seen(node, inner[str(node.inputs[1])].order)
    if _multiplies(node, inner)
    else node
    for node in graph.nodes
  ]
  found = {path: x.w for path, x in inner.items()}
  return graph._replace(nodes=tuple(nodes)), {**weights, **found}


def _behind(graph: Graph, weights: Weights, node: Node) -> Node:
  """Return a product of rows in place of the transpose of one of columns."""
  ref = node.inputs[0] if node.attrs.get('order') == (1, 0) else None
  made = graph.nodes[ref] if isinstance(ref, int) else node
  if made.op != 'dot' or not is_dense(made.attrs['dims']) or made is node:
    return node
  path, x = made.inputs
  weight = weights.get(path) if isinstance(path, str) else None
  if weight is None or len(weight.shape) != 2:
    return node
  (left, right), batch = made.attrs['dims']
  attrs = {**made.attrs, 'dims': ((right, left), batch)}
  return Node('dot', (x, path), attrs)


def _multiplies(node: Node, weights: Weights) -> bool:
  """Return whether a node is a product with a weight that is seen alike."""
  path = node.inputs[1] if node.op in ('conv', 'dot') else None
  if not isinstance(path, str) or path not in weights:
    return False
  matrix = len(weights[path].shape) == 2 and node.op == 'dot'
  return node.op == 'conv' or (matrix and is_dense(node.attrs['dims']))


def _seen(node: Node, order: tuple[int, ...]) -> Node:
  """Return a product with a weight whose axes are in an order."""
  if node.op == 'conv':
    lhs, rhs, out = node.attrs['dims']
    dims: Any = lhs, tuple(order.index(i) for i in rhs), out
  else:
    (left, (axis,)), batch = node.attrs['dims']
    dims = (left, (order.index(axis),)), batch
  return node._replace(attrs={**node.attrs, 'dims': dims})
