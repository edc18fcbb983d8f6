"""Fake quantization of weights, and the ranges of layer inputs."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from compress import calibration, tree
from compress.method import Ctx, has_input, shapes_only
from compress.quantize import affine, observers
from compress.quantize.affine import Per, straight_through
from compress.quantize.integer_codes import Inputs, LatentWeight
from compress.quantize.observers import Clip
from compress.tree import Array, Params, Path


@struct.dataclass
class FakeQuantized(LatentWeight):
  """A float weight that is rounded to a uniform grid in the forward pass.

  With a step per channel or group, quantizing w and then multiplying by a gain
  per channel gives the same codes as quantizing w times the gain. Folding a
  norm into the quantized weight after training is then the same as training
  the folded weight, up to rounding of floats (Jacob+ 2018, section 3.2). With
  one step per tensor it is not: see `fold_batch_norm`.

  Attributes:
    w: The latent weight `[..., channels]`.
    inputs: The grid of the layer's input, or None for float inputs.
    bits: Width of the weight grid.
    clip_ratio: Fraction of the range of w that the grid spans, per column; None
      for 1.
    input_clip_ratio: Fraction of the range of the inputs that their grid spans,
      `()`; None for 1.
    per: Granularity of the step; see `affine.columns`.
    symmetric: Whether the weight grid is symmetric about 0.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)

  w: Any
  inputs: Any
  bits: int = struct.field(pytree_node=False)
  clip_ratio: Array | None = None
  input_clip_ratio: Array | None = None
  per: Per = struct.field(pytree_node=False, default='channel')
  symmetric: bool = struct.field(pytree_node=False, default=True)

  def decode(self) -> Array:
    """Return the quantized weight, with a straight-through gradient."""
    return straight_through(affine.dequantize(*self.quantize()), self.w)

  def quantize(self) -> affine.Coded:
    """Return the codes and the grid."""
    return affine.quantize(
      self.w, self.bits, self.per, self.clip_ratio, self.symmetric
    )


class GridConfig(NamedTuple):
  """The options of `uniform` other than the width of the weights."""

  per: Per = 'channel'
  symmetric: bool = True
  clip: Clip = 'absmax'
  activation_bits: int = 0
  activation_clip: Clip = 'absmax'
  momentum: float = 0.99
  freeze_at: float = 1.0
  examples: int = 256

  def check(self, where: str) -> None:
    """Raise a ValueError if an option is not valid."""
    if self.activation_bits:
      affine.expect_bits(where, 'activation_bits', self.activation_bits)
    affine.expect_per(where, self.per)
    observers.expect(where, self.clip)
    observers.expect(where, self.activation_clip)
    for what, value, meaning in (
      ('momentum', self.momentum, 'the old range kept at each step'),
      ('freeze_at', self.freeze_at, 'the run after which ranges are fixed'),
    ):
      if not 0 <= value <= 1:
        raise ValueError(
          f'{where}: expected {what} in [0, 1], got {value!r}. It is the '
          f'fraction of {meaning}.'
        )

  def clip_ratio(self, w: Array, bits: int) -> Array | None:
    """Return the fraction of the range of a weight that its grid spans."""
    if self.clip == 'absmax':
      return None
    values = affine.columns(w, self.per)
    return observers.clip_ratio(self.clip, values, bits, self.symmetric)

  def node(self, w: Array, bits: int) -> Any:
    """Return a quantized weight with float inputs."""
    ratio = self.clip_ratio(w, bits)
    return FakeQuantized(w, None, bits, ratio, None, self.per, self.symmetric)


def input_ranges(
  where: str, params: Params, ctx: Ctx, bits: int
) -> Callable[[Path], Inputs | None]:
  """Return the grids of layer inputs, from their calibrated ranges.

  Args:
    where: Name of the caller, for error messages.
    params: The tree of the weights.
    ctx: Context with calibration statistics, unless `bits` is 0.
    bits: Width of the grids; 0 for float inputs.

  Returns:
    A function from the path of a weight to `Inputs` or None. It raises a
    ValueError if the range is not known, not finite or one value. A factor
    that multiplies the output of another factor, rather than the input of its
    layer, has no grid, and neither has a lookup.
  """
  met = tree.meeting(params)

  def grid_at(path: Path) -> Inputs | None:
    if not bits or path not in met or not has_input(where, ctx, met[path]):
      return None
    observed = (ctx.stats or {}).get(met[path])
    if observed is None:
      raise ValueError(
        f'{where} at {path}: expected calibration statistics of the '
        f'input, got {sorted(ctx.stats or {})}. Use compress.init with a '
        'compress.probe, or set activation_bits=0.'
      )
    if not isinstance(observed, jax.core.Tracer):
      low, high = np.asarray(observed).tolist()
      affine.expect_range(where, path, low, high)
    return Inputs(jnp.float32(observed[0]), jnp.float32(observed[1]), bits)

  return grid_at


def input_clip_ratios(
  where: str, params: Params, ctx: Ctx, config: GridConfig
) -> dict[Path, Array]:
  """Return the fraction of the range of each input that its grid spans."""
  bits, clip = config.activation_bits, config.activation_clip
  if not bits or clip == 'absmax':
    return {}
  found = calibration.sample(where, ctx, params, config.examples)
  return {
    path: observers.clip_ratio(clip, x, bits, symmetric=False)
    for path, x in found.items()
  }


def is_signed(ctx: Ctx, path: Path) -> bool:
  """Return whether an input has negative values on the calibration data.

  Where only shapes are asked for and values are not known, it may have some.
  """
  observed = (ctx.stats or {})[path]
  if shapes_only() and isinstance(observed, jax.core.Tracer):
    return True
  return bool(np.asarray(observed)[0] < 0)
