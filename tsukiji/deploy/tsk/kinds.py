"""Check before training that the frozen nodes can be packed."""

from typing import Any

import jax

from compress import tree
from compress.tree import Compressed, Params, Path
from tsukiji.deploy.tsk.node_forms import name_of


def expect_known(params: Params) -> None:
  """Check that every node is, or freezes to, a kind that files support.

  A node that freezes itself or to one that freezes further, as its values or a
  schedule decide, is not checked.

  Args:
    params: Arrays and nodes, or their shapes.

  Raises:
    ValueError: If files cannot hold a class of nodes.
  """

  def check(path: Path, node: Compressed) -> Any:
    frozen = _frozen(node)
    kind = type(frozen)
    known = not tree.is_node(frozen) or name_of(kind)
    if not known and not _freezes(kind):
      raise ValueError(
        f'pack at {path}: expected a kind of node that files can hold, got '
        f'{kind.__name__}. Give it a `kind` of compress.kinds, or let its '
        '`freeze` return a node or an array that they hold.'
      )
    return frozen

  tree.map_nodes(Compressed, check, params)


def _freezes(kind: type[Compressed]) -> bool:
  return kind.freeze is not Compressed.freeze


def _frozen(node: Compressed) -> Any:
  """Return the shapes of the frozen node, or the node if they need values."""
  try:
    return jax.eval_shape(lambda x: x.freeze(), node)
  except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):
    return node
