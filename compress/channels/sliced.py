"""Sliced weights: the entries that remain after channels are removed."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from compress import kinds, tree
from compress.channels.dependency import Group, Slice
from compress.dataflow.arranged import Arranged, axes_of
from compress.tree import Array, Compressed, Mean, Params, Path

Keeps: TypeAlias = dict[str, np.ndarray]  # `[channels]` bool, by name of group


@struct.dataclass
class Sliced(Compressed):
  """A weight with only some of its entries along one axis.

  Attributes:
    w: The kept entries, `[..., kept, ...]`.
    keep: Their indices along the axis, `[kept]` int32, increasing.
    axis: The axis.
    size: Its length in the dense weight.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  inner: ClassVar[tuple[str, ...]] = ('w',)
  kind: ClassVar[str] = kinds.CHANNELS

  w: Any
  keep: Array
  axis: int = struct.field(pytree_node=False)
  size: int = struct.field(pytree_node=False)

  def decode(self) -> Array:
    """Return the weight with 0 where entries were removed."""
    return tree.scattered(self.w, self.keep, self.axis, self.size)

  @property
  def transforms_input(self) -> bool:
    """Whether the weight inside transforms the layer's input."""
    return tree.is_node(self.w) and self.w.transforms_input

  def scale_output(self, x: Array, mean: Mean) -> Array | None:
    """Return the output scale of the content, given its remaining inputs."""
    inputs = self.ndim - 2
    return super().scale_output(
      x[..., self.keep] if self.axis == inputs else x, mean
    )

  def filled(self) -> Any:
    """Return the weight with zeros written into it, if its content allows."""
    if not tree.is_node(self.w):
      return tree.scattered(self.w, self.keep, self.axis, self.size)
    dense = self.w.scatter(self.keep, self.axis, self.size)
    return self if dense is None else dense


def cut(params: Params, group: Group, keep: np.ndarray) -> Params:
  """Remove channels of a group from every array that depends on them.

  Args:
    params: A tree of arrays, some of them `Sliced` by other groups.
    group: The channels.
    keep: Which channels remain, `[channels]` bool.

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


def cut_all(params: Params, groups: Sequence[Group], keeps: Keeps) -> Params:
  """Remove channels of several groups, as `cut`."""
  for group in groups:
    keep = keeps[group.name]
    params = params if keep.all() else cut(params, group, keep)
  return params


def zeroing(
  params: Params, groups: Sequence[Group]
) -> Callable[[Keeps], Params]:
  """Return a function that gives what `cut_all` decodes to.

  Shapes do not depend on the channels: many choices of them are tried without
  a program for each.

  Args:
    params: A tree of arrays, some of them `Sliced`.
    groups: The channels.

  Returns:
    Which channels remain -> dense arrays, 0 where channels are removed.
  """

  @jax.jit
  def zeroed(dense: Params, keeps: dict[str, Array]) -> Params:
    found = dict(tree.paths(dense))
    for group in groups:
      for part in group.slices:
        x = found[part.path]
        left = jnp.ones(x.shape[part.axis], bool)
        left = left.at[part.entries].set(keeps[group.name][:, None])
        sides = [-1 if i == part.axis else 1 for i in range(x.ndim)]
        found[part.path] = jnp.where(left.reshape(sides), x, 0)
    return tree.map_paths(lambda path, _: found[path], dense)

  dense = tree.decode(params)
  return lambda keeps: zeroed(dense, keeps)


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
  """Return an array with the entries at `left` `[dense length]` bool."""
  if isinstance(x, Sliced) and x.axis == axis:
    # Two concatenated groups share an axis of the layer that consumes them.
    still = left[np.asarray(x.keep)]
    return dataclasses.replace(
      x, w=taken(x.w, still, axis), keep=x.keep[np.flatnonzero(still)]
    )
  if isinstance(x, Sliced):
    return dataclasses.replace(x, w=taken(x.w, left, axis))
  # On the host: each width would be a program of its own.
  return jnp.asarray(np.compress(left, np.asarray(x), axis))


def unsliced(x: Any) -> Any:
  """Return a weight without its removed entries.

  Args:
    x: An array or node. If entries are gone of what a method sees as one axis
      and the network as several, it stays as it is.
  """
  if isinstance(x, Arranged):
    w, shape = unsliced(x.w), list(x.shape)
    runs = zip(axes_of(x), x.w.shape, w.shape, strict=True)
    for axes, before, after in runs:
      if before != after and len(axes) > 1:
        return x
      if before != after:
        shape[axes[0]] = after
    return x.replace(w=w, shape=tuple(shape))
  while isinstance(x, Sliced):
    x = x.w
  return x


def filled(params: Params) -> Params:
  """Return a tree with zeros in place of removed entries, and no positions."""

  def visit(path: Path, x: Any) -> Any:
    if not tree.is_node(x):
      return x
    x = tree.descend(visit, path, x)
    return x.filled() if isinstance(x, Sliced) else x

  return tree.freeze(tree.map_paths(visit, params))


def kept(x: Any, axis: int) -> np.ndarray | None:
  """Return the indices of the kept entries along an axis; None if all."""
  while isinstance(x, Sliced):
    if x.axis == axis:
      return np.asarray(x.keep)
    x = x.w
  return None


def removed(x: Any) -> np.ndarray:
  """Return which numbers of a weight are those of a removed output.

  Args:
    x: An array or node.

  Returns:
    Bools of its shape; those of a removed input are not among them.
  """
  if isinstance(x, Arranged):
    return np.asarray(x.replace(w=jnp.asarray(removed(x.w))).decode())
  shape = tuple(x.shape)
  found = np.zeros(shape, bool)
  for axis in reversed(range(len(shape))):  # outputs are last
    keep = kept(x, axis)
    if keep is not None:
      gone = np.ones(shape[axis], bool)
      gone[keep] = False
      along = gone.reshape([-1 if i == axis else 1 for i in range(len(shape))])
      found = found | along if axis == len(shape) - 1 else found & ~along
  return found
