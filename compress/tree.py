"""Functions on trees of arrays and compressed weights.

Nodes nest: the array inside one node may itself be a node, and is decoded
first.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from compress.node import Array as Array
from compress.node import Compressed as Compressed
from compress.node import Features as Features
from compress.node import Key as Key
from compress.node import Mean as Mean
from compress.node import Params as Params
from compress.node import Path as Path
from compress.node import Stats as Stats
from compress.node import in_32_bits as in_32_bits
from compress.node import is_node as is_node


def is_weight(x: Any) -> bool:
  """Return whether an array is a weight: two axes or more, floating point.

  Biases, scales and statistics have one axis: neither methods nor weight decay
  change them.

  >>> is_weight(jnp.zeros((2, 3), jnp.bfloat16)), is_weight(jnp.zeros(3))
  (True, False)
  """
  return np.ndim(x) >= 2 and bool(jnp.issubdtype(x.dtype, jnp.floating))


def holds_weight(x: Any) -> bool:
  """Return whether an array, or the one a node decodes to, is a weight."""
  return is_weight(jax.eval_shape(decode, x) if is_node(x) else x)


def shape_of(x: Any) -> tuple[int, ...]:
  """Return the shape of an array, or of the one a node decodes to."""
  shape: tuple[int, ...] = jax.eval_shape(decode, x).shape
  return shape


def join(path: tuple[Any, ...]) -> Path:
  """Return a key path of `jax.tree_util` as `'conv1/kernel'`."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def paths(params: Params) -> dict[Path, Any]:
  """Return the arrays and outermost nodes of a tree by path.

  >>> paths({'fc': {'bias': 1, 'kernel': 2}})
  {'fc/bias': 1, 'fc/kernel': 2}
  """
  flat, _ = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_node)
  return {join(path): leaf for path, leaf in flat}


def map_paths(fn: Callable[[Path, Any], Any], params: Params) -> Params:
  """Replace every array and every outermost node by `fn(path, leaf)`."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: fn(join(path), leaf), params, is_leaf=is_node
  )


def descend(fn: Callable[[Path, Any], Any], path: Path, node: Any) -> Any:
  """Replace the weights inside a node by `fn(path, inner)`.

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
  """Replace every innermost weight array by `fn(path, array)`.

  Arrays of 16-bit floats are given to `fn` as float32, and what it makes of
  them decodes to their own type (`in_32_bits`).
  """

  def visit(path: Path, x: Any) -> Any:
    if is_node(x):
      return descend(visit, path, x)
    return in_32_bits(lambda w: fn(path, w), x) if is_weight(x) else x

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
  """Return the weight whose layer input an innermost array is multiplied by.

  Of several arrays in one node the first is multiplied by the input of the
  layer. The others follow, on inputs that are not observed, and are left out.
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
    key: Randomness of one training step. `None` gives the arrays that are
      deployed.

  Returns:
    The tree of arrays that the network is applied to.

  Raises:
    ValueError: If the result is differentiated although no key was given and a
      node decodes to another array in training (`Compressed.needs_key`).
  """
  leaves, treedef = jax.tree.flatten(params, is_leaf=is_node)
  keys: list[Key | None] = [None] * len(leaves)
  if key is not None:
    keys = [*jax.random.split(key, max(1, len(leaves)))]
  return jax.tree.unflatten(treedef, map(_decode, leaves, keys))


def _decode(x: Any, key: Key | None) -> Array:
  if not is_node(x):
    return x
  here, below = (None, None) if key is None else jax.random.split(key)
  inner = descend(lambda _, y: _decode(y, below), '', x)
  decoded: Array = _decode_node(inner, here)
  if key is None and x.needs_key:
    return _deployed(type(x).__name__, decoded)
  return decoded


@functools.partial(jax.jit, inline=True)
def _decode_node(node: Compressed, key: Key | None) -> Array:
  """Decode one node in one program, whoever calls."""
  return node.decode(key)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _deployed(kind: str, x: Array) -> Array:
  """Return `x`, which has no derivative: it is not what trains."""
  del kind
  return x


@_deployed.defjvp
def _no_derivative(kind: str, *_: Any) -> Any:
  raise ValueError(
    f'tree.decode: expected a key, got none where {kind} is differentiated: '
    'without one it decodes to what is deployed, which is not what trains. '
    'Pass decode(params, key).'
  )


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
  miss the given sparsity.
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
  """Split a tree into trainable and frozen arrays.

  Args:
    params: A tree of arrays and nodes.

  Returns:
    `(trainable, frozen)`: two trees of the same shape; each has `None` where
    the other has the array. `merge` is the inverse.
  """
  marks = _marks(params, lambda node: node.trainable, lambda _: True)
  trainable = jax.tree.map(lambda m, x: x if m else None, marks, params)
  frozen = jax.tree.map(lambda m, x: None if m else x, marks, params)
  return trainable, frozen


def merge(trainable: Params, frozen: Params) -> Params:
  """Undo `split`."""
  return jax.tree.map(
    lambda a, b: b if a is None else a,
    trainable,
    frozen,
    is_leaf=lambda x: x is None,
  )


def filled(params: Params, dense: Params) -> Params:
  """Return a decoded tree with what is None taken from another."""
  return merge(decode(params), dense)


def decayed(params: Params) -> Params:
  """Return which arrays weight decay may shrink.

  Args:
    params: A tree of arrays and nodes, whole or the first of `split`.

  Returns:
    True in place of each weight that the optimizer moves and its node lets
    decay, else False.
  """

  def fields(node: Compressed) -> tuple[str, ...]:
    named = node.inner if node.decayed is None else node.decayed
    return tuple(f for f in named if f in node.trainable)

  return _marks(params, fields, is_weight)


def _marks(
  params: Params,
  fields: Callable[[Compressed], tuple[str, ...]],
  mark: Callable[[Any], bool],
) -> Params:
  """Replace arrays by their mark, and by False those in no such field."""

  def visit(x: Any) -> Any:
    if not is_node(x):
      return jax.tree.map(mark, x)
    marks = {}
    for f in dataclasses.fields(x):  # type: ignore[arg-type]
      value = getattr(x, f.name)
      if f.metadata.get('pytree_node', True) and value is not None:
        chosen = f.name in fields(x)
        marks[f.name] = visit(value) if chosen else _unmarked(value)
    return x.replace(**marks)

  return jax.tree.map(visit, params, is_leaf=is_node)


def _unmarked(x: Any) -> Any:
  return jax.tree.map(lambda _: False, x)
