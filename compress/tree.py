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

from compress import state
from compress.node import Array as Array
from compress.node import Compressed as Compressed
from compress.node import Features as Features
from compress.node import Key as Key
from compress.node import Mean as Mean
from compress.node import Params as Params
from compress.node import Path as Path
from compress.node import Stats as Stats
from compress.node import expect_key as expect_key
from compress.node import in_32_bits as in_32_bits
from compress.node import is_node as is_node


def is_weight(x: Any) -> bool:
  """Return whether an array or node is a weight: two axes or more, of floats.

  Biases, scales and statistics have one axis: neither methods nor weight decay
  change them.

  >>> is_weight(jnp.zeros((2, 3), jnp.bfloat16)), is_weight(jnp.zeros(3))
  (True, False)
  """
  return np.ndim(x) >= 2 and bool(jnp.issubdtype(x.dtype, jnp.floating))


def join(path: tuple[Any, ...]) -> Path:
  """Return a key path of `jax.tree_util` as `'conv1/kernel'`.

  The box that Flax puts around an array has no name of its own.
  """
  *others, last = path or (None,)
  is_box = others and getattr(last, 'name', '') == 'value'
  kept = tuple(others) if is_box else path
  return jax.tree_util.keystr(kept, simple=True, separator='/')


def paths(params: Params) -> dict[Path, Any]:
  """Return the arrays and outermost nodes of a tree by path.

  >>> paths({'fc': {'bias': 1, 'kernel': 2}})
  {'fc/bias': 1, 'fc/kernel': 2}
  """
  flat, _ = jax.tree_util.tree_flatten_with_path(
    state.bare(params), is_leaf=is_node
  )
  return {join(path): leaf for path, leaf in flat}


def map_paths(fn: Callable[[Path, Any], Any], params: Params) -> Params:
  """Replace every array and every outermost node by `fn(path, leaf)`."""
  mapped = jax.tree_util.tree_map_with_path(
    lambda path, leaf: fn(join(path), leaf),
    state.bare(params),
    is_leaf=is_node,
  )
  return state.around(mapped, params)


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


def decode(params: Params) -> Params:
  """Replace every node by the array that is deployed, innermost first.

  Args:
    params: A tree of arrays and nodes.

  Returns:
    The tree of arrays that the network is applied to.

  Raises:
    ValueError: If the result is differentiated although a node decodes to
      another array in training (`Compressed.trains_otherwise`).
  """
  return jax.tree.map(_decode, state.bare(params), is_leaf=is_node)


def decode_training(params: Params, key: Key | None = None) -> Params:
  """Replace every node by the array that trains, innermost first.

  Args:
    params: A tree of arrays and nodes.
    key: Randomness of one training step.

  Returns:
    The tree of arrays that the network is applied to.

  Raises:
    ValueError: If there is no key and a node draws random numbers.
  """
  leaves, treedef = jax.tree.flatten(state.bare(params), is_leaf=is_node)
  keys: list[Key | None] = [None] * len(leaves)
  if key is not None:
    keys = [*jax.random.split(key, max(1, len(leaves)))]
  return jax.tree.unflatten(treedef, map(_decode_training, leaves, keys))


def _decode(x: Any) -> Array:
  if not is_node(x):
    return x
  decoded = _decode_node(descend(lambda _, y: _decode(y), '', x))
  return _deployed(type(x).__name__, decoded) if x.trains_otherwise else decoded


def _decode_training(x: Any, key: Key | None) -> Array:
  if not is_node(x):
    return x
  here, below = (None, None) if key is None else jax.random.split(key)
  inner = descend(lambda _, y: _decode_training(y, below), '', x)
  return _decode_node_training(inner, here)


@functools.partial(jax.jit, inline=True)
def _decode_node(node: Compressed) -> Array:
  """Decode one node in one program, whoever calls."""
  return node.decode()


@functools.partial(jax.jit, inline=True)
def _decode_node_training(node: Compressed, key: Key | None) -> Array:
  """Decode one node for training in one program."""
  return node.decode_training(key)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _deployed(kind: str, x: Array) -> Array:
  """Return `x`, which has no derivative: it is not what trains."""
  del kind
  return x


@_deployed.defjvp
def _no_derivative(kind: str, *_: Any) -> Any:
  raise ValueError(
    f'compress.decode: expected no derivative, got one of {kind}, which is '
    'deployed as another array than it trains as. Train with '
    'compress.value_and_grad or compress.decode_training.'
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
  return _decode(x)


def freeze(params: Params) -> Params:
  """Replace every node by the smallest one that decodes to the same bits."""

  def visit(path: Path, x: Any) -> Any:
    return descend(visit, path, x).freeze() if is_node(x) else x

  return state.bare(map_paths(visit, params))


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

  marks = jax.tree.map(visit, state.bare(params), is_leaf=is_node)
  if not isinstance(params, state.WithState):
    return marks
  trained, kept = jax.tree.map(mark, params.trained), _unmarked(params.kept)
  return params._replace(params=marks, trained=trained, kept=kept)


def _unmarked(x: Any) -> Any:
  return jax.tree.map(lambda _: False, x)
