"""Check before training that the frozen nodes can be packed."""

from typing import Any

import jax

from compress import tree
from compress.tree import Compressed, Params, Path
from tsukiji.deploy.tsk.pack import NODES


def expect_known(params: Params) -> None:
  """Check that every node is, or freezes to, a kind that files support.

  A node whose `freeze` depends on values or returns the node itself, as before
  the end of a schedule, is not checked.

  Args:
    params: Arrays and nodes, or their shapes.

  Raises:
    ValueError: If a kind is missing in `pack.NODES`.
  """

  def check(path: Path, node: Compressed) -> Any:
    frozen = _frozen(node)
    kind = type(frozen)
    own = kind is type(node) and kind.freeze is not Compressed.freeze
    if (
      tree.is_node(frozen) and NODES.get(kind.__name__) is not kind and not own
    ):
      raise ValueError(
        f'pack at {path}: expected a kind of node that files can hold, got '
        f'{kind.__name__}. Add it to tsukiji.deploy.tsk.pack.NODES, or let its '
        '`freeze` return a node or an array that they hold.'
      )
    return frozen

  tree.map_nodes(Compressed, check, params)


def _frozen(node: Compressed) -> Any:
  """Return the shapes of the frozen node, or the node if they need values."""
  try:
    return jax.eval_shape(lambda x: x.freeze(), node)
  except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):
    return node
