"""Fewer operations with the same outputs, whatever network it is."""

from tsukiji.deploy.passes.absorb import Weights, absorbed
from tsukiji.deploy.passes.push import pushed
from tsukiji.deploy.passes.unfold import unfolded
from tsukiji.graph.nodes import Graph


def simplified(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
  """Return a network with products for factors, and affine functions in them.

  Args:
    graph: The network.
    weights: Arrays and frozen nodes, by path.

  Returns:
    A network with the same outputs, to float error, and its weights.
  """
  graph, weights = absorbed(*unfolded(graph, weights))
  return absorbed(*pushed(graph, weights))
