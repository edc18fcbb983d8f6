"""Graphs as they are written: parameters are constants, grids are operators.

Kernels on grids with grids or signs of their inputs are written as such. What
changes inputs or outputs in another way is captured as operators.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from compress import dataflow, tree
from tsukiji.deploy.onnx.arranging import arranged
from tsukiji.deploy.onnx.fusing import is_dense
from tsukiji.deploy.onnx.rounding import grid_of
from tsukiji.deploy.passes.simplify import simplified
from tsukiji.graph import evaluate
from tsukiji.graph.capture import capture
from tsukiji.graph.folding import folded
from tsukiji.graph.nodes import (
  Graph,
  Node,
  bound,
  pruned,
  reads,
)


class Prepared(NamedTuple):
  """A graph whose parameters are constants, but for some kernels.

  Attributes:
    graph: The graph.
    kernels: Frozen nodes by path, with grids or signs of their inputs.
    weights: What they decode to.
  """

  graph: Graph
  kernels: dict[str, Any]
  weights: dict[str, np.ndarray]


def prepared(graph: Graph, params: Mapping[str, Any]) -> Prepared:
  """Return a graph as it is written.

  Args:
    graph: The network.
    params: Arrays and nodes by path.
  """
  frozen = tree.freeze({path: params[path] for path in graph.parameters})
  graph, nodes = arranged(*simplified(graph, frozen))
  weights = tree.decode(nodes)
  changing = dataflow.transforming(nodes)
  found = _kernels(graph, weights)
  kernels = {
    path: node
    for path, node in changing.items()
    if grid_of(node) is not None and path in found
  }
  others = {path: x for path, x in changing.items() if path not in kernels}
  arrays = {path: np.asarray(x) for path, x in weights.items()}
  plain = explicit(graph, weights, others)
  fixed = {path: x for path, x in arrays.items() if path not in kernels}
  return Prepared(
    pruned(folded(bound(plain, fixed))),
    kernels,
    {path: arrays[path] for path in kernels},
  )


def _kernels(graph: Graph, weights: Mapping[str, Any]) -> set[str]:
  """Return the parameters that only multiply, outputs last."""
  shape = evaluate.shapes_of(graph, weights)

  def is_kernel(node: Node) -> bool:
    path = node.inputs[1] if node.op in ('conv', 'dot') else None
    if not isinstance(path, str) or path not in weights:
      return False
    dims, last = node.attrs['dims'], len(weights[path].shape) - 1
    if node.op == 'conv':
      return {*node.attrs['dilation'][0]} == {1} and dims[1][0] == last
    rows = len(shape(node.inputs[0]).shape) - 1
    return dims[0] == ((rows,), (0,)) and last == 1 and is_dense(dims)

  counts = reads(graph)
  counts.subtract(
    str(node.inputs[1]) for node in graph.nodes if is_kernel(node)
  )
  return {path for path in weights if not counts[path]}


def explicit(
  graph: Graph, weights: Mapping[str, Any], nodes: Mapping[str, Any]
) -> Graph:
  """Return a graph in which what nodes do to inputs is operators.

  Args:
    graph: The network.
    weights: Decoded arrays by path.
    nodes: Nodes that transform inputs, by path.

  Returns:
    A graph of decoded arrays.
  """
  if not nodes:
    return graph

  def run(dense: Any, *xs: Any) -> Any:
    return evaluate.run(graph, dense, *xs)

  def apply(dense: Any, *xs: Any) -> Any:
    return dataflow.transformed(run, dense, xs, nodes)

  shapes = evaluate.abstract(weights)
  return capture(apply, shapes, *evaluate.inputs_of(graph))
