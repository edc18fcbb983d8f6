"""Decoding of the weights of a network with little time and memory."""

from typing import Any

import jax

from compress import tree


def decoded(params: Any) -> Any:
  """Return a tree of arrays, as `compress.tree.decode` does.

  Each node is compiled on its own, once for all nodes of one kind and shape, so
  that its intermediate values are fused away.

  Args:
    params: A tree of arrays and nodes.

  Returns:
    The tree of arrays.
  """

  def visit(path: str, x: Any) -> Any:
    return _decode(tree.descend(visit, path, x)) if tree.is_node(x) else x

  return tree.map_paths(visit, params)


@jax.jit
def _decode(node: Any) -> jax.Array:
  """Decode a node whose inner nodes are decoded."""
  array: jax.Array = node.decode()
  return array
