"""Weights as methods see them, and back in the layout of the user.

Every method works on kernels `[*window, inputs, outputs]` and matrices
`[inputs, outputs]`. Where the function of the user holds a weight in another
layout, `Arranged` stands between the two; parameters that are not multiplied,
such as biases `[heads, dim]`, are vectors to methods.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from compress import tree
from compress.dataflow.sites import Site
from compress.tree import Array, Compressed, Params, Path


@struct.dataclass
class Arranged(Compressed):
  """A weight that methods see in another layout than the network.

  Attributes:
    w: As methods see it.
    shape: As the network does.
    order: Its axes in the order of `w`.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  inner: ClassVar[tuple[str, ...]] = ('w',)

  w: Any
  shape: tuple[int, ...] = struct.field(pytree_node=False)
  order: tuple[int, ...] = struct.field(pytree_node=False)

  def decode(self) -> Array:
    """Return the weight in the layout of the network."""
    moved = self.w.reshape([self.shape[i] for i in self.order])
    return moved.transpose(
      [self.order.index(i) for i in range(len(self.order))]
    )

  def seen(self, x: Array) -> Array:
    """Return an array of the network's layout as methods see it."""
    shape = self.w.shape
    return x.transpose(self.order).reshape(shape)

  def freeze(self) -> Any:
    """Return the array of the network where nothing is compressed."""
    return self if tree.is_node(self.w) else self.decode()


def axes_of(x: Arranged) -> list[tuple[int, ...]]:
  """Return the axes of the network behind each axis that a method sees.

  >>> axes_of(Arranged(jnp.ones((8, 6)), shape=(2, 8, 3), order=(1, 0, 2)))
  [(1,), (0, 2)]
  """
  left, found = list(x.order), []
  for size in x.w.shape:
    run = [left.pop(0)] if left else []
    while left and math.prod(x.shape[i] for i in run) < size:
      run.append(left.pop(0))
    found.append(tuple(run))
  return found


def arrange(params: Params, sites: Mapping[Path, Site]) -> Params:
  """Wrap every array that methods see in another layout.

  Args:
    params: Arrays and nodes, in the layout of the network.
    sites: How they are used.

  Returns:
    The tree with `Arranged` nodes.

  Raises:
    ValueError: If a weight is compressed already and has another layout.
  """

  def visit(path: Path, x: Any) -> Any:
    site = sites.get(path)
    if site is None or isinstance(x, Arranged) or not jnp.ndim(_first(x)):
      return x
    shape = tuple(x.shape)
    order, wanted = _layout(site, shape)
    if wanted == shape and order == tuple(range(len(shape))):
      return x
    if tree.is_node(x):
      raise ValueError(
        f'compress.init at {path}: expected an array or a node made by it, got '
        f'{type(x).__name__} for a weight {shape} that is multiplied as '
        f'{wanted}. Decode it first.'
      )
    return Arranged(x.transpose(order).reshape(wanted), shape, order)

  return tree.map_paths(visit, params)


def _first(x: Any) -> Any:
  return jax.tree.leaves(x)[0] if tree.is_node(x) else x


def _layout(
  site: Site, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """Return the order of the axes, and the shape that methods see."""
  same = tuple(range(len(shape)))
  if site.kind == 'gather':
    return same, shape
  if not site.is_weight:
    return same, (math.prod(shape),)
  if sorted(site.order) != [*same]:
    return same, shape  # used in parts: as it is
  return site.order, site.shape


def seen(params: Params) -> Params:
  """Return a tree as methods see it, without `Arranged` nodes."""
  return tree.map_paths(
    lambda _, x: x.w if isinstance(x, Arranged) else x, params
  )


def seen_like(dense: Params, params: Params) -> Params:
  """Return decoded arrays, such as gradients, as methods see them.

  Args:
    dense: In the layout of the network.
    params: The tree that says which layouts differ.
  """
  nodes = tree.paths(params)

  def visit(path: Path, x: Any) -> Any:
    node = nodes[path]
    return node.seen(x) if isinstance(node, Arranged) else x

  return tree.map_paths(visit, dense)


def restored(params: Params, like: Params) -> Params:
  """Undo `seen`.

  Args:
    params: As methods return it.
    like: The tree before `seen`.
  """
  nodes = tree.paths(like)

  def visit(path: Path, x: Any) -> Any:
    node = nodes[path]
    return node.replace(w=x) if isinstance(node, Arranged) else x

  return tree.map_paths(visit, params)
