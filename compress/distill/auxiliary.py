"""Auxiliary arrays that train with the network and are not stored.

A regressor or probe is not a part of the network, but is trained with it. It
is attached to a weight, as a field of a node that decodes and freezes to the
weight only.
"""

from typing import Any, ClassVar

from flax import struct

from compress import tree
from compress.tree import Array, Compressed, Key, Params


@struct.dataclass
class WithAuxiliary(Compressed):
  """A weight and an auxiliary array that trains with it.

  Attributes:
    w: The weight, or a node of it.
    extra: The auxiliary array.
    name: Its name.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w', 'extra')
  inner: ClassVar[tuple[str, ...]] = ('w',)
  decayed: ClassVar[tuple[str, ...]] = ('w', 'extra')

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
  """Attach an array to the first weight of a tree, unless it is attached."""
  if name in _named(params):
    return params
  first: list[str] = []

  def visit(path: str, w: Array) -> Any:
    first.append(path)
    return WithAuxiliary(w, extra, name) if len(first) == 1 else w

  return tree.map_arrays(visit, params)


def read(params: Params, name: str) -> Array:
  """Return the auxiliary array of a name."""
  return _named(params)[name]


def _named(params: Params) -> dict[str, Array]:
  found: dict[str, Array] = {}

  def visit(path: str, node: Any) -> Any:
    found[node.name] = node.extra
    return node

  tree.map_nodes(WithAuxiliary, visit, params)
  return found
