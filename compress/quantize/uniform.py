"""Uniform quantization, trained with a straight-through gradient."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from compress import kinds, tree
from compress.method import Ctx, Method
from compress.prune.masked import due
from compress.quantize import affine
from compress.quantize.affine import Per
from compress.quantize.fake_quant import (
  FakeQuantized,
  GridConfig,
  input_clip_ratios,
  input_ranges,
)
from compress.quantize.integer_codes import Inputs
from compress.quantize.observers import Clip
from compress.tree import Array, Params, Path

FLOAT_BITS = 32  # width of a weight that is not quantized

# Tree and context -> (path -> width).
Widths: TypeAlias = Callable[[Params, Ctx], Callable[[Path], int]]

CLIP_UPDATES = 20  # of the clip ratios of weights in one run


def uniform(
  weight_bits: int = 8,
  activation_bits: int = 0,
  *,
  per: Per = 'channel',
  symmetric: bool = True,
  clip: Clip = 'absmax',
  activation_clip: Clip = 'absmax',
  momentum: float = 0.99,
  freeze_at: float = 1.0,
  examples: int = 256,
) -> Method:
  """Quantize weights and layer inputs to uniform grids.

  Without training this is post-training quantization with calibrated input
  ranges. With training it is quantization-aware training (Jacob+ 2018, arXiv
  1712.05877): latent float weights, a straight-through gradient, and input
  ranges that follow an exponential moving average. Clip ratios are computed at
  the start; those of the weights are computed again `CLIP_UPDATES` times in a
  run, those of the inputs are fixed.

  Args:
    weight_bits: Width of the weight grid, 2 to 16.
    activation_bits: Width of the affine grid of layer inputs, 2 to 16; 0 for
      float inputs.
    per: Granularity of the weight grid: 'channel' (of the output), 'tensor', or
      the number of consecutive inputs of a channel that share a step.
    symmetric: Whether the weight grid is symmetric about 0. An asymmetric grid
      spans the range of the weights and has a zero point.
    clip: Rule for the range of the weight grid: 'absmax' (no clipping), 'mse',
      'kl', 'percentile', 'ternary', or the fraction of the magnitudes inside.
    activation_clip: The rule for layer inputs; all but 'absmax' need a probe.
    momentum: Fraction of the old input range kept at each step.
    freeze_at: Fraction of the run after which input ranges are fixed.
    examples: Number of calibration examples for `activation_clip`.

  Returns:
    The method.

  Raises:
    ValueError: If an argument is not valid, a weight is quantized already,
      calibration statistics are needed but missing, or the inputs of a layer
      are not finite or all equal.
  """
  affine.expect_bits('quantize.uniform', 'weight_bits', weight_bits)
  config = GridConfig(
    per=per,
    symmetric=symmetric,
    clip=clip,
    activation_bits=activation_bits,
    activation_clip=activation_clip,
    momentum=momentum,
    freeze_at=freeze_at,
    examples=examples,
  )
  return by_widths(
    'quantize.uniform', lambda params, ctx: lambda path: weight_bits, config
  )


def int8(*, momentum: float = 0.99) -> Method:
  """Quantize weights and layer inputs to 8 bits: `uniform(8, 8)`."""
  return uniform(8, 8, momentum=momentum)


def ternary(
  activation_bits: int = 0, *, per: Per = 'channel', momentum: float = 0.99
) -> Method:
  r"""Quantize weights to $\{-\alpha, 0, \alpha\}$ with the optimal $\alpha$.

  Ternary weight networks (Li+ 2016, arXiv 1605.04711, equations 3 to 6) with
  the exact threshold; see `observers.ternary`.

  Args:
    activation_bits: See `uniform`.
    per: See `uniform`; the paper has one step per tensor.
    momentum: See `uniform`.

  Returns:
    The method.

  Raises:
    ValueError: See `uniform`.
  """
  return uniform(2, activation_bits, per=per, clip='ternary', momentum=momentum)


def by_widths(where: str, widths: Widths, config: GridConfig) -> Method:
  """Return a method that quantizes each weight to its own width.

  Args:
    where: Name of the method, for error messages.
    widths: Returns the width of each weight; called once, in `init`. A weight
      of width `FLOAT_BITS` is not quantized.
    config: The other options.

  Returns:
    The method.

  Raises:
    ValueError: If an option is not valid.
  """
  config.check(where)

  def init(params: Params, ctx: Ctx) -> Params:
    kinds.refuse(where, kinds.GRID, params)
    ranges = input_ranges(where, params, ctx, config.activation_bits)
    ratios = input_clip_ratios(where, params, ctx, config)
    width = widths(params, ctx)

    def wrap(path: Path, w: Array) -> Any:
      if width(path) == FLOAT_BITS:
        return w
      inputs, ratio = ranges(path), ratios.get(path)
      if inputs is not None and ratio is not None:
        inputs = Inputs(inputs.low * ratio, inputs.high * ratio, inputs.bits)
      return config.node(w, width(path)).replace(
        inputs=inputs, input_clip_ratio=ratio
      )

    return tree.map_arrays(wrap, params)

  def update(params: Params, ctx: Ctx) -> Params:
    moving = ctx.progress <= config.freeze_at
    momentum = jnp.where(moving, config.momentum, 1.0)
    met = tree.meeting(params)

    def follow(path: Path, node: FakeQuantized) -> FakeQuantized:
      observed = (ctx.stats or {}).get(met.get(path, path))
      if node.inputs is None or observed is None:
        return node
      if node.input_clip_ratio is not None:
        observed = observed * node.input_clip_ratio
      return node.replace(inputs=node.inputs.follow(observed, momentum))

    def clipped(path: Path, node: FakeQuantized) -> FakeQuantized:
      w = tree.decode(node.w)
      ratio = jax.lax.cond(
        due(ctx, CLIP_UPDATES),
        lambda: config.clip_ratio(w, node.bits),
        lambda: node.clip_ratio,
      )
      return node.replace(clip_ratio=ratio)

    params = tree.map_nodes(FakeQuantized, follow, params)
    if config.clip == 'absmax':
      return params
    return tree.map_nodes(FakeQuantized, clipped, params)

  return Method(init, update)
