"""Input grids whose end is learned (PACT)."""

import math
from typing import ClassVar

import jax.numpy as jnp
from flax import struct

from compress import kinds, tree
from compress.method import Ctx, Method
from compress.quantize import affine
from compress.quantize.affine import Per, straight_through
from compress.quantize.fake_quant import Quantizing, input_ranges, is_signed
from compress.quantize.integer_codes import Inputs
from compress.tree import Array, Params, Path


@struct.dataclass
class Clipped:
  """A grid of layer inputs whose end is learned.

  Attributes:
    top: The largest value, `()`.
    bits: Width of the grid.
    signed: Whether the inputs have both signs; the grid then starts at -top.
  """

  top: Array
  bits: int = struct.field(pytree_node=False)
  signed: bool = struct.field(pytree_node=False)

  def plain(self) -> Inputs:
    """Return the grid as it is stored."""
    top = affine.positive(self.top)
    return Inputs(-top if self.signed else 0 * top, top, self.bits)

  def round(self, x: Array) -> Array:
    """Return `x` on the grid."""
    top = affine.positive(self.top)
    low = -top if self.signed else jnp.zeros_like(top)
    inside = jnp.where(x >= top, top, jnp.where(x <= low, low, x))
    return straight_through(self.plain().round(x), inside)


@struct.dataclass
class Clipping(Quantizing):
  """A `Quantizing` weight the end of whose input grid is trained."""

  trainable: ClassVar[tuple[str, ...]] = ('w', 'inputs')


def pact(
  weight_bits: int = 4,
  activation_bits: int = 4,
  *,
  per: Per = 'channel',
  decay: float = 1e-3,
) -> Method:
  r"""Train where layer inputs are clipped (PACT).

  $y = \frac12 (|x| - |x - \alpha| + \alpha)$ on a grid of $2^b$ levels over
  $[0, \alpha]$, with $\partial y / \partial \alpha = 1$ for $x \ge \alpha$ and
  0 below (Choi+ 2018, arXiv 1805.06085, equations 1 to 4) and a penalty
  $\lambda \sum \alpha^2$. Each $\alpha$ starts at the largest calibrated input;
  inputs of both signs are clipped at both ends. Weights are as in
  `quantize.uniform`.

  Args:
    weight_bits: Width of the symmetric weight grid, 2 to 16.
    activation_bits: Width of the grid of layer inputs, 2 to 16.
    per: As `quantize.uniform`.
    decay: Weight of the penalty.

  Returns:
    The method.

  Raises:
    ValueError: If an argument is impossible, a weight is quantized already, or
      there are no calibration statistics.
  """
  where = 'quantize.pact'
  affine.expect_widths(where, weight_bits, activation_bits)
  affine.expect_bits(where, 'activation_bits', activation_bits)
  affine.expect_per(where, per)
  if not 0 <= decay < math.inf:
    raise ValueError(f'{where}: expected a decay from 0, got {decay!r}.')

  def init(params: Params, ctx: Ctx) -> Params:
    kinds.refuse(where, kinds.GRID, params)
    ranges = input_ranges(where, params, ctx, activation_bits)
    met = tree.meeting(params)

    def wrap(path: Path, w: Array) -> Quantizing:
      seen_there = ranges(path)
      if seen_there is None:  # a factor behind the one that meets the input
        return Quantizing(w, None, weight_bits, per=per)
      low, high = seen_there.low, seen_there.high
      top = jnp.maximum(jnp.abs(low), jnp.abs(high))
      inputs = Clipped(top, activation_bits, is_signed(ctx, met[path]))
      return Clipping(w, inputs, weight_bits, per=per)

    return tree.map_arrays(wrap, params)

  def loss(params: Params, ctx: Ctx) -> Array:
    del ctx
    nodes = tree.find(Clipping, params).values()
    return decay * sum((x.inputs.top**2 for x in nodes), jnp.zeros(()))

  return Method(init, loss=loss)
