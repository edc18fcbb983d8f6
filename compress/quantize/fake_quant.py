"""Float weights trained through a uniform grid, and the ranges of inputs."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from compress import calibration, tree
from compress.method import Ctx
from compress.quantize import affine, observers
from compress.quantize.affine import Per, straight_through
from compress.quantize.integer_codes import Gridded, Inputs
from compress.quantize.observers import Clip
from compress.tree import Array, Key, Params, Path


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
    return straight_through(affine.decoded(*self.coded()), self.w)

  def coded(self) -> affine.Coded:
    """Return the codes and the grid."""
    return affine.coded(self.w, self.bits, self.per, self.share, self.symmetric)


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
      affine.expect_bits(where, 'activation_bits', self.activation_bits)
    affine.expect_per(where, self.per)
    observers.expect(where, self.clip)
    observers.expect(where, self.activation_clip)
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
    values = affine.columns(w, self.per)
    return observers.share(self.clip, values, bits, self.symmetric)

  def node(self, w: Array, bits: int) -> Any:
    """Return a weight on its grid, its inputs left alone."""
    share = self.share(w, bits)
    return Quantizing(w, None, bits, share, None, self.per, self.symmetric)


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
        f'input, got {sorted(ctx.stats or {})}. Run `dataflow.apply` on a few '
        'batches and pass Ctx(stats=...), or set activation_bits=0.'
      )
    if not isinstance(observed, jax.core.Tracer):
      low, high = np.asarray(observed).tolist()
      affine.expect_range(where, path, low, high)
    return Inputs(jnp.float32(observed[0]), jnp.float32(observed[1]), bits)

  return ranged


def reach(where: str, params: Params, ctx: Ctx, how: How) -> dict[Path, Array]:
  """Return the share of each input's range that its grid should span."""
  bits, clip = how.activation_bits, how.activation_clip
  if not bits or clip == 'absmax':
    return {}
  found = calibration.sample(where, ctx, params, how.examples)
  return {
    path: observers.share(clip, x, bits, symmetric=False)
    for path, x in found.items()
  }


def is_signed(ctx: Ctx, path: Path) -> bool:
  """Return whether an input has negative values on the calibration data."""
  return bool(np.asarray((ctx.stats or {})[path])[0] < 0)
