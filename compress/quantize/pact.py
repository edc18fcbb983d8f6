"""Layer inputs clipped at a learned threshold (PACT)."""

import math
from typing import ClassVar

import jax.numpy as jnp
from flax import struct

from compress import kinds, tree
from compress.method import Ctx, Method
from compress.quantize import affine
from compress.quantize.affine import Per, straight_through
from compress.quantize.fake_quant import FakeQuantized, input_ranges, is_signed
from compress.quantize.integer_codes import Inputs
from compress.tree import Array, Params, Path


@struct.dataclass
class PactInputs:
  """A grid of layer inputs with a trainable upper end.

  Attributes:
    top: The largest value, `()`.
    bits: Width of the grid.
    signed: Whether the grid starts at -top rather than 0.
  """

  top: Array
  bits: int = struct.field(pytree_node=False)
  signed: bool = struct.field(pytree_node=False)

  def plain(self) -> Inputs:
    """Return the grid as it is stored, without trainable fields."""
    top = affine.positive(self.top)
    return Inputs(-top if self.signed else 0 * top, top, self.bits)

  def round(self, x: Array) -> Array:
    """Return `x` rounded to the grid."""
    top = affine.positive(self.top)
    low = -top if self.signed else jnp.zeros_like(top)
    inside = jnp.where(x >= top, top, jnp.where(x <= low, low, x))
    return straight_through(self.plain().round(x), inside)


@struct.dataclass
class PactWeight(FakeQuantized):
  """A `FakeQuantized` weight whose input grid is trainable."""

  trainable: ClassVar[tuple[str, ...]] = ('w', 'inputs')


def pact(
  weight_bits: int = 4,
  activation_bits: int = 4,
  *,
  per: Per = 'channel',
  decay: float = 1e-3,
) -> Method:
  r"""Train the threshold at which layer inputs are clipped (PACT).

  $y = \frac12 (|x| - |x - \alpha| + \alpha)$ on a grid of $2^b$ levels over
  $[0, \alpha]$, with $\partial y / \partial \alpha = 1$ for $x \ge \alpha$ and
  0 below (Choi+ 2018, arXiv 1805.06085, equations 1 to 4) and a penalty
  $\lambda \sum \alpha^2$. Each $\alpha$ is initialized to the largest magnitude
  on the calibration data; inputs of both signs are clipped at both ends.
  Weights are quantized as by `quantize.uniform`.

  Args:
    weight_bits: Width of the symmetric weight grid, 2 to 16.
    activation_bits: Width of the grid of layer inputs, 2 to 16.
    per: See `quantize.uniform`.
    decay: $\lambda$.

  Returns:
    The method.

  Raises:
    ValueError: If an argument is not valid, a weight is quantized already, or
      there are no calibration statistics.
  """
  where = 'quantize.pact'
  affine.expect_widths(where, weight_bits, activation_bits)
  affine.expect_bits(where, 'activation_bits', activation_bits)
  affine.expect_per(where, per)
  if not 0 <= decay < math.inf:
    raise ValueError(
      f'{where}: expected a finite decay of at least 0, got {decay!r}.'
    )

  def init(params: Params, ctx: Ctx) -> Params:
    kinds.refuse(where, kinds.GRID, params)
    ranges = input_ranges(where, params, ctx, activation_bits)
    met = tree.meeting(params)

    def wrap(path: Path, w: Array) -> FakeQuantized:
      grid = ranges(path)
      if grid is None:  # a factor that multiplies the output of another one
        return FakeQuantized(w, None, weight_bits, per=per)
      low, high = grid.low, grid.high
      top = jnp.maximum(jnp.abs(low), jnp.abs(high))
      inputs = PactInputs(top, activation_bits, is_signed(ctx, met[path]))
      return PactWeight(w, inputs, weight_bits, per=per)

    return tree.map_arrays(wrap, params)

  def loss(params: Params, ctx: Ctx) -> Array:
    del ctx
    nodes = tree.find(PactWeight, params).values()
    return decay * sum((x.inputs.top**2 for x in nodes), jnp.zeros(()))

  return Method(init, loss=loss)
