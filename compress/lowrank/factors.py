"""Factored weights: products of smaller kernels, each a layer of its own."""

import abc
import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from compress import kinds, scaling, tree
from compress.tree import Array, Compressed

FOLDS = ('channel', 'spatial')


class Factored(Compressed):
  """A weight that is a product of kernels, applied one after the other.

  Each factor has the shape of a kernel, `[..., inputs, outputs]`, whose other
  axes are those of the weight or 1. A factor with a single input and as many
  outputs as the factor before it is depthwise. Each factor is therefore a
  layer, and the layers in sequence compute what the weight does.
  """

  kind: ClassVar[str] = kinds.FACTORS

  def factors(self) -> dict[str, Any]:
    """Return the kernels by field, in the order in which they are applied."""
    return {field: getattr(self, field) for field in self.inner}

  @abc.abstractmethod
  def decode(self) -> Array:
    """Return the product."""

  def scale_channels(self, gain: Array) -> Any:
    """Return the node with its last factor times `gain`, or None."""
    field = self.inner[-1]
    last = tree.scaled(getattr(self, field), gain)
    return None if last is None else self.replace(**{field: last})

  def scatter(self, keep: Array, axis: int, size: int) -> Any:
    """Return the node among zeros along its inputs or outputs, or None."""
    rank = len(getattr(self, self.inner[0]).shape)
    if axis < rank - 2:
      return None
    field = self.inner[0 if axis == rank - 2 else -1]
    part = getattr(self, field)
    if tree.is_node(part):
      part = part.scatter(keep, axis, size)
    else:
      part = tree.scattered(part, keep, axis, size)
    return None if part is None else self.replace(**{field: part})


@struct.dataclass
class LowRank(Factored):
  """A weight `u @ v`.

  Attributes:
    u: First kernel, `[h, w, in, rank]` (channel fold), `[h, 1, in, rank]`
      (spatial) or `[in, rank]` (dense).
    v: Second kernel, `[1, 1, rank, out]`, `[1, w, rank, out]` or
      `[rank, out]`.
  """

  trainable: ClassVar[tuple[str, ...]] = ('u', 'v')
  inner: ClassVar[tuple[str, ...]] = ('u', 'v')

  u: Any
  v: Any

  def decode(self) -> Array:
    """Return the product over the rank."""
    return product(self.u, self.v)


@struct.dataclass
class Tucker(Factored):
  """A convolution between two changes of channels.

  Attributes:
    u: `[1, 1, in, r]`.
    core: `[h, w, r, s]`.
    v: `[1, 1, s, out]`.
  """

  trainable: ClassVar[tuple[str, ...]] = ('u', 'core', 'v')
  inner: ClassVar[tuple[str, ...]] = ('u', 'core', 'v')

  u: Any
  core: Any
  v: Any

  def decode(self) -> Array:
    """Return the product."""
    return product(self.u, self.core, self.v)


@struct.dataclass
class Separable(Factored):
  """A convolution as a sum of `rank` products of one vector an axis.

  Attributes:
    u: `[1, 1, in, rank]`.
    rows: `[h, 1, 1, rank]`, depthwise.
    columns: `[1, w, 1, rank]`, depthwise.
    v: `[1, 1, rank, out]`.
  """

  trainable: ClassVar[tuple[str, ...]] = ('u', 'rows', 'columns', 'v')
  inner: ClassVar[tuple[str, ...]] = ('u', 'rows', 'columns', 'v')

  u: Any
  rows: Any
  columns: Any
  v: Any

  def decode(self) -> Array:
    """Return the product."""
    return product(self.u, self.rows, self.columns, self.v)


def is_depthwise(before: int, shape: tuple[int, ...]) -> bool:
  """Return whether a factor convolves each of `before` channels separately."""
  return before > 1 and shape[-2] == 1


def product(*kernels: Array) -> Array:
  """Return the kernel that is equivalent to layers applied in sequence.

  >>> product(jnp.ones((3, 1, 4, 2)), jnp.ones((1, 5, 2, 6))).shape
  (3, 5, 4, 6)
  """

  def link(one: Array, other: Array) -> Array:
    depthwise = is_depthwise(one.shape[-1], other.shape)
    return one * other if depthwise else one @ other

  return functools.reduce(link, kernels)


def folded(w: Array, fold: str) -> Array:
  """Return a kernel as the matrix that is approximated by a low rank.

  Args:
    w: `[..., in, out]`.
    fold: 'channel' for `[h w in, out]`; 'spatial' for `[h in, w out]`. Kernels
      without two spatial axes are always folded by channel.

  Returns:
    `[rows, columns]`.
  """
  shape = folded_shape(w.shape, fold)
  if fold == 'spatial' and w.ndim == 4:
    w = w.swapaxes(1, 2)
  return w.reshape(shape)


def folded_shape(shape: tuple[int, ...], fold: str) -> tuple[int, int]:
  """Return the rows and columns of `folded`.

  >>> folded_shape((3, 5, 4, 6), 'spatial')
  (12, 30)
  """
  if fold == 'spatial' and len(shape) == 4:
    h, side, inputs, outputs = shape
    return h * inputs, side * outputs
  return math.prod(shape[:-1]), shape[-1]


def unfolded(u: Array, v: Array, shape: tuple[int, ...], fold: str) -> LowRank:
  """Return the factors of a folded matrix as kernels.

  Args:
    u: `[rows, rank]`.
    v: `[rank, columns]`.
    shape: Of the weight.
    fold: How it was folded.

  Returns:
    The node.
  """
  rank = u.shape[1]
  if fold == 'spatial' and len(shape) == 4:
    h, side, inputs, outputs = shape
    second = v.reshape(rank, side, outputs).transpose(1, 0, 2)
    return LowRank(u.reshape(h, 1, inputs, rank), second[None])
  ones = (1,) * (len(shape) - 2)
  return LowRank(
    u.reshape(*shape[:-1], rank), v.reshape(*ones, rank, shape[-1])
  )


def truncated(w: Array, rank: int, fold: str = 'channel') -> LowRank:
  r"""Return the nearest weight of a rank, $U_r \sqrt{S}, \sqrt{S} V_r^T$.

  Args:
    w: `[..., in, out]`.
    rank: From 1 to the smaller side of the folded matrix.
    fold: See `folded`.

  Returns:
    The node, whose factors have equal norms, in the type of `w`.
  """
  return _of_rank(w, *_decomposed(w, fold), rank, fold)


@functools.partial(jax.jit, static_argnames='fold')
def _decomposed(w: Array, fold: str) -> tuple[Array, Array, Array]:
  """Return singular vectors and the roots of the values; one for all ranks."""
  values, unit = scaling.scaled(w, 2)
  u, s, v = jnp.linalg.svd(folded(values, fold), full_matrices=False)
  return u, jnp.sqrt(s) * unit, v


@functools.partial(jax.jit, static_argnames=('rank', 'fold'))
def _of_rank(
  w: Array, u: Array, root: Array, v: Array, rank: int, fold: str
) -> LowRank:
  return unfolded(
    (u[:, :rank] * root[:rank]).astype(w.dtype),
    (root[:rank, None] * v[:rank]).astype(w.dtype),
    w.shape,
    fold,
  )


@jax.jit
def singular_values(node: Any) -> Array:
  """Return the singular values of a product made by `truncated`, `[rank]`.

  They are relative to the largest one, and 0 for a product that is 0.
  """
  u, _ = scaling.scaled(node.u)
  # The factors hold the roots of the singular values.
  values = jnp.sum(u**2, axis=tuple(range(u.ndim - 1)))
  return values / jnp.where(values[0] > 0, values[0], 1)


@functools.partial(jax.jit, static_argnames=('ranks', 'sweeps'))
def tucker(w: Array, ranks: tuple[int, int], sweeps: int = 3) -> Tucker:
  r"""Return a convolution with fewer channels on both sides.

  Higher-order orthogonal iteration on the two channel axes (Kim+ 2016, arXiv
  1511.06530, equation 3, solved by De Lathauwer+ 2000).

  Args:
    w: `[h, w, in, out]`.
    ranks: Remaining channels $r$ of the inputs and $s$ of the outputs. Beyond
      $r = h w s$ or $s = h w r$ more channels would change nothing: they are
      reduced to that.
    sweeps: How often each side is solved for the other.

  Returns:
    The node, in the type of `w`.
  """
  values, unit = scaling.scaled(w, 3)
  area = math.prod(w.shape[:-2])
  before, after = min(ranks[0], area * ranks[1]), min(ranks[1], area * ranks[0])
  flat = values.reshape(-1, *w.shape[-2:])
  v = _leading(flat, -1, after)
  for _ in range(sweeps):
    u = _leading(flat @ v, -2, before)
    v = _leading(u.T @ flat, -1, after)
  u = _leading(flat @ v, -2, before)
  core = (u.T @ flat @ v).reshape(*w.shape[:-2], before, after)
  ones = (1,) * (w.ndim - 2)
  parts = u.reshape(*ones, *u.shape), core, v.T.reshape(*ones, *v.T.shape)
  return Tucker(*((x * unit).astype(w.dtype) for x in parts))


def _leading(x: Array, axis: int, rank: int) -> Array:
  """Return the leading left singular vectors of an unfolding."""
  side = jnp.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)
  return jnp.linalg.svd(side, full_matrices=False)[0][:, :rank]
