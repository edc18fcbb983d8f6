"""Sliced weights: what is left of an array when whole channels go."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from compress import tree
from compress.channels.dependency import Group, Slice
from compress.tree import Array, Compressed, Key, Mean, Params, Path


@struct.dataclass
class Sliced(Compressed):
  """A weight of which only some entries along one axis are left.

  Attributes:
    w: What is left, `[..., kept, ...]`.
    keep: Where it stood along the axis, `[kept]` int32, rising.
    axis: The axis.
    size: Its length in the dense weight.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  inner: ClassVar[tuple[str, ...]] = ('w',)

  w: Any
  keep: Array
  axis: int = struct.field(pytree_node=False)
  size: int = struct.field(pytree_node=False)

  def decode(self, key: Key | None) -> Array:
    """Return the weight with 0 where entries were removed."""
    del key
    return tree.scattered(self.w, self.keep, self.axis, self.size)

  def scale_output(self, x: Array, mean: Mean) -> Array | None:
    """Return what the weight says of the inputs that it still has."""
    inputs = jax.eval_shape(tree.decode, self).ndim - 2
    return super().scale_output(
      x[..., self.keep] if self.axis == inputs else x, mean
    )

  def freeze(self) -> Any:
    """Return the weight with zeros: it needs no positions beside them."""
    if not tree.is_node(self.w):
      return tree.scattered(self.w, self.keep, self.axis, self.size)
    spread = self.w.scatter(self.keep, self.axis, self.size)
    return self if spread is None else spread


def cut(params: Params, group: Group, keep: np.ndarray) -> Params:
  """Keep some channels of a group in every array that they touch.

  Args:
    params: A tree of arrays, some of them `Sliced` by other groups.
    group: The channels.
    keep: Which stay, `[channels]` bool.

  Returns:
    The tree with `Sliced` nodes.
  """
  by_path: dict[Path, list[Slice]] = {}
  for part in group.slices:
    by_path.setdefault(part.path, []).append(part)

  def visit(path: Path, x: Any) -> Any:
    for part in by_path.get(path, ()):
      x = _sliced(x, part, keep)
    return x

  return tree.map_paths(visit, params)


def _sliced(x: Any, part: Slice, keep: np.ndarray) -> Sliced:
  size = size_along(x, part.axis)
  left = np.ones(size, bool)
  left[part.entries[~keep].ravel()] = False
  if kept(x, part.axis) is not None:
    narrowed: Sliced = taken(x, left, part.axis)
    return narrowed
  return Sliced(
    taken(x, left, part.axis), jnp.int32(np.flatnonzero(left)), part.axis, size
  )


def size_along(x: Any, axis: int) -> int:
  """Return the dense length of an array or `Sliced` along an axis."""
  while isinstance(x, Sliced):
    if x.axis == axis:
      return x.size
    x = x.w
  return int(x.shape[axis])


def taken(x: Any, left: np.ndarray, axis: int) -> Any:
  """Return an array of which fewer entries are left, `left` of the dense."""
  if isinstance(x, Sliced) and x.axis == axis:
    # Two groups that are concatenated share the axis of what takes them in.
    still = left[np.asarray(x.keep)]
    return dataclasses.replace(
      x, w=taken(x.w, still, axis), keep=x.keep[np.flatnonzero(still)]
    )
  if isinstance(x, Sliced):
    return dataclasses.replace(x, w=taken(x.w, left, axis))
  return jnp.compress(left, x, axis)


def whittled(x: Any) -> Any:
  """Return what is left of a weight, without the zeros around it."""
  while isinstance(x, Sliced):
    x = x.w
  return x


def kept(x: Any, axis: int) -> np.ndarray | None:
  """Return which entries along an axis are left; None if all are."""
  while isinstance(x, Sliced):
    if x.axis == axis:
      return np.asarray(x.keep)
    x = x.w
  return None
