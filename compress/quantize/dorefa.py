"""Weights squashed to a fixed range before they are rounded (DoReFa)."""

from typing import Any, ClassVar

import jax.numpy as jnp
from flax import struct

from compress import kinds, tree
from compress.method import Ctx, Method
from compress.quantize import affine
from compress.quantize.affine import straight_through
from compress.quantize.fake_quant import input_ranges
from compress.quantize.integer_codes import Gridded, Inputs
from compress.tree import Array, Key, Params, Path


@struct.dataclass
class Squashing(Gridded):
  """A float weight whose hyperbolic tangent is on a grid without 0.

  Attributes:
    w: The latent weight.
    step: From one level to the next, `()`.
    inputs: The grid of the layer's input, or None.
    bits: Width of the weight's grid.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  between: ClassVar[bool] = True

  w: Any
  step: Array
  inputs: Inputs | None
  bits: int = struct.field(pytree_node=False)

  def squashed(self) -> Array:
    """Return the weight between -1 and 1."""
    x = jnp.tanh(self.w)
    most = jnp.max(jnp.abs(x))
    return x / jnp.where(most > 0, most, 1.0)

  def coded(self) -> affine.Coded:
    """Return the codes and the grid; 0 is between two codes."""
    top = 2**self.bits - 1
    codes = jnp.round(top * (self.squashed() / 2 + 0.5)) - 2 ** (self.bits - 1)
    return affine.Coded(codes, self.step, jnp.float32(-0.5))

  def decode(self, key: Key | None) -> Array:
    """Return the weight on its grid, with a straight-through gradient."""
    del key
    most = self.step * (2**self.bits - 1) / 2
    return straight_through(
      affine.decoded(*self.coded()), most * self.squashed()
    )


def dorefa(
  weight_bits: int = 4, activation_bits: int = 0, *, scaled: bool = True
) -> Method:
  r"""Squash weights to [-1, 1] and round them to $2^b$ levels (DoReFa).

  $w_q = 2 \, Q_b(\frac{\tanh w}{2 \max |\tanh w|} + \frac12) - 1$ with
  $Q_b(x) = \mathrm{round}((2^b - 1) x) / (2^b - 1)$ (Zhou+ 2016, arXiv
  1606.06160, equations 5 and 9), straight-through. Inputs are clipped to their
  calibrated range, where the paper's are to [0, 1], and rounded (equation 11).
  No level is 0. For its gradients put `quantize.gradients` in the chain.

  Args:
    weight_bits: Width of the weight grid, 2 to 16.
    activation_bits: Width of the affine grid of layer inputs, 2 to 16; 0 is
      none. Ranges are held.
    scaled: Whether the levels reach to the largest trained weight, so that a
      trained network stays what it was; else to 1, as in the paper, which has
      a norm behind every layer.

  Returns:
    The method.

  Raises:
    ValueError: As `quantize.uniform`.
  """
  where = 'quantize.dorefa'
  affine.expect_widths(where, weight_bits, activation_bits)

  def init(params: Params, ctx: Ctx) -> Params:
    kinds.refuse(where, kinds.GRID, params)
    ranges = input_ranges(where, params, ctx, activation_bits)

    def wrap(path: Path, w: Array) -> Squashing:
      most = jnp.max(jnp.abs(w)) if scaled else jnp.ones((), w.dtype)
      step = 2 * most / (2**weight_bits - 1)
      return Squashing(w, step, ranges(path), weight_bits)

    return tree.map_arrays(wrap, params)

  return Method(init)
