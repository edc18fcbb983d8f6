"""Compressed weights: pytree nodes that decode to the array they stand for."""

import abc
import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias, TypeGuard

import jax
import jax.numpy as jnp
from flax import struct

Array: TypeAlias = jax.Array
Key: TypeAlias = jax.Array
Params: TypeAlias = Any  # a pytree whose leaves are Arrays or Compressed nodes
Path: TypeAlias = str  # 'conv1/kernel'
Stats: TypeAlias = dict[Path, Array]  # [min, max] of the input of each weight
Features: TypeAlias = dict[Path, Array]  # what each module puts out
Mean: TypeAlias = Callable[[Array], Array]  # [..., inputs] -> [..., 1]

CLASS = 'node_class'  # the field that tells nodes apart


class Compressed(abc.ABC):
  """A `flax.struct.dataclass` that stands for ONE array of the network.

  Attributes:
    trainable: Fields that the optimizer may move; every other is frozen.
    inner: Fields holding the weights that a later method compresses further.
    decayed: Fields whose weights weight decay may shrink, of those that are
      trainable; None for `inner`. Steps, thresholds and gates are no weights,
      whatever their shape.
    kind: What it makes of a weight, one of `compress.kinds.KINDS`, where the
      methods that may follow are looked up.
    shape: Of the array that it decodes to.
    dtype: Of that array.
    ndim: Its number of axes.
    node_class: Its class, as a static value.
  """

  if typing.TYPE_CHECKING:
    shape: tuple[int, ...]
    dtype: Any
    ndim: int
    node_class: type

  trainable: ClassVar[tuple[str, ...]] = ()
  inner: ClassVar[tuple[str, ...]] = ()
  decayed: ClassVar[tuple[str, ...] | None] = None
  kind: ClassVar[str] = ''

  def __init_subclass__(cls, **options: Any) -> None:
    """Add the class to the structure; refuse a `decode` that asks for a key."""
    super().__init_subclass__(**options)
    _add_class(cls)
    own = cls.__dict__.get('decode')
    if own and len(inspect.signature(own).parameters) > 1:
      raise TypeError(
        f'{cls.__name__}.decode: expected no argument besides self, got '
        f'{inspect.signature(own)}. What a training step decodes to, where it '
        'is another array, is decode_training(self, key).'
      )

  @property
  def trains_otherwise(self) -> bool:
    """Whether training decodes to another array than deployment does."""
    return type(self).decode_training is not Compressed.decode_training

  @property
  def transforms_input(self) -> bool:
    """Whether the layer's input has to pass through this node."""
    kind, first = type(self), self._first()
    return (
      kind.transform_input is not Compressed.transform_input
      or kind.scale_output is not Compressed.scale_output
      or (is_node(first) and first.transforms_input)
    )

  def _first(self) -> Any:
    return getattr(self, self.inner[0]) if self.inner else None

  def __getattr__(self, name: str) -> Any:
    """Return what is known of the array, computed where no field says it."""
    if name not in ('shape', 'dtype', 'ndim'):
      kind = type(self).__name__
      raise AttributeError(f'{kind!r} object has no attribute {name!r}')
    return getattr(jax.eval_shape(_decoded, self), name)

  @abc.abstractmethod
  def decode(self) -> Array:
    """Return the array; pure and differentiable (straight-through here)."""

  def decode_training(self, key: Key | None) -> Array:
    """Return the array of one training step, where it is another.

    Args:
      key: Randomness of the step; `expect_key` where it is needed.
    """
    del key
    return self.decode()

  def transform_input(self, x: Array) -> Array:
    """Return the layer input that this weight multiplies, as on a grid."""
    first = self._first()
    return first.transform_input(x) if is_node(first) else x

  def scale_output(self, x: Array, mean: Mean) -> Array | None:
    """Return the factor of the layer's output before its bias, None for 1.

    Args:
      x: The layer input before `transform_input`.
      mean: Averages such an array over the window of each output position.
    """
    first = self._first()
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
    """Return a remark on this weight for reports, '' for none."""
    return ''

  def replace(self, **changes: Any) -> Any:
    """Return a copy with some fields changed."""
    return dataclasses.replace(self, **changes)  # type: ignore[type-var]


def _add_class(cls: type[Compressed]) -> None:
  """Make the class of a node one of its static values.

  jaxlib 0.10 compares structures of dataclasses by their static values alone:
  the compiled program of one node may be run for another of equal arrays. That
  happens where their hashes share 7 bits, so rarely.
  """
  own = cls.__dict__.get('__annotations__', {})
  cls.__annotations__ = {**own, CLASS: type}
  options = {'default': cls, 'repr': False, 'kw_only': True}
  cls.node_class = struct.field(pytree_node=False, **options)


def _decoded(x: Any) -> Array:
  """Return the array of a node as it is deployed."""
  if not is_node(x):
    return x
  inner = {f: _decoded(getattr(x, f)) for f in x.inner}
  return x.replace(**inner).decode()


def expect_key(where: str, key: Key | None) -> Key:
  """Return the key of a training step.

  Args:
    where: Name of the node, for the error.
    key: As `decode_training` is given it.

  Raises:
    ValueError: If there is none.
  """
  if key is None:
    raise ValueError(
      f'{where}: expected a key in training, where it draws random numbers, '
      'got none. Pass key=... to compress.value_and_grad.'
    )
  return key


def is_node(x: Any) -> TypeGuard[Compressed]:
  """Return whether `x` is a compressed weight."""
  return isinstance(x, Compressed)


@struct.dataclass
class Narrowed(Compressed):
  """A weight of 16-bit floats, compressed and trained in 32 bits.

  Steps, sums and decompositions are not exact enough in 16 bits, and some do
  not exist there; what the network multiplies has the type that it had.

  Attributes:
    w: The compressed weight.
    dtype: Of the weight that it stands for, as 'bfloat16'.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  inner: ClassVar[tuple[str, ...]] = ('w',)

  w: Any
  dtype: str = struct.field(pytree_node=False)

  def decode(self) -> Array:
    """Return the weight in its own type."""
    top = float(jnp.finfo(self.dtype).max)
    w: Array = jnp.clip(self.w, -top, top).astype(self.dtype)
    return w

  def freeze(self) -> Any:
    """Return an array where there is nothing else inside."""
    return self if is_node(self.w) else self.decode()

  def apply_mask(self, mask: Array) -> Any:
    """Return this node, 0 where `mask` is False, or None if it cannot."""
    return self._around(self.w.apply_mask(mask))

  def scatter(self, keep: Array, axis: int, size: int) -> Any:
    """Return this node among zeros along an axis, or None if it cannot."""
    return self._around(self.w.scatter(keep, axis, size))

  def scale_channels(self, gain: Array) -> Any:
    """Return this node times `gain` `[channels]`, or None if it cannot."""
    return self._around(self.w.scale_channels(gain))

  def _around(self, w: Any) -> Any:
    return None if w is None else self.replace(w=w)


def in_32_bits(fn: Callable[[Array], Any], x: Array) -> Any:
  """Return `fn(x)`, computed in float32 where `x` has fewer bits.

  Args:
    fn: Array -> array, node or anything else.
    x: An array of floats.

  Returns:
    An array of the type of `x`, a node that decodes to it, or what `fn` gave.
  """
  if x.dtype.itemsize >= 4:
    return fn(x)
  made = fn(x.astype(jnp.float32))
  if is_node(made):
    return Narrowed(made, x.dtype.name)
  same = getattr(made, 'shape', None) == x.shape and made.dtype == jnp.float32
  return made.astype(x.dtype) if same else made
