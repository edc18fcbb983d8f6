"""A network with all computed that does not depend on its inputs."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from compress import tree
from tsukiji.graph import evaluate
from tsukiji.graph.folding import folded
from tsukiji.graph.nodes import Graph, Node, Ref, bound, pruned


class Settled(NamedTuple):
  """A network whose only parameters are weights of products.

  Attributes:
    graph: The network; biases, norms and all that follows from them are
      constants.
    params: The weights by path: arrays and frozen nodes.
    shapes: Of what nodes read, for one example; () of several.
  """

  graph: Graph
  params: dict[str, Any]
  shapes: Mapping[Any, tuple[int, ...]]


def settled(graph: Graph, variables: Mapping[str, Any]) -> Settled:
  """Return a network with all computed that does not depend on its inputs.

  Args:
    graph: The network.
    variables: `{'params': ...}` by path: arrays and frozen nodes.

  Returns:
    The network. Weights that change their inputs stay, too.
  """
  params = variables['params']
  weights = {node.inputs[1] for node in graph.nodes if is_product(node)}
  known = {
    path: x
    for path, x in params.items()
    if path not in weights and not (tree.is_node(x) and x.transforms_input)
  }
  graph = pruned(folded(bound(graph, tree.decode(known))))
  left = {path: params[path] for path in graph.parameters}
  read = evaluate.shapes_of(graph, left)
  refs: list[Ref] = [f'@{i}' for i in range(len(graph.inputs))]
  refs += range(len(graph.nodes))
  shapes = {ref: tuple(getattr(read(ref), 'shape', ())) for ref in refs}
  return Settled(graph, left, shapes)


def is_product(node: Node) -> bool:
  """Return whether a node multiplies a value by a weight."""
  return node.op in ('dot', 'conv') and isinstance(node.inputs[1], str)
