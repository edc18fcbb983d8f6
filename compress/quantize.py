"""Quantization: uniform grids trained with a straight-through gradient."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from compress import clip as clips
from compress import grid as grids
from compress import seen, tree
from compress.clip import Clip
from compress.codes import Half, Inputs, Quantized, Shifted, stored
from compress.grid import (
  Per,
  affine,
  encode,
  straight_through,
  symmetric_scale,
)
from compress.mask import due
from compress.method import Ctx, Method
from compress.tree import Array, Compressed, Key, Params, Path

__all__ = [
  'Half',
  'Halving',
  'Inputs',
  'Quantized',
  'Quantizing',
  'Shifted',
  'affine',
  'encode',
  'grid',
  'half',
  'int8',
  'refuse_grids',
  'straight_through',
  'symmetric_scale',
  'ternary',
]

CLIPS = 20  # how often clips follow the weights in one run


@struct.dataclass
class Quantizing(Compressed):
  """A float weight trained through its grid (fake quantization).

  With a step for each channel or group, the grid of w times a gain per channel
  is that of w times the gain, code by code: folding a norm into a quantized
  weight later is the same as quantizing the folded one, up to the rounding of
  floats. So no gain need be folded in training (Jacob+ 2018, section 3.2).

  Attributes:
    w: The latent weight `[..., channels]`.
    inputs: The grid of the layer's input, or None to leave inputs alone.
    bits: Width of the weight's grid.
    share: How much of the range of w the grid spans, by column of the grid;
      None is all.
    reach: How much of the range of the inputs theirs does, `()`; None is all.
    per: What shares a step; see `grid.columns`.
    symmetric: Whether 0 is in the middle of the grid.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  inner: ClassVar[tuple[str, ...]] = ('w',)

  w: Any
  inputs: Any
  bits: int = struct.field(pytree_node=False)
  share: Array | None = None
  reach: Array | None = None
  per: Per = struct.field(pytree_node=False, default='channel')
  symmetric: bool = struct.field(pytree_node=False, default=True)

  def decode(self, key: Key | None) -> Array:
    """Return the weight on its grid, with a straight-through gradient."""
    del key
    return straight_through(grids.decoded(*self.coded()), self.w)

  def coded(self) -> grids.Coded:
    """Return the codes and the grid."""
    return grids.coded(self.w, self.bits, self.per, self.share, self.symmetric)

  def meet(self, x: Array) -> Array:
    """Return the layer input on its grid."""
    x = super().meet(x)
    return self.inputs.round(x) if self.inputs else x

  def freeze(self) -> Any:
    """Return the integer codes and their scale."""
    if tree.is_node(self.w):
      return self
    return stored(self.coded(), self.inputs, self.bits)


def grid(
  weight_bits: int = 8,
  activation_bits: int = 0,
  *,
  per: Per = 'channel',
  symmetric: bool = True,
  clip: Clip = 'absmax',
  activation_clip: Clip = 'absmax',
  momentum: float = 0.99,
  settle: float = 1.0,
  examples: int = 256,
) -> Method:
  """Quantize weights, and the inputs that meet them, to uniform grids.

  Without training this is post-training quantization with calibrated input
  ranges; with training it is quantization-aware training (Jacob+ 2018, arXiv
  1712.05877): latent float weights, straight-through gradient, input ranges
  that follow an exponential mean. Clips are shares of a range, chosen at the
  start; that of the weights is chosen anew `CLIPS` times in a run, that of the
  inputs is kept while the range moves.

  Args:
    weight_bits: Width of the weight grid, 2 to 16.
    activation_bits: Width of the affine grid of layer inputs, 2 to 16; 0
      leaves the inputs alone.
    per: What shares a step: 'channel' (of the output), 'tensor', or how many
      consecutive inputs of a channel do.
    symmetric: Whether 0 is the middle code of the weight grid; else the grid
      spans the range of the weights, 0 being one of the codes.
    clip: How much of their range the weights' grids span: 'absmax' (all),
      'mse', 'kl', 'percentile', or the share of them that is inside.
    activation_clip: The same for layer inputs; all but 'absmax' need a probe.
    momentum: Share of the old input range kept at each step.
    settle: Fraction of the run after which input ranges stay as they are.
    examples: Calibration examples whose inputs `activation_clip` looks at.

  Returns:
    The method.

  Raises:
    ValueError: If a width or another argument is impossible, a weight is
      quantized already, or ranges are wanted without calibration statistics,
      or of inputs that are not finite or all alike.
  """
  where = 'quantize.grid'
  grids.expect_bits(where, 'weight_bits', weight_bits)
  if activation_bits:
    grids.expect_bits(where, 'activation_bits', activation_bits)
  grids.expect_per(where, per)
  clips.expect(where, clip)
  clips.expect(where, activation_clip)
  _expect_part('momentum', momentum, 'the old range kept at each step')
  _expect_part('settle', settle, 'the run in which ranges move')

  def shares(w: Array) -> Array | None:
    if clip == 'absmax':
      return None
    values = grids.columns(w, per)
    return clips.share(clip, values, weight_bits, symmetric)

  def init(params: Params, ctx: Ctx) -> Params:
    refuse_grids(where, params)
    ranges = input_ranges(where, ctx, activation_bits)
    reach = _reach(params, ctx, activation_bits, activation_clip, examples)

    def wrap(path: Path, w: Array) -> Quantizing:
      inputs, part = ranges(path), reach.get(path)
      if inputs is not None and part is not None:
        inputs = Inputs(inputs.low * part, inputs.high * part, inputs.bits)
      return Quantizing(w, inputs, weight_bits, shares(w), part, per, symmetric)

    return tree.map_arrays(wrap, params)

  def update(params: Params, ctx: Ctx) -> Params:
    held = jnp.where(ctx.progress <= settle, momentum, 1.0)

    def follow(path: Path, node: Quantizing) -> Quantizing:
      observed = (ctx.stats or {}).get(path)
      if node.inputs is None or observed is None:
        return node
      if node.reach is not None:
        observed = observed * node.reach
      return node.replace(inputs=node.inputs.follow(observed, held))

    def clipped(path: Path, node: Quantizing) -> Quantizing:
      w = tree.decode(node.w)
      share = jax.lax.cond(
        due(ctx, CLIPS), lambda: shares(w), lambda: node.share
      )
      return node.replace(share=share)

    params = tree.map_nodes(Quantizing, follow, params)
    if clip == 'absmax':
      return params
    return tree.map_nodes(Quantizing, clipped, params)

  return Method(init, update)


def int8(*, momentum: float = 0.99) -> Method:
  """Quantize weights and activations to 8 bits: `grid(8, 8)`."""
  return grid(8, 8, momentum=momentum)


def ternary(
  activation_bits: int = 0, *, per: Per = 'channel', momentum: float = 0.99
) -> Method:
  r"""Quantize weights to $\{-\alpha, 0, \alpha\}$, the best of such grids.

  Ternary weight networks (Li+ 2016, arXiv 1605.04711, equations 3 to 6) with
  the threshold found exactly; see `clip.ternary`.

  Args:
    activation_bits: As `grid`.
    per: As `grid`; the paper has one step a tensor.
    momentum: As `grid`.

  Returns:
    The method.

  Raises:
    ValueError: As `grid`.
  """
  return grid(2, activation_bits, per=per, clip='ternary', momentum=momentum)


@struct.dataclass
class Halving(Compressed):
  """A float weight trained through 16-bit floats.

  Attributes:
    w: The latent weight.
    dtype: 'float16' or 'bfloat16'.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  inner: ClassVar[tuple[str, ...]] = ('w',)

  w: Any
  dtype: str = struct.field(pytree_node=False)

  @property
  def bits(self) -> int:
    """Width of a number."""
    return 16

  def _halves(self) -> Array:
    top = float(jnp.finfo(self.dtype).max)
    return jnp.clip(self.w, -top, top).astype(self.dtype)

  def decode(self, key: Key | None) -> Array:
    """Return the rounded weight, with a straight-through gradient."""
    del key
    return straight_through(self._halves().astype(self.w.dtype), self.w)

  def freeze(self) -> Any:
    """Return the 16-bit floats."""
    if tree.is_node(self.w):
      return self
    x = self._halves()
    if self.dtype == 'bfloat16':  # which NumPy and so the file do not have
      x = jax.lax.bitcast_convert_type(x, jnp.uint16)
    return Half(x)


def half(dtype: str = 'float16') -> Method:
  """Store weights as 16-bit floats, what is too large as the largest.

  Args:
    dtype: 'float16' (11 bits of precision, up to 65504) or 'bfloat16' (8 bits,
      the range of float32).

  Returns:
    The method.

  Raises:
    ValueError: If the type is another or a weight is quantized already.
  """
  if dtype not in ('float16', 'bfloat16'):
    raise ValueError(
      f"quantize.half: expected 'float16' or 'bfloat16', got {dtype!r}."
    )

  def init(params: Params, ctx: Ctx) -> Params:
    refuse_grids('quantize.half', params)
    return tree.map_arrays(lambda path, w: Halving(w, dtype), params)

  return Method(init)


def input_ranges(
  where: str, ctx: Ctx, bits: int
) -> Callable[[Path], Inputs | None]:
  """Return the input grid of each weight, by the calibrated range.

  Args:
    where: Who asks, for errors.
    ctx: With calibration statistics, unless `bits` is 0.
    bits: Width of the grids; 0 is none.

  Returns:
    A function of a path, giving `Inputs` or None; it raises ValueError where
    the range is not known, not finite or one point.
  """

  def ranged(path: Path) -> Inputs | None:
    if not bits:
      return None
    observed = (ctx.stats or {}).get(path)
    if observed is None:
      raise ValueError(
        f'{where} at {path}: expected calibration statistics of the '
        f'input, got {sorted(ctx.stats or {})}. Run `forward.apply` on a few '
        'batches and pass Ctx(stats=...), or set activation_bits=0.'
      )
    if not isinstance(observed, jax.core.Tracer):
      low, high = np.asarray(observed).tolist()
      grids.expect_range(where, path, low, high)
    return Inputs(jnp.float32(observed[0]), jnp.float32(observed[1]), bits)

  return ranged


def _reach(
  params: Params, ctx: Ctx, bits: int, clip: Clip, examples: int
) -> dict[Path, Array]:
  """Return the share of each input's range that its grid should span."""
  if not bits or clip == 'absmax':
    return {}
  found = seen.sample('quantize.grid', ctx, params, examples)
  return {
    path: clips.share(clip, x, bits, symmetric=False)
    for path, x in found.items()
  }


def _expect_part(what: str, part: float, meaning: str) -> None:
  if not 0 <= part <= 1:
    raise ValueError(
      f'quantize.grid: expected a {what} in [0, 1], got {part!r}. It is the '
      f'share of {meaning}.'
    )


def refuse_grids(where: str, params: Params) -> None:
  """Check that no weight is quantized.

  Raises:
    ValueError: If one is: two grids on one weight are a mistake.
  """

  def refuse(path: Path, node: Compressed) -> Compressed:
    if hasattr(node, 'bits'):
      raise ValueError(
        f'{where}: expected weights that are not quantized yet, got a '
        f'grid at {path}. Give each weight one quantization method; '
        "`only('path', ...)` tells them apart."
      )
    return node

  tree.map_nodes(Compressed, refuse, params)
