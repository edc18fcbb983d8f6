"""Files of weights alone: the graph returns them as they are."""

from typing import Any

from compress import tree
from tsukiji.deploy.tsk import pack
from tsukiji.graph.nodes import Graph, Input


def pack_weights(params: Any, meta: dict[str, Any] | None = None) -> bytes:
  """Return a file of a tree of arrays and nodes, by path."""
  weights = tree.paths(tree.freeze(params))
  graph = Graph((), tuple(weights), (Input((1,)),))
  return pack.pack(graph, {'params': weights}, meta)
