"""Compressed weights: pytree nodes that decode to the array they stand for.

A parameter tree holds arrays and `Compressed` nodes. Everything else in this
library is a function on such trees. Nodes nest: the array inside one node may
itself be a node, and is decoded first.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

Array: TypeAlias = jax.Array
Key: TypeAlias = jax.Array
Params: TypeAlias = Any  # a pytree whose leaves are Arrays or Compressed nodes
Path: TypeAlias = str  # 'conv1/kernel'
Stats: TypeAlias = dict[Path, Array]  # [min, max] of the input of each weight
Features: TypeAlias = dict[Path, Array]  # what each module puts out
Mean: TypeAlias = Callable[[Array], Array]  # [..., inputs] -> [..., 1]


class Compressed(abc.ABC):
  """A `flax.struct.dataclass` that stands for ONE array of the network.

  Attributes:
    trainable: Fields the optimiser may move; every other field is held.
    inner: Fields holding the weights that a later method compresses further.
    keeps_zero: Whether what is 0 inside decodes to 0; masks go around others.
  """

  trainable: ClassVar[tuple[str, ...]] = ()
  inner: ClassVar[tuple[str, ...]] = ()
  keeps_zero: ClassVar[bool] = True

  @abc.abstractmethod
  def decode(self, key: Key | None) -> Array:
    """Return the array; pure and differentiable (straight-through here)."""

  def transform_input(self, x: Array) -> Array:
    """Return the layer input as this weight sees it (activation grids)."""
    first = getattr(self, self.inner[0]) if self.inner else None
    return first.transform_input(x) if is_node(first) else x

  def scale_output(self, x: Array, mean: Mean) -> Array | None:
    """Return what the layer's sums are multiplied by, or None for 1.

    The counterpart of `meet` behind the layer, before its bias.

    Args:
      x: The layer input as it came, before `meet`.
      mean: Averages such an array over all that each output place sees.
    """
    first = getattr(self, self.inner[0]) if self.inner else None
    return first.scale_output(x, mean) if is_node(first) else None

  def freeze(self) -> Any:
    """Return the smallest node or array that decodes to the same bits."""
    return self

  def apply_mask(self, mask: Array) -> Any:
    """Return this node, 0 where `mask` is False, or None if it cannot."""
    del mask

  def scatter(self, keep: Array, axis: int, size: int) -> Any:
    """Return this node among zeros along an axis, or None if it cannot."""
    del keep, axis, size

  def scale_channels(self, gain: Array) -> Any:
    """Return this node times `gain` `[channels]`, or None if it cannot."""
    del gain

  def describe(self) -> str:
    """Return what a report says of this weight, '' for nothing."""
    return ''

  def replace(self, **changes: Any) -> Any:
    """Return a copy with some fields changed."""
    return dataclasses.replace(self, **changes)  # type: ignore[type-var]


def is_node(x: Any) -> TypeGuard[Compressed]:
  """Tell whether `x` is a compressed weight."""
  return isinstance(x, Compressed)


def is_weight(x: Any) -> bool:
  """Tell whether an array is a weight: two axes or more, floating point.

  Biases, scales and statistics have one axis: methods leave them alone, and
  weight decay does not touch them.
  """
  return np.ndim(x) >= 2 and np.issubdtype(x.dtype, np.floating)


def holds_weight(x: Any) -> bool:
  """Tell whether an array or what a node decodes to is a weight."""
  return is_weight(jax.eval_shape(decode, x) if is_node(x) else x)


def shape_of(x: Any) -> tuple[int, ...]:
  """Return the shape of an array or of what a node decodes to."""
  shape: tuple[int, ...] = jax.eval_shape(decode, x).shape
  return shape


def join(path: tuple[Any, ...]) -> Path:
  """Return a key path of `jax.tree_util` as `'conv1/kernel'`."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def paths(params: Params) -> dict[Path, Any]:
  """Return the arrays and nodes of a tree by path, nodes whole.

  >>> paths({'fc': {'bias': 1, 'kernel': 2}})
  {'fc/bias': 1, 'fc/kernel': 2}
  """
  flat, _ = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_node)
  return {join(path): leaf for path, leaf in flat}


def map_paths(fn: Callable[[Path, Any], Any], params: Params) -> Params:
  """Replace every array and every whole node by `fn(path, leaf)`."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: fn(join(path), leaf), params, is_leaf=is_node
  )


def descend(fn: Callable[[Path, Any], Any], path: Path, node: Any) -> Any:
  """Replace what is inside a node by `fn(path, inner)`.

  A single inner array keeps the path of its node, so that 'conv1/kernel' names
  the weight however many methods wrap it; several are told apart by field.
  """
  one = len(node.inner) == 1
  return node.replace(
    **{
      f: fn(path if one else f'{path}/{f}', getattr(node, f))
      for f in node.inner
    }
  )


def map_arrays(fn: Callable[[Path, Array], Any], params: Params) -> Params:
  """Replace every innermost weight array by `fn(path, array)`."""

  def visit(path: Path, x: Any) -> Any:
    if is_node(x):
      return descend(visit, path, x)
    return fn(path, x) if is_weight(x) else x

  return map_paths(visit, params)


def map_nodes(
  kind: type, fn: Callable[[Path, Any], Any], params: Params
) -> Params:
  """Replace every node of one kind, at any depth, innermost first."""

  def visit(path: Path, x: Any) -> Any:
    if not is_node(x):
      return x
    x = descend(visit, path, x)
    return fn(path, x) if isinstance(x, kind) else x

  return map_paths(visit, params)


def find(kind: type, params: Params) -> dict[Path, Any]:
  """Return every node of one kind, at any depth, by path."""
  found: dict[Path, Any] = {}
  map_nodes(kind, lambda path, node: found.setdefault(path, node), params)
  return found


def meeting(params: Params) -> dict[Path, Path]:
  """Return which weight's input an innermost array meets, by its path.

  Of several arrays in one node the first meets the input of the layer, and the
  others what it makes of it, which nobody sees: they are not in here.
  """
  found: dict[Path, Path] = {}
  for path, x in paths(params).items():
    inner = path
    while is_node(x) and x.inner:
      first, *others = x.inner
      inner = f'{inner}/{first}' if others else inner
      x = getattr(x, first)
    found[inner] = path
  return found


def decode(params: Params, key: Key | None = None) -> Params:
  """Replace every node by its array, innermost first.

  Args:
    params: A tree of arrays and nodes.
    key: Randomness for stochastic nodes; `None` decodes deterministically.

  Returns:
    The tree of arrays that the network is applied to.
  """
  leaves, treedef = jax.tree.flatten(params, is_leaf=is_node)
  keys = [None] * len(leaves)
  if key is not None:
    keys = list(jax.random.split(key, max(1, len(leaves))))
  return jax.tree.unflatten(treedef, map(_decode, leaves, keys))


def _decode(x: Any, key: Key | None) -> Array:
  if not is_node(x):
    return x
  here, below = (None, None) if key is None else jax.random.split(key)
  return descend(lambda _, y: _decode(y, below), '', x).decode(here)


def scattered(
  x: Array, keep: Array, axis: int, size: int, fill: float = 0
) -> Array:
  """Return an array of length `size` along an axis: `x` at `keep`, else fill.

  >>> scattered(np.array([5, 7]), np.array([0, 2]), 0, 4).tolist()
  [5, 0, 7, 0]
  """
  x = jnp.asarray(x)
  shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
  at = (slice(None),) * axis + (keep,)
  return jnp.full(shape, fill, x.dtype).at[at].set(x)


def scaled(x: Any, gain: Array) -> Any:
  """Return an array or node times `gain` `[channels]`; None if it cannot."""
  return x.scale_channels(gain) if is_node(x) else x * gain


def latent(x: Any) -> Array:
  """Return the trained array under a node, before masks and grids.

  Scores read this: ranking the quantized values instead makes ties, and ties
  miss the sparsity asked for.
  """
  while is_node(x) and len(x.inner) == 1:
    x = getattr(x, x.inner[0])
  return _decode(x, None)


def freeze(params: Params) -> Params:
  """Replace every node by the smallest one that decodes to the same bits."""

  def visit(path: Path, x: Any) -> Any:
    return descend(visit, path, x).freeze() if is_node(x) else x

  return map_paths(visit, params)


def split(params: Params) -> tuple[Params, Params]:
  """Split a tree into what the optimiser may move and what is held.

  Args:
    params: A tree of arrays and nodes.

  Returns:
    `(free, held)`: two trees of the same shape; each has `None` where the
    other has the array. `merge` is the inverse.
  """
  marks = jax.tree.map(_marks, params, is_leaf=is_node)
  free = jax.tree.map(lambda m, x: x if m else None, marks, params)
  held = jax.tree.map(lambda m, x: None if m else x, marks, params)
  return free, held


def merge(free: Params, held: Params) -> Params:
  """Undo `split`."""
  return jax.tree.map(
    lambda a, b: b if a is None else a, free, held, is_leaf=lambda x: x is None
  )


def filled(params: Params, dense: Params) -> Params:
  """Return a decoded tree with what is None taken from another."""
  return merge(decode(params), dense)


def _marks(x: Any) -> Any:
  """Return `x` with True in place of each trainable array, else False."""
  if not is_node(x):
    return jax.tree.map(lambda _: True, x)
  held = functools.partial(jax.tree.map, lambda _: False)
  return x.replace(
    **{
      f.name: (_marks if f.name in x.trainable else held)(getattr(x, f.name))
      for f in dataclasses.fields(x)  # type: ignore[arg-type]
      if f.metadata.get('pytree_node', True) and getattr(x, f.name) is not None
    }
  )
