"""The cost of decoding a tree of nodes, computed from shapes.

A node of a few bytes may stand for an array of gigabytes, or pass through one
on the way. Nothing here allocates or reads an array: a leaf is whatever has a
shape and a dtype. `node_rules` says what each kind of node makes of its fields.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from compress import tree
from tsukiji.deploy.tsk import node_rules
from tsukiji.deploy.tsk.header import check, damaged
from tsukiji.deploy.tsk.node_fields import Fields, Leaf, is_array

NESTED = 16  # nodes inside each other


class Program(NamedTuple):
  """A node to compile: its kind, its static fields and its shapes.

  Attributes:
    treedef: Tree structure of the node.
    arrays: Its arrays, including those that its inner nodes decode to.
    shape: Shape of the decoded array.
  """

  treedef: Any
  arrays: tuple[jax.ShapeDtypeStruct, ...]
  shape: tuple[int, ...]

  def trace(self) -> None:
    """Check that JAX decodes the node to the shape.

    Raises:
      ValueError: If it does not.
    """
    node = jax.tree.unflatten(self.treedef, self.arrays)
    try:
      got = jax.eval_shape(lambda x: x.decode(), node).shape
    except Exception as e:  # whatever ill-matched fields make a node raise
      raise damaged('nodes that decode', repr(e)) from e
    check(got == self.shape, f'a node that decodes to {self.shape}', got)


class Cost(NamedTuple):
  """The cost of decoding.

  Attributes:
    leaf: The decoded array.
    stored: Bytes of the stored arrays.
    peak: Upper bound of the bytes in memory, stored and decoded ones included.
    macs: Multiply-adds.
    programs: Programs to compile.
  """

  leaf: Leaf
  stored: int
  peak: int
  macs: int
  programs: frozenset[Program]


def costs(variables: Any) -> dict[tree.Path, Cost]:
  """Return the cost of every array and node of a tree, by path.

  Args:
    variables: A tree of nodes and of leaves with a shape and a dtype.

  Returns:
    The costs.

  Raises:
    ValueError: If the fields of a node are inconsistent.
  """
  found: dict[tree.Path, Cost] = {}
  left = [('', variables)]
  while left:
    path, x = left.pop()
    if type(x) in (dict, tuple):
      items = x.items() if type(x) is dict else enumerate(x)
      left += [(f'{path}/{k}' if path else str(k), inner) for k, inner in items]
    elif x is not None:
      found[path] = _cost(path, x, NESTED)
  return found


def _cost(path: str, x: Any, left: int) -> Cost:
  """Return the cost of an array or a node of at most `left` nested nodes."""
  if not tree.is_node(x):
    check(is_array(x), f'an array or a node at {path}', type(x).__name__)
    leaf = Leaf(tuple(x.shape), np.dtype(x.dtype))
    return Cost(leaf, leaf.bytes, leaf.bytes, 0, frozenset())
  check(left > 0, f'at most {NESTED} nodes inside each other', path)
  inner = {
    name: _cost(f'{path}/{name}', getattr(x, name), left - 1)
    for name in x.inner
  }
  fields = Fields(path, x, {name: part.leaf for name, part in inner.items()})
  made = node_rules.RULES.get(type(x).__name__, node_rules.unknown)(fields)
  leaves, treedef = jax.tree.flatten(
    x.replace(**fields.inner), is_leaf=is_array
  )
  arrays = [Leaf(tuple(y.shape), np.dtype(y.dtype)) for y in leaves]
  taken = sum(leaf.bytes for leaf in arrays)
  decoded = sum(leaf.bytes for leaf in fields.inner.values())
  program = Program(treedef, tuple(map(_struct, arrays)), made.leaf.shape)
  parts = inner.values()
  return Cost(
    made.leaf,
    taken - decoded + sum(part.stored for part in parts),
    taken + made.leaf.bytes + made.extra + sum(part.peak for part in parts),
    made.macs + sum(part.macs for part in parts),
    frozenset([program]).union(*(part.programs for part in parts)),
  )


def _struct(leaf: Leaf) -> jax.ShapeDtypeStruct:
  dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
  return jax.ShapeDtypeStruct(leaf.shape, dtype)
