"""Files of weights alone: the graph returns them as they are.

Those that round their inputs are multiplied by some.
"""

from typing import Any

from compress import tree
from tsukiji.deploy.tsk import pack
from tsukiji.graph.nodes import Graph, Input, Node


def pack_weights(params: Any, meta: dict[str, Any] | None = None) -> bytes:
  """Return a file of a tree of arrays and nodes, by path."""
  weights = tree.paths(tree.freeze(params))
  shapes = tree.decode(weights)
  rounding = [
    path for path, w in weights.items() if getattr(w, 'transforms_input', False)
  ]
  nodes = []
  for i, path in enumerate(rounding):
    summed = tuple(range(shapes[path].ndim - 1))
    both = tuple(n + 1 for n in summed), summed
    nodes.append(Node('dot', (f'@{i}', path), {'dims': (both, ((), ()))}))
  inputs = [Input(shapes[path].shape[:-1]) for path in rounding]
  ends = (*weights, *range(len(nodes)))
  graph = Graph(tuple(nodes), ends, tuple(inputs) or (Input((1,)),))
  return pack.pack(graph, {'params': weights}, meta)
