"""Binary weights: signs and a scale, with latent floats in training."""

from typing import Any, ClassVar

import jax.numpy as jnp
from flax import struct

from compress import kinds, tree
from compress.binary import straight_through as straight_through_lib
from compress.binary.inputs import first_and_last, map_except
from compress.errors import expect_name
from compress.method import Ctx, Method
from compress.quantize.affine import straight_through
from compress.quantize.integer_codes import Quantized
from compress.tree import Array, Compressed, Key, Params, Path

SCALES = ('filter', 'layer', 'none')


@struct.dataclass
class LatentSigns(Compressed):
  """A latent float weight that is binarize in the forward pass.

  Attributes:
    w: The latent weight `[..., channels]`, in [-1, 1] after an update.
    alpha: Scale of the signs, `[channels]` or `()`, or None for 1; computed
      from `w` in `update`.
    stochastic: Whether signs are sampled in training.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  inner: ClassVar[tuple[str, ...]] = ('w',)
  kind: ClassVar[str] = kinds.SIGNS
  bits: ClassVar[int] = 1

  w: Any
  alpha: Array | None
  stochastic: bool = struct.field(pytree_node=False)

  @property
  def trains_otherwise(self) -> bool:
    """Whether training decodes to another array: to sampled signs."""
    return self.stochastic

  def decode(self) -> Array:
    """Return the scaled signs, with the gradients of signs and scale."""
    return self._scaled(straight_through_lib.clipped(self.w))

  def decode_training(self, key: Key | None) -> Array:
    """Return the scaled signs, sampled if they are stochastic."""
    if not self.stochastic:
      return self.decode()
    key = tree.expect_key('binary.weights', key)
    return self._scaled(straight_through_lib.stochastic(self.w, key))

  def _scaled(self, signs: Array) -> Array:
    if self.alpha is None:
      return signs
    return signs * straight_through(
      self.alpha, mean_magnitude(self.w, self.alpha)
    )

  def clipped(self) -> 'LatentSigns':
    """Return the node with `w` clipped to [-1, 1] and `alpha` updated."""
    w = self.w if tree.is_node(self.w) else jnp.clip(self.w, -1, 1)
    return self.replace(w=w, alpha=self.optimal_scale(tree.decode(w)))

  def optimal_scale(self, w: Array) -> Array | None:
    """Return the scale of a latent weight."""
    return None if self.alpha is None else mean_magnitude(w, self.alpha)

  def freeze(self) -> 'Binarized':
    """Return the signs as bits."""
    return Binarized(tree.decode(self.w) >= 0, self.alpha)


@struct.dataclass
class Binarized(Compressed):
  """A weight of one bit per entry, as it is stored and deployed.

  Attributes:
    signs: `[..., channels]` bool, True for +1 and False for -1.
    scale: `[channels]` or `()` float32 of any sign, or None for 1.
  """

  kind: ClassVar[str] = kinds.SIGNS
  bits: ClassVar[int] = 1

  signs: Array
  scale: Array | None

  def decode(self) -> Array:
    """Return the signs times the scale."""
    factor = self.factor()
    return jnp.where(self.signs, factor, -factor)

  def factor(self) -> Array:
    """Return the scale, 1 if it is None."""
    return jnp.float32(1) if self.scale is None else self.scale

  def ternary(self) -> Quantized:
    """Return the weight as two-bit codes, which can be 0."""
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
    """Return the node times `gain`; the signs do not change."""
    return self.replace(scale=self.factor() * gain)


def mean_magnitude(w: Array, like: Array, weight: Array | None = None) -> Array:
  r"""Return the mean magnitude of a weight, $\sum d |w| / \sum d$.

  Args:
    w: `[..., channels]`.
    like: `[channels]` for one mean per channel, `()` for one of all entries.
    weight: d, the shape of `w` and positive; None for 1.

  Returns:
    The shape of `like`.

  >>> w = jnp.array([[1.0, 2.0], [-3.0, 0.0]])
  >>> mean_magnitude(w, jnp.zeros(2)).tolist()
  [2.0, 1.0]
  """
  axes = tuple(range(w.ndim - like.ndim))
  if weight is None:
    return jnp.mean(jnp.abs(w), axes)
  return jnp.sum(weight * jnp.abs(w), axes) / jnp.sum(weight, axes)


def weights(
  *, scale: str = 'filter', stochastic: bool = False, ends: bool = True
) -> Method:
  r"""Train binary weights, $w_b = \alpha \, \mathrm{sign}(w)$.

  The sign of 0 is +1, its gradient is that of hard tanh, and $w$ is clipped to
  [-1, 1] after each step. Without a scale this is BinaryConnect and BNN
  (Courbariaux & Hubara+ 2016, arXiv 1602.02830, algorithm 1). The scale
  $\alpha = \mathrm{mean} |w|$ minimizes the distance between $w_b$ and $w$
  (Rastegari+ 2016, arXiv 1603.05279, equation 6) and has a gradient too. A
  packed weight takes one bit.

  Args:
    scale: One $\alpha$ per 'filter' or per 'layer', or 'none' for 1.
    stochastic: Whether +1 is sampled in training with probability
      $\mathrm{clip}((w + 1) / 2, 0, 1)$; the deployed signs are deterministic.
    ends: Whether to binarize the first and the last weight too.

  Returns:
    The method. Chain pruning methods before it.

  Raises:
    ValueError: If the scale is unknown, a weight is quantized already, or, with
      `ends=False`, there is no probe that gives the order of the layers or no
      other weight.
  """
  where = 'binary.weights'
  expect_name(where, 'scale', scale, SCALES)

  def wrap(path: Path, w: Array) -> LatentSigns:
    del path
    return LatentSigns(w, initial_scale(w, scale), stochastic)

  def init(params: Params, ctx: Ctx) -> Params:
    return binarize(where, wrap, ends, params, ctx)

  return Method(init, clip)


def clip(params: Params, ctx: Ctx) -> Params:
  """Clip all latent weights to [-1, 1] and update their scales."""
  del ctx
  return tree.map_nodes(LatentSigns, lambda _, node: node.clipped(), params)


def initial_scale(w: Array, scale: str) -> Array | None:
  """Return the initial scale of a weight, None for 'none'."""
  if scale == 'none':
    return None
  shape = w.shape[-1:] if scale == 'filter' else ()
  return mean_magnitude(w, jnp.zeros(shape, w.dtype))


def binarize(
  where: str, wrap: Any, ends: bool, params: Params, ctx: Ctx
) -> Params:
  """Replace each weight by a node of signs.

  Args:
    where: Name of the caller, for error messages.
    wrap: Path, array -> node.
    ends: Whether to binarize the first and the last weight too.
    params: A tree of arrays and nodes.
    ctx: Context with a probe, unless `ends`.

  Returns:
    The tree.

  Raises:
    ValueError: If a weight is quantized already, or no weight is left.
  """
  kinds.refuse(where, kinds.SIGNS, params)
  skip = set() if ends else {*first_and_last(where, ctx)}
  return map_except(where, skip, wrap, params)
