"""Input grids that are live only from a part of the run on."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from compress import kinds, tree
from compress.method import Ctx, Method
from compress.tree import Array, Compressed, Key, Mean, Params


@struct.dataclass
class Delayed(Compressed):
  """A weight whose input grid is not live from the start.

  Attributes:
    w: The weight.
    live: Whether the inputs are rounded, `()` bool.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  inner: ClassVar[tuple[str, ...]] = ('w',)
  kind: ClassVar[str] = kinds.SIGNAL

  w: Any
  live: Array

  def decode(self, key: Key | None) -> Array:
    """Return the weight."""
    del key
    return self.w

  @property
  def transforms_input(self) -> bool:
    """Whether there is a grid to delay."""
    return tree.is_node(self.w) and self.w.transforms_input

  def transform_input(self, x: Array) -> Array:
    """Return the layer input, on its grid once that is live."""
    return jnp.where(self.live, super().transform_input(x), x)

  def scale_output(self, x: Array, mean: Mean) -> Array | None:
    """Return the factor of the layer's sums, 1 until its grid is live."""
    gain = super().scale_output(x, mean)
    return None if gain is None else jnp.where(self.live, gain, 1.0)

  def freeze(self) -> Any:
    """Return the weight alone, if its grid is live."""
    known = not isinstance(self.live, jax.core.Tracer)
    return self.w if known and self.live else self


def delay(begin: float = 0.3) -> Method:
  """Let layer inputs be rounded only from a part of the run on.

  Activations settle before they are quantized, which Jacob+ 2018 (arXiv
  1712.05877, section 3.1) find to train better. Their ranges are followed
  meanwhile. Put it before the quantization: `late(0.3) >> int8()`.

  Args:
    begin: Fraction of the run at which inputs begin to be rounded; a run
      without steps rounds them at once.

  Returns:
    The method.

  Raises:
    ValueError: If the fraction is not in [0, 1].
  """
  if not 0 <= begin <= 1:
    raise ValueError(
      f'quantize.delay: expected begin in [0, 1], got {begin!r}. It is a '
      'fraction of the run.'
    )

  def live_at(ctx: Ctx) -> Array:
    return jnp.asarray(ctx.progress >= begin, bool)

  def init(params: Params, ctx: Ctx) -> Params:
    live = live_at(ctx)
    return tree.map_arrays(lambda path, w: Delayed(w, live), params)

  def update(params: Params, ctx: Ctx) -> Params:
    live = live_at(ctx)
    return tree.map_nodes(Delayed, lambda _, x: x.replace(live=live), params)

  return Method(init, update)
