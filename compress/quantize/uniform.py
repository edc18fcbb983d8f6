"""Uniform grids, trained with a straight-through gradient."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from compress import kinds, tree
from compress.method import Ctx, Method
from compress.prune.masked import due
from compress.quantize import affine
from compress.quantize.affine import Per
from compress.quantize.fake_quant import How, Quantizing, input_ranges, reach
from compress.quantize.integer_codes import Inputs
from compress.quantize.observers import Clip
from compress.tree import Array, Params, Path

FLOAT_BITS = 32  # of a weight that stays as it is

# Widths by path, asked of the tree and the context.
Widths: TypeAlias = Callable[[Params, Ctx], Callable[[Path], int]]

CLIPS = 20  # how often clips follow the weights in one run


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
  affine.expect_bits('quantize.uniform', 'weight_bits', weight_bits)
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
    kinds.refuse(where, kinds.GRID, params)
    ranges = input_ranges(where, params, ctx, how.activation_bits)
    reached = reach(where, params, ctx, how)
    width = widths(params, ctx)

    def wrap(path: Path, w: Array) -> Any:
      if width(path) == FLOAT_BITS:
        return w
      inputs, part = ranges(path), reached.get(path)
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
