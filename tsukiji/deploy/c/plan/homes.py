"""Which nodes of a graph are computed inside the loops of others."""

from collections.abc import Collection

from tsukiji.graph.nodes import Graph, users

VIEWS = {'broadcast', 'expand', 'reshape', 'rev', 'slice', 'transpose'}


def homes(graph: Graph, alone: Collection[str]) -> list[int]:
  """Return, for each node, the last one that its numbers are computed with.

  A node whose readers all end up in one node is a part of it; the others are
  stored, and are their own homes.

  Args:
    graph: The network.
    alone: Operators that a loop over single numbers computes.

  >>> from tsukiji.graph.nodes import Node
  >>> net = Graph((Node('exp', ('@0',)), Node('tanh', (0,)),
  ...   Node('add', (0, 1)), Node('dot', (2, 'w'))), (3,))
  >>> homes(net, {'exp', 'tanh', 'add'})
  [2, 2, 2, 3]
  """
  readers, found = users(graph), [0] * len(graph.nodes)
  for i in reversed(range(len(graph.nodes))):
    inside = {
      found[j] if _is_alone(graph, j, alone) else -1 for j in readers[i]
    }
    (home, *others) = inside or {-1}
    found[i] = i if others or home < 0 else home
  return found


def _is_alone(graph: Graph, i: int, alone: Collection[str]) -> bool:
  return i < len(graph.nodes) and graph.nodes[i].op in alone
