"""Weights of 16 bits that a network computes with in float32."""

from typing import Any

from compress import tree
from compress.quantize.half import stored
from tsukiji.graph.nodes import Graph, Ref, pruned, reads, replaced

WIDE = {'dtype': 'float32'}


def halved(
  graph: Graph, weights: dict[str, Any]
) -> tuple[Graph, dict[str, Any]]:
  """Return a network whose 16-bit weights are nodes that decode to float32.

  Args:
    graph: The network.
    weights: Arrays and nodes, by path.

  Returns:
    The network without the casts of these weights, and all weights.
  """
  found = dict(weights)
  casts: dict[int, str] = {}
  counts = reads(graph)
  for i, node in enumerate(graph.nodes):
    path = node.inputs[0] if node.op == 'cast' else None
    wide = node.attrs == WIDE and isinstance(path, str) and counts[path] == 1
    if wide and _is_half(weights.get(str(path))):
      found[str(path)] = stored(weights[str(path)])
      casts[i] = str(path)

  def read(ref: Ref) -> Ref:
    return casts.get(ref, ref) if type(ref) is int else ref

  return pruned(replaced(graph, read)), found


def _is_half(x: Any) -> bool:
  return x is not None and not tree.is_node(x) and x.dtype.itemsize == 2
