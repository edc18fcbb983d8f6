"""Quantization of layer inputs that starts during a run."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from compress import kinds, tree
from compress.method import Ctx, Method
from compress.tree import Array, Compressed, Mean, Params


@struct.dataclass
class Delayed(Compressed):
  """A weight whose layer inputs are quantized from some step on.

  Attributes:
    w: The weight.
    active: Whether the inputs are rounded, `()` bool.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  inner: ClassVar[tuple[str, ...]] = ('w',)
  kind: ClassVar[str] = kinds.SIGNAL

  w: Any
  active: Array

  def decode(self) -> Array:
    """Return the weight."""
    return self.w

  @property
  def transforms_input(self) -> bool:
    """Whether the layer inputs have a grid."""
    return tree.is_node(self.w) and self.w.transforms_input

  def transform_input(self, x: Array) -> Array:
    """Return the layer input, rounded to its grid if active."""
    return jnp.where(self.active, super().transform_input(x), x)

  def scale_output(self, x: Array, mean: Mean) -> Array | None:
    """Return the factor of the layer's output, 1 until active."""
    gain = super().scale_output(x, mean)
    return None if gain is None else jnp.where(self.active, gain, 1.0)

  def freeze(self) -> Any:
    """Return the weight without this node, if active."""
    known = not isinstance(self.active, jax.core.Tracer)
    return self.w if known and self.active else self


def delay(begin: float = 0.3) -> Method:
  """Quantize layer inputs from a fraction of the run on.

  Jacob+ 2018 (arXiv 1712.05877, section 3.1) find that networks train better
  if activations are quantized only after they have stabilized. Input ranges
  are updated from the start. Chain it before the quantization:
  `delay(0.3) >> int8()`.

  Args:
    begin: Fraction of the run from which inputs are rounded; a run without
      steps rounds them.

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

  def is_active(ctx: Ctx) -> Array:
    return jnp.asarray(ctx.progress >= begin, bool)

  def init(params: Params, ctx: Ctx) -> Params:
    active = is_active(ctx)
    return tree.map_arrays(lambda path, w: Delayed(w, active), params)

  def update(params: Params, ctx: Ctx) -> Params:
    active = is_active(ctx)
    return tree.map_nodes(
      Delayed, lambda _, x: x.replace(active=active), params
    )

  return Method(init, update)
