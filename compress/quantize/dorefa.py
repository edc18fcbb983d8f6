"""Weights mapped to a fixed range by tanh and rounded (DoReFa)."""

from typing import Any, ClassVar

import jax.numpy as jnp
from flax import struct

from compress import kinds, tree
from compress.method import Ctx, Method
from compress.quantize import affine
from compress.quantize.affine import straight_through
from compress.quantize.fake_quant import input_ranges
from compress.quantize.integer_codes import Inputs, LatentWeight
from compress.tree import Array, Params, Path


@struct.dataclass
class DorefaWeight(LatentWeight):
  """A weight whose normalized tanh is quantized to a grid without 0.

  Attributes:
    w: The latent weight.
    step: Distance between levels, `()`.
    inputs: The grid of the layer's input, or None for float inputs.
    bits: Width of the weight grid.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  between: ClassVar[bool] = True

  w: Any
  step: Array
  inputs: Inputs | None
  bits: int = struct.field(pytree_node=False)

  def normalized(self) -> Array:
    r"""Return $\tanh w / \max |\tanh w|$."""
    x = jnp.tanh(self.w)
    largest = jnp.max(jnp.abs(x))
    return x / jnp.where(largest > 0, largest, 1.0)

  def quantize(self) -> affine.Coded:
    """Return the codes and the grid; 0 is between two codes."""
    top = 2**self.bits - 1
    codes = jnp.round(top * (self.normalized() / 2 + 0.5))
    codes = codes - 2 ** (self.bits - 1)
    return affine.Coded(codes, self.step, jnp.float32(-0.5))

  def decode(self) -> Array:
    """Return the quantized weight, with a straight-through gradient."""
    largest = self.step * (2**self.bits - 1) / 2
    return straight_through(
      affine.dequantize(*self.quantize()), largest * self.normalized()
    )


def dorefa(
  weight_bits: int = 4, activation_bits: int = 0, *, scaled: bool = True
) -> Method:
  r"""Map weights to [-1, 1] by tanh and round them to $2^b$ levels (DoReFa).

  $w_q = 2 \, Q_b(\frac{\tanh w}{2 \max |\tanh w|} + \frac12) - 1$ with
  $Q_b(x) = \mathrm{round}((2^b - 1) x) / (2^b - 1)$ (Zhou+ 2016, arXiv
  1606.06160, equations 5 and 9), with a straight-through gradient. Inputs are
  clipped to their calibrated range, in the paper to [0, 1], and rounded
  (equation 11). No level is 0. Chain `quantize.gradients` for the gradients of
  the paper.

  Args:
    weight_bits: Width of the weight grid, 2 to 16.
    activation_bits: Width of the affine grid of layer inputs, 2 to 16; 0 for
      float inputs. Ranges are fixed after calibration.
    scaled: Whether the levels extend to the largest weight of each layer, so
      that a trained network keeps its function. Otherwise they extend to 1, as
      in the paper, which has a norm behind every layer.

  Returns:
    The method.

  Raises:
    ValueError: See `quantize.uniform`.
  """
  where = 'quantize.dorefa'
  affine.expect_widths(where, weight_bits, activation_bits)

  def init(params: Params, ctx: Ctx) -> Params:
    kinds.refuse(where, kinds.GRID, params)
    ranges = input_ranges(where, params, ctx, activation_bits)

    def wrap(path: Path, w: Array) -> DorefaWeight:
      largest = jnp.max(jnp.abs(w)) if scaled else jnp.ones((), w.dtype)
      step = 2 * largest / (2**weight_bits - 1)
      return DorefaWeight(w, step, ranges(path), weight_bits)

    return tree.map_arrays(wrap, params)

  return Method(init)
