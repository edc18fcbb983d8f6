"""Constants computed before the network runs."""

from typing import Any

import jax
import numpy as np

from tsukiji.graph.evaluate import SIZED
from tsukiji.graph.nodes import BATCH, Graph, Node, Ref, pruned
from tsukiji.graph.operators import OPERATORS


def folded(graph: Graph) -> Graph:
  """Return a graph whose constants are computed, and whose choices are made.

  Raises:
    ValueError: If a constant depends on the number of examples.
  """
  known: dict[int, Ref] = {}

  def read(ref: Ref) -> Ref:
    return known.get(ref, ref) if type(ref) is int else ref

  nodes = []
  for i, node in enumerate(graph.nodes):
    node = node._replace(inputs=tuple(map(read, node.inputs)))
    if isinstance(node.attrs.get('body'), Graph):
      body = pruned(folded(node.attrs['body']))
      node = node._replace(attrs={**node.attrs, 'body': body})
    if _is_constant(node):
      known[i] = _computed(node)
    elif node.op == 'select' and _is_number(node.inputs[0]):
      chosen, other = node.inputs[:0:-1] if node.inputs[0] else node.inputs[1:]
      if _is_number(other):  # which does not broadcast the chosen one
        known[i] = chosen
    nodes.append(node)
  return graph._replace(
    nodes=tuple(nodes), outputs=tuple(map(read, graph.outputs))
  )


def _is_number(ref: Ref) -> bool:
  return isinstance(ref, np.ndarray) and ref.ndim == 0


def _is_constant(node: Node) -> bool:
  sized = BATCH in node.attrs.get(SIZED.get(node.op, ''), ())
  if node.op == 'iota' and BATCH in node.attrs['shape']:
    raise ValueError(
      'graph: expected constants of any number of examples, got the places of '
      'the examples in a batch (iota). Leave them out.'
    )
  constant = all(isinstance(ref, np.ndarray) for ref in node.inputs)
  return node.op in OPERATORS and constant and not sized


def _computed(node: Node) -> np.ndarray:
  with jax.ensure_compile_time_eval():
    args: list[Any] = [jax.numpy.asarray(x) for x in node.inputs]
    return np.asarray(OPERATORS[node.op](*args, **node.attrs))
