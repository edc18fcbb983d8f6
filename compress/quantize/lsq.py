"""Learned step size quantization (LSQ)."""

import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from compress import calibration, kinds, tree
from compress.method import Ctx, Method
from compress.quantize import affine
from compress.quantize.affine import Per, straight_through
from compress.quantize.fake_quant import input_ranges, is_signed
from compress.quantize.integer_codes import Inputs, LatentWeight
from compress.tree import Array, Params, Path


def stepped(x: Array, step: Array, low: int, high: int, gain: float) -> Array:
  r"""Quantize `x` with the gradients of learned step size quantization.

  $\hat v = s \, \mathrm{round}(\mathrm{clip}(v/s, -Q_N, Q_P))$ with
  $\partial \hat v / \partial s = \mathrm{round}(v/s) - v/s$ inside and $-Q_N$
  or $Q_P$ outside, times the gain, and $\partial \hat v / \partial v$ 1 inside
  and 0 outside (Esser+ 2020, arXiv 1902.08153, equations 1 to 5).

  Args:
    x: Array of any shape.
    step: s, positive, broadcasts to x.
    low: -Q_N.
    high: Q_P.
    gain: Factor of the gradient of the step.

  Returns:
    The quantized x.

  >>> slope = jax.grad(lambda s: stepped(jnp.float32(0.7), s, -1, 1, 0.5))
  >>> round(float(slope(jnp.float32(1.0))), 3)  # (1 - 0.7) / 2
  0.15
  """
  constant = jax.lax.stop_gradient(step)
  step = constant + gain * (step - constant)
  inside = jnp.clip(x / step, low, high)
  return step * straight_through(jnp.round(inside), inside)


@struct.dataclass
class LsqInputs:
  """A grid of layer inputs with a trainable step.

  Attributes:
    step: Step of the grid, `()`.
    bits: Width of the grid.
    signed: Whether the grid has negative codes.
  """

  step: Array
  bits: int = struct.field(pytree_node=False)
  signed: bool = struct.field(pytree_node=False)

  def ends(self) -> tuple[int, int]:
    """Return the first and the last code."""
    half = 2 ** (self.bits - 1)
    return (-half, half - 1) if self.signed else (0, 2 * half - 1)

  def plain(self) -> Inputs:
    """Return the grid as it is stored, without trainable fields."""
    low, high = (end * affine.positive(self.step) for end in self.ends())
    return Inputs(low, high, self.bits)

  def round(self, x: Array) -> Array:
    """Return `x` on the grid."""
    low, high = self.ends()
    gain = 1 / math.sqrt(math.prod(x.shape[1:]) * high)
    return straight_through(
      self.plain().round(x),
      stepped(x, affine.positive(self.step), low, high, gain),
    )


@struct.dataclass
class LsqWeight(LatentWeight):
  """A fake-quantized weight with trainable steps.

  Attributes:
    w: The latent weight `[..., channels]`.
    step: `()`, `[channels]` or `[groups, channels]`; see `affine.columns`.
    inputs: The grid of the layer's input, or None for float inputs.
    bits: Width of the weight grid.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w', 'step', 'inputs')

  w: Any
  step: Array
  inputs: LsqInputs | None
  bits: int = struct.field(pytree_node=False)

  def quantize(self) -> affine.Coded:
    """Return the codes and the grid."""
    step = affine.positive(self.step)
    return affine.Coded(affine.encode(self.w, step, self.bits), step, None)

  def decode(self) -> Array:
    """Return the quantized weight, with the gradients of `stepped`."""
    top = 2 ** (self.bits - 1) - 1
    gain = 1 / math.sqrt(self.w.size / self.step.size * top)
    step = affine.broadcast_columns(affine.positive(self.step), self.w.shape)
    return straight_through(
      affine.dequantize(*self.quantize()),
      stepped(self.w, step, -top, top, gain),
    )


def lsq(
  weight_bits: int = 4,
  activation_bits: int = 0,
  *,
  per: Per = 'channel',
  examples: int = 256,
) -> Method:
  r"""Train the steps of the grids together with the weights (LSQ).

  Esser+ 2020 (arXiv 1902.08153), with the gradients of `stepped`. Steps are
  initialized to $2 \langle |v| \rangle / \sqrt{Q_P}$ and their gradient is
  multiplied by $1 / \sqrt{N Q_P}$, where N is the number of weights, or of
  inputs of an example, that share the step. Inputs without negative values on
  the calibration data have an unsigned grid.

  Args:
    weight_bits: Width of the symmetric weight grid, 2 to 16.
    activation_bits: Width of the grid of layer inputs, 2 to 16; 0 for float
      inputs.
    per: See `quantize.uniform`; the paper has one step per tensor.
    examples: Number of calibration examples that initialize the steps of
      layer inputs.

  Returns:
    The method.

  Raises:
    ValueError: If an argument is not valid, a weight is quantized already, or
      `activation_bits` is set and there is no calibration data.
  """
  where = 'quantize.lsq'
  affine.expect_widths(where, weight_bits, activation_bits)
  affine.expect_per(where, per)
  top = 2 ** (weight_bits - 1) - 1

  def init(params: Params, ctx: Ctx) -> Params:
    kinds.refuse(where, kinds.GRID, params)
    ranges = input_ranges(where, params, ctx, activation_bits)
    met = tree.meeting(params)
    signed: dict[Path, bool] = {}

    def look(path: Path, w: Array) -> Array:
      if ranges(path) is not None:
        signed[path] = is_signed(ctx, met[path])
      return w

    tree.map_arrays(look, params)
    values: dict[Path, Array] = {}
    if signed:
      values = calibration.sample(where, ctx, params, examples)
    steps, of_inputs = _initial_steps(
      per,
      (params, math.sqrt(top)),
      {
        path: (values[met[path]], math.sqrt(2 ** (activation_bits - s) - 1))
        for path, s in signed.items()
      },
    )

    def wrap(path: Path, w: Array) -> LsqWeight:
      inputs = None
      if path in signed:
        inputs = LsqInputs(of_inputs[path], activation_bits, signed[path])
      return LsqWeight(w, steps[path], inputs, weight_bits)

    return tree.map_arrays(wrap, params)

  return Method(init)


@functools.partial(jax.jit, static_argnums=0)
def _initial_steps(
  per: Per,
  weights: tuple[Params, float],
  inputs: dict[Path, tuple[Array, float]],
) -> tuple[dict[Path, Array], dict[Path, Array]]:
  r"""Return the initial steps of weights and of inputs, as one program.

  Args:
    per: Granularity of the steps of weights.
    weights: A tree, and the $\sqrt{Q_P}$ of its grids.
    inputs: Values of the input of each weight, and theirs.

  Returns:
    The steps by path.
  """
  params, root = weights
  steps: dict[Path, Array] = {}

  def note(path: Path, w: Array) -> Array:
    # NaN pads a shorter last group and is left out of its mean.
    steps[path] = _initial_step(affine.columns(w, per, jnp.nan), root)
    return w

  tree.map_arrays(note, params)
  return steps, {path: _initial_step(*given) for path, given in inputs.items()}


def _initial_step(values: Array, root: float) -> Array:
  """Return the initial step of each column."""
  mean = jnp.nanmean(jnp.abs(values), axis=0)
  step = affine.divide(2 * mean, root)
  return jnp.where(step > affine.SMALLEST, step, 1.0)
