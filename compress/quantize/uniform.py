"""Quantization: uniform grids trained with a straight-through gradient."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from compress import calibration, tree
from compress.method import Ctx, Method
from compress.prune.masked import due
from compress.quantize import affine as grids
from compress.quantize import observers as clips
from compress.quantize.affine import (
  Per,
  affine,
  encode,
  straight_through,
  symmetric_scale,
)
from compress.quantize.nodes import Gridded, Inputs, Quantized, Shifted
from compress.quantize.observers import Clip
from compress.tree import Array, Compressed, Key, Params, Path

__all__ = [
  'How',
  'Inputs',
  'Quantized',
  'Quantizing',
  'Shifted',
  'affine',
  'by_widths',
  'encode',
  'uniform',
  'int8',
  'refuse_grids',
  'straight_through',
  'symmetric_scale',
  'ternary',
]

FLOAT_BITS = 32  # of a weight that stays as it is
# Widths by path, asked of the tree and the context.
Widths: TypeAlias = Callable[[Params, Ctx], Callable[[Path], int]]

CLIPS = 20  # how often clips follow the weights in one run


@struct.dataclass
class Quantizing(Gridded):
  """A float weight trained through its grid (fake quantization).

  With a step for each channel or group, the grid of w times a gain per channel
  is that of w times the gain, code by code: folding a norm into a quantized
  weight later is the same as quantizing the folded one, up to the rounding of
  floats. So no gain need be folded in training (Jacob+ 2018, section 3.2); with
  one step a tensor it is another grid, which `folded` trains.

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


class How(NamedTuple):
  """What `grid` says of grids but for the widths of weights; see there."""

  per: Per = 'channel'
  symmetric: bool = True
  clip: Clip = 'absmax'
  activation_bits: int = 0
  activation_clip: Clip = 'absmax'
  momentum: float = 0.99
  settle: float = 1.0
  examples: int = 256

  def check(self, where: str) -> None:
    """Raise a ValueError if something is impossible."""
    if self.activation_bits:
      grids.expect_bits(where, 'activation_bits', self.activation_bits)
    grids.expect_per(where, self.per)
    clips.expect(where, self.clip)
    clips.expect(where, self.activation_clip)
    for what, part, meaning in (
      ('momentum', self.momentum, 'the old range kept at each step'),
      ('settle', self.settle, 'the run in which ranges move'),
    ):
      if not 0 <= part <= 1:
        raise ValueError(
          f'{where}: expected a {what} in [0, 1], got {part!r}. It is the '
          f'share of {meaning}.'
        )

  def share(self, w: Array, bits: int) -> Array | None:
    """Return how much of the range of a weight its grid spans."""
    if self.clip == 'absmax':
      return None
    values = grids.columns(w, self.per)
    return clips.share(self.clip, values, bits, self.symmetric)

  def node(self, w: Array, bits: int) -> Any:
    """Return a weight on its grid, its inputs left alone."""
    share = self.share(w, bits)
    return Quantizing(w, None, bits, share, None, self.per, self.symmetric)


def uniform(
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
  grids.expect_bits('quantize.uniform', 'weight_bits', weight_bits)
  how = How(
    per=per,
    symmetric=symmetric,
    clip=clip,
    activation_bits=activation_bits,
    activation_clip=activation_clip,
    momentum=momentum,
    settle=settle,
    examples=examples,
  )
  return by_widths(
    'quantize.uniform', lambda params, ctx: lambda path: weight_bits, how
  )


def by_widths(where: str, widths: Widths, how: How) -> Method:
  """Return the method that gives each weight a grid of its own width.

  Args:
    where: Its name, for errors.
    widths: Finds the width of each weight, asked once, in `init`; a weight of
      `FLOAT_BITS` stays as it is.
    how: Everything else.

  Returns:
    The method.

  Raises:
    ValueError: If `how` is impossible.
  """
  how.check(where)

  def init(params: Params, ctx: Ctx) -> Params:
    refuse_grids(where, params)
    ranges = input_ranges(where, params, ctx, how.activation_bits)
    reach = _reach(where, params, ctx, how)
    width = widths(params, ctx)

    def wrap(path: Path, w: Array) -> Any:
      if width(path) == FLOAT_BITS:
        return w
      inputs, part = ranges(path), reach.get(path)
      if inputs is not None and part is not None:
        inputs = Inputs(inputs.low * part, inputs.high * part, inputs.bits)
      return how.node(w, width(path)).replace(inputs=inputs, reach=part)

    return tree.map_arrays(wrap, params)

  def update(params: Params, ctx: Ctx) -> Params:
    held = jnp.where(ctx.progress <= how.settle, how.momentum, 1.0)
    met = tree.meeting(params)

    def follow(path: Path, node: Quantizing) -> Quantizing:
      observed = (ctx.stats or {}).get(met.get(path, path))
      if node.inputs is None or observed is None:
        return node
      if node.reach is not None:
        observed = observed * node.reach
      return node.replace(inputs=node.inputs.follow(observed, held))

    def clipped(path: Path, node: Quantizing) -> Quantizing:
      w = tree.decode(node.w)
      share = jax.lax.cond(
        due(ctx, CLIPS),
        lambda: how.share(w, node.bits),
        lambda: node.share,
      )
      return node.replace(share=share)

    params = tree.map_nodes(Quantizing, follow, params)
    if how.clip == 'absmax':
      return params
    return tree.map_nodes(Quantizing, clipped, params)

  return Method(init, update)


def int8(*, momentum: float = 0.99) -> Method:
  """Quantize weights and activations to 8 bits: `grid(8, 8)`."""
  return uniform(8, 8, momentum=momentum)


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
  return uniform(2, activation_bits, per=per, clip='ternary', momentum=momentum)


def input_ranges(
  where: str, params: Params, ctx: Ctx, bits: int
) -> Callable[[Path], Inputs | None]:
  """Return the input grid of each weight, by the calibrated range.

  Args:
    where: Who asks, for errors.
    params: The tree that the weights are in.
    ctx: With calibration statistics, unless `bits` is 0.
    bits: Width of the grids; 0 is none.

  Returns:
    A function of a path, giving `Inputs` or None; it raises ValueError where
    the range is not known, not finite or one point. Factors that meet no input
    of a layer, but what another one makes of it, have None.
  """
  met = tree.meeting(params)

  def ranged(path: Path) -> Inputs | None:
    if not bits or path not in met:
      return None
    observed = (ctx.stats or {}).get(met[path])
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


def _reach(where: str, params: Params, ctx: Ctx, how: How) -> dict[Path, Array]:
  """Return the share of each input's range that its grid should span."""
  bits, clip = how.activation_bits, how.activation_clip
  if not bits or clip == 'absmax':
    return {}
  found = calibration.sample(where, ctx, params, how.examples)
  return {
    path: clips.share(clip, x, bits, symmetric=False)
    for path, x in found.items()
  }


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
