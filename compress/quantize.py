"""Quantization: uniform grids trained with a straight-through gradient."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from compress import tree
from compress.method import Ctx, Method
from compress.tree import Array, Compressed, Key, Params, Path


def straight_through(grid: Array, x: Array) -> Array:
  """Return `grid` bit for bit, with the gradient of `x`.

  `x + (grid - x)` would round twice; adding `x - x = 0` does not.
  """
  return jax.lax.stop_gradient(grid) + (x - jax.lax.stop_gradient(x))


def symmetric_scale(w: Array, bits: int) -> Array:
  r"""Return the step of a symmetric grid, one per output channel.

  $s_c = \max_{i} |w_{ic}| / (2^{b-1} - 1)$; 1 for a channel that is all zero.

  Args:
    w: Weight `[..., channels]`.
    bits: Width of the grid; the lowest code is not used, so that the grid is
      symmetric (Jacob+ 2018, arXiv 1712.05877, section 3).

  Returns:
    `[channels]`, positive.
  """
  top = jnp.max(jnp.abs(w), axis=tuple(range(w.ndim - 1)))
  scale = top / (2 ** (bits - 1) - 1)
  return jnp.where(scale > 0, scale, 1.0)  # a tiny top underflows as well


def encode(w: Array, scale: Array, bits: int) -> Array:
  """Return the codes `round(w / scale)` inside the grid, as floats."""
  top = 2 ** (bits - 1) - 1
  return jnp.clip(jnp.round(w / scale), -top, top)


def affine(x: Array, low: Array, high: Array, bits: int) -> Array:
  r"""Round `x` to an affine grid over `[low, high]` that contains 0.

  $q = \mathrm{clip}(\mathrm{round}(x / s) + z)$, result $s (q - z)$, with the
  zero point $z$ nudged to an integer (Jacob+ 2018, equation 12). The gradient
  is 1 inside the range and 0 outside.

  Args:
    x: Any shape.
    low: `()`, at most 0 once nudged.
    high: `()`, at least 0 once nudged.
    bits: Width of the grid.

  Returns:
    `x` on the grid.
  """
  low, high = jnp.minimum(low, 0.0), jnp.maximum(high, 0.0)
  top = 2**bits - 1
  scale = (high - low) / top
  scale = jnp.where(scale > 0, scale, 1.0)
  zero = jnp.clip(jnp.round(-low / scale), 0, top)
  code = jnp.clip(jnp.round(x / scale) + zero, 0, top)
  inside = jnp.clip(x, scale * (0 - zero), scale * (top - zero))
  return straight_through(scale * (code - zero), inside)


@struct.dataclass
class Inputs:
  """The grid that a layer's input is rounded to before it meets the weight.

  Attributes:
    low: Smallest value of the range, `()`.
    high: Largest value of the range, `()`.
    bits: Width of the grid.
  """

  low: Array
  high: Array
  bits: int = struct.field(pytree_node=False)

  def round(self, x: Array) -> Array:
    """Return `x` on the grid."""
    return affine(x, self.low, self.high, self.bits)

  def follow(self, seen: Array, momentum: float) -> 'Inputs':
    """Move the range towards `seen = [min, max]` by an exponential mean."""
    low, high = (
      momentum * old + (1 - momentum) * new
      for old, new in ((self.low, seen[0]), (self.high, seen[1]))
    )
    return Inputs(low, high, self.bits)


@struct.dataclass
class Quantizing(Compressed):
  """A float weight trained through its grid (fake quantization).

  Attributes:
    w: The latent weight `[..., channels]`.
    inputs: The grid of the layer's input, or None to leave inputs alone.
    bits: Width of the weight's grid.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  inner: ClassVar[tuple[str, ...]] = ('w',)

  w: Any
  inputs: Inputs | None
  bits: int = struct.field(pytree_node=False)

  def decode(self, key: Key | None) -> Array:
    """Return the weight on its grid, with a straight-through gradient."""
    del key
    scale = symmetric_scale(self.w, self.bits)
    return straight_through(encode(self.w, scale, self.bits) * scale, self.w)

  def meet(self, x: Array) -> Array:
    """Return the layer input on its grid."""
    return self.inputs.round(x) if self.inputs else x

  def freeze(self) -> 'Quantized | Quantizing':
    """Return the integer codes and their scale."""
    if tree.is_node(self.w):
      return self
    scale = symmetric_scale(self.w, self.bits)
    width = jnp.int8 if self.bits <= 8 else jnp.int16
    codes = encode(self.w, scale, self.bits).astype(width)
    return Quantized(codes, scale, self.inputs, self.bits)


@struct.dataclass
class Quantized(Compressed):
  """A weight as integer codes: what is stored and served.

  Attributes:
    codes: int8 or int16 `[..., channels]`, in
      `[-(2**(bits-1) - 1), 2**(bits-1) - 1]`.
    scale: `[channels]` float32.
    inputs: The grid of the layer's input, or None.
    bits: Width of a code.
  """

  codes: Array
  scale: Array
  inputs: Inputs | None
  bits: int = struct.field(pytree_node=False)

  def decode(self, key: Key | None) -> Array:
    """Return `codes * scale`."""
    del key
    return self.codes.astype(self.scale.dtype) * self.scale

  def meet(self, x: Array) -> Array:
    """Return the layer input on its grid."""
    return self.inputs.round(x) if self.inputs else x

  def zeroed(self, mask: Array) -> 'Quantized':
    """Return the node with code 0 where `mask` is False."""
    return self.replace(codes=jnp.where(mask, self.codes, 0))

  def spread(self, keep: Array, axis: int, size: int) -> 'Quantized':
    """Return the node with code 0 along an axis except at `keep`."""
    codes = tree.scattered(self.codes, keep, axis, size)
    scale = self.scale
    if axis == self.codes.ndim - 1:
      scale = tree.scattered(scale, keep, 0, size, fill=1)
    return self.replace(codes=codes, scale=scale)

  def scaled(self, gain: Array) -> 'Quantized':
    """Return the node times `gain`; the codes stay."""
    return self.replace(scale=self.scale * gain)


def grid(
  weight_bits: int = 8,
  activation_bits: int = 0,
  *,
  momentum: float = 0.99,
) -> Method:
  """Quantize weights, and the inputs that meet them, to uniform grids.

  Without training this is post-training quantization with absmax weights and
  calibrated input ranges; with training it is quantization-aware training
  (Jacob+ 2018, arXiv 1712.05877): latent float weights, straight-through
  gradient, input ranges that follow an exponential mean.

  Args:
    weight_bits: Width of the symmetric per-channel weight grid, 2 to 16.
    activation_bits: Width of the affine grid of layer inputs, 2 to 16; 0
      leaves the inputs alone.
    momentum: Share of the old range kept at each step.

  Returns:
    The method.

  Raises:
    ValueError: If a width or the momentum is impossible, a weight is quantized
      already, or ranges are wanted without calibration statistics.
  """
  _check_bits('weight_bits', weight_bits, (2, 16))
  if activation_bits:
    _check_bits('activation_bits', activation_bits, (2, 16))
  if not 0 <= momentum <= 1:
    raise ValueError(
      f'quantize.grid: expected a momentum in [0, 1], got {momentum!r}. It is '
      'the share of the old range kept at each step.'
    )

  def init(params: Params, ctx: Ctx) -> Params:
    _refuse_grids(params)

    def wrap(path: Path, w: Array) -> Quantizing:
      inputs = _inputs(path, ctx, activation_bits) if activation_bits else None
      return Quantizing(w, inputs, weight_bits)

    return tree.map_arrays(wrap, params)

  def update(params: Params, ctx: Ctx) -> Params:
    def follow(path: Path, node: Quantizing) -> Quantizing:
      seen = (ctx.stats or {}).get(path)
      if node.inputs is None or seen is None:
        return node
      return node.replace(inputs=node.inputs.follow(seen, momentum))

    return tree.map_nodes(Quantizing, follow, params)

  return Method(init, update)


def int8(*, momentum: float = 0.99) -> Method:
  """Quantize weights and activations to 8 bits: `grid(8, 8)`."""
  return grid(8, 8, momentum=momentum)


def _inputs(path: Path, ctx: Ctx, bits: int) -> Inputs:
  seen = (ctx.stats or {}).get(path)
  if seen is None:
    raise ValueError(
      f'quantize.grid at {path}: expected calibration statistics of the '
      f'input, got {sorted(ctx.stats or {})}. Run `forward.apply` on a few '
      'batches and pass Ctx(stats=...), or set activation_bits=0.'
    )
  return Inputs(jnp.float32(seen[0]), jnp.float32(seen[1]), bits)


def _check_bits(what: str, bits: int, allowed: tuple[int, int]) -> None:
  low, high = allowed
  if not (isinstance(bits, int) and low <= bits <= high):
    raise ValueError(
      f'quantize.grid: expected {what} from {low} to {high}, got {bits!r}.'
    )


def _refuse_grids(params: Params) -> None:
  for kind in (Quantizing, Quantized):
    for path in tree.find(kind, params):
      raise ValueError(
        f'quantize.grid: expected weights that are not quantized yet, got a '
        f'grid at {path}. Give each weight one quantization method; '
        "`only('path', ...)` tells them apart."
      )
