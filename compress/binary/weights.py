"""Binary weights: signs and a scale, trained through the floats behind them."""

from typing import Any, ClassVar

import jax.numpy as jnp
from flax import struct

from compress import kinds, tree
from compress.binary import straight_through as straight_through_lib
from compress.binary.inputs import map_others, outer
from compress.errors import expect_name
from compress.method import Ctx, Method
from compress.quantize.affine import straight_through
from compress.quantize.integer_codes import Quantized
from compress.tree import Array, Compressed, Key, Params, Path

SCALES = ('filter', 'layer', 'none')


@struct.dataclass
class Binarizing(Compressed):
  """A float weight trained through its signs.

  Attributes:
    w: The latent weight `[..., channels]`, in [-1, 1] once updated.
    alpha: What the signs are multiplied by, `[channels]` or `()`, or None;
      follows `w` in `update`.
    stochastic: Whether signs are drawn in training.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  inner: ClassVar[tuple[str, ...]] = ('w',)
  kind: ClassVar[str] = kinds.SIGNS
  bits: ClassVar[int] = 1

  w: Any
  alpha: Array | None
  stochastic: bool = struct.field(pytree_node=False)

  @property
  def needs_key(self) -> bool:
    """Whether training decodes to another array: to drawn signs."""
    return self.stochastic

  def decode(self, key: Key | None) -> Array:
    """Return the scaled signs; the gradient reaches `w` through both."""
    if self.stochastic and key is not None:
      signs = straight_through_lib.drawn(self.w, key)
    else:
      signs = straight_through_lib.clipped(self.w)
    if self.alpha is None:
      return signs
    return signs * straight_through(self.alpha, size_of(self.w, self.alpha))

  def settled(self) -> 'Binarizing':
    """Return the node with `w` clipped to [-1, 1] and `alpha` that of `w`."""
    w = self.w if tree.is_node(self.w) else jnp.clip(self.w, -1, 1)
    return self.replace(w=w, alpha=self.measured(tree.decode(w)))

  def measured(self, w: Array) -> Array | None:
    """Return the scale of a latent weight."""
    return None if self.alpha is None else size_of(w, self.alpha)

  def freeze(self) -> 'Binarized':
    """Return the signs as bits."""
    return Binarized(tree.decode(self.w) >= 0, self.alpha)


@struct.dataclass
class Binarized(Compressed):
  """A weight as one bit an entry: what is stored and served.

  Attributes:
    signs: `[..., channels]` bool, True for +1 and False for -1.
    scale: `[channels]` or `()` float32 of any sign, or None for 1.
  """

  kind: ClassVar[str] = kinds.SIGNS
  bits: ClassVar[int] = 1

  signs: Array
  scale: Array | None

  def decode(self, key: Key | None) -> Array:
    """Return the signs times the scale."""
    del key
    factor = self.factor()
    return jnp.where(self.signs, factor, -factor)

  def factor(self) -> Array:
    """Return the scale, 1 where there is none."""
    return jnp.float32(1) if self.scale is None else self.scale

  def ternary(self) -> Quantized:
    """Return the node with codes that can also be 0, in two bits."""
    codes = jnp.where(self.signs, 1, -1).astype(jnp.int8)
    scale = jnp.broadcast_to(self.factor(), codes.shape[-1:])
    return Quantized(codes, scale, None, 2)

  def apply_mask(self, mask: Array) -> Quantized:
    """Return ternary codes, 0 where `mask` is False."""
    return self.ternary().apply_mask(mask)

  def scatter(self, keep: Array, axis: int, size: int) -> Quantized:
    """Return ternary codes, 0 along an axis except at `keep`."""
    return self.ternary().scatter(keep, axis, size)

  def scale_channels(self, gain: Array) -> 'Binarized':
    """Return the node times `gain`; the bits stay."""
    return self.replace(scale=self.factor() * gain)


def size_of(w: Array, like: Array, weight: Array | None = None) -> Array:
  r"""Return the mean size of a weight, $\sum d |w| / \sum d$.

  Args:
    w: `[..., channels]`.
    like: `[channels]` for one mean a channel, `()` for one of all.
    weight: d, of the shape of `w` and positive; None for equal ones.

  Returns:
    The shape of `like`.

  >>> size_of(jnp.array([[1.0, 2.0], [-3.0, 0.0]]), jnp.zeros(2)).tolist()
  [2.0, 1.0]
  """
  axes = tuple(range(w.ndim - like.ndim))
  if weight is None:
    return jnp.mean(jnp.abs(w), axes)
  return jnp.sum(weight * jnp.abs(w), axes) / jnp.sum(weight, axes)


def weights(
  *, scale: str = 'filter', stochastic: bool = False, ends: bool = True
) -> Method:
  r"""Train weights through their signs, $w_b = \alpha \, \mathrm{sign}(w)$.

  The signs are +1 from 0 upwards, their gradient is passed on where
  $|w| \leq 1$, and after each step $w$ is clipped to [-1, 1]: without a scale
  this is BinaryConnect and BNN (Courbariaux & Hubara+ 2016, arXiv 1602.02830,
  algorithm 1). The scale $\alpha = \mathrm{mean} |w|$ is the one for which
  $w_b$ is nearest to $w$ (Rastegari+ 2016, arXiv 1603.05279, equation 6); the
  gradient also passes through it. A packed weight takes one bit.

  Args:
    scale: One $\alpha$ a 'filter' or a 'layer', or 'none' for 1.
    stochastic: Whether +1 is drawn in training with probability
      $\mathrm{clip}((w + 1) / 2, 0, 1)$; the deployed signs are not.
    ends: Whether the first and the last weight become binary too.

  Returns:
    The method. What prunes comes before it in a chain.

  Raises:
    ValueError: If the scale is none, a weight has a grid already, or, with
      `ends=False`, there is no probe to tell the ends or no other weight.
  """
  where = 'binary.weights'
  expect_name(where, 'scale', scale, SCALES)

  def wrap(path: Path, w: Array) -> Binarizing:
    del path
    return Binarizing(w, started(w, scale), stochastic)

  def init(params: Params, ctx: Ctx) -> Params:
    return binarized(where, wrap, ends, params, ctx)

  return Method(init, settle)


def settle(params: Params, ctx: Ctx) -> Params:
  """Clip every weight behind signs to [-1, 1] and measure it again."""
  del ctx
  return tree.map_nodes(Binarizing, lambda _, node: node.settled(), params)


def started(w: Array, scale: str) -> Array | None:
  """Return the first scale of a weight, None without one."""
  if scale == 'none':
    return None
  shape = w.shape[-1:] if scale == 'filter' else ()
  return size_of(w, jnp.zeros(shape, w.dtype))


def binarized(
  where: str, wrap: Any, ends: bool, params: Params, ctx: Ctx
) -> Params:
  """Put a node of signs on each weight.

  Args:
    where: Who asks, for errors.
    wrap: Path, array -> node.
    ends: Whether the first and the last weight get one too.
    params: A tree of arrays and nodes.
    ctx: With a probe, unless `ends`.

  Returns:
    The tree.

  Raises:
    ValueError: If a weight has a grid already, or no weight is left.
  """
  kinds.refuse(where, kinds.SIGNS, params)
  skip = set() if ends else {*outer(where, ctx)}
  return map_others(where, skip, wrap, params)
