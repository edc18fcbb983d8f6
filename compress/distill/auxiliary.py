"""Trained arrays beside the network: they help it learn and are not stored.

A regressor or probe is no part of the network, but the optimiser has to move
it. So it hangs on a weight, as a field of a node that decodes and freezes to
the weight alone.
"""

from typing import Any, ClassVar

from flax import struct

from compress import tree
from compress.tree import Array, Compressed, Key, Params


@struct.dataclass
class Beside(Compressed):
  """A weight and an array that is trained with it.

  Attributes:
    w: The weight, or a node of it.
    extra: The array.
    name: What it is asked for by.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w', 'extra')
  inner: ClassVar[tuple[str, ...]] = ('w',)

  w: Any
  extra: Array
  name: str = struct.field(pytree_node=False)

  def decode(self, key: Key | None) -> Array:
    """Return the weight."""
    del key
    return self.w

  def freeze(self) -> Any:
    """Return the weight."""
    return self.w


def attach(params: Params, name: str, extra: Array) -> Params:
  """Hang an array on the first weight of a tree, unless it hangs there."""
  if name in _named(params):
    return params
  first: list[str] = []

  def visit(path: str, w: Array) -> Any:
    first.append(path)
    return Beside(w, extra, name) if len(first) == 1 else w

  return tree.map_arrays(visit, params)


def read(params: Params, name: str) -> Array:
  """Return the array of a name that hangs in a tree."""
  return _named(params)[name]


def _named(params: Params) -> dict[str, Array]:
  found: dict[str, Array] = {}

  def visit(path: str, node: Any) -> Any:
    found[node.name] = node.extra
    return node

  tree.map_nodes(Beside, visit, params)
  return found
