r"""Batch norms in addition to Flax's: powers of two, frozen statistics."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from compress.quantize.affine import straight_through
from compress.tree import Array
from tsukiji.models import spec as sp


def power_of_two(x: Array) -> Array:
  r"""Return $\mathrm{AP2}(x) = \mathrm{sign}(x) 2^{[\log_2 |x|]}$; 0 stays.

  A product with it is a shift. The gradient is that of `x` itself. Courbariaux
  & Hubara+ 2016, arXiv 1602.02830, section 3.4.

  >>> power_of_two(jnp.array([3.0, -0.3, 1.4, 0.0])).tolist()
  [4.0, -0.25, 1.0, 0.0]
  """
  # By the bits: `exp2` and `log2` of XLA are off by some.
  part, power = jnp.frexp(jax.lax.stop_gradient(x))
  power -= jnp.abs(part) < math.sqrt(0.5)
  return straight_through(jnp.ldexp(jnp.sign(x), power), x)


def gain(layer: sp.Norm, scale: Array, var: Array) -> Array:
  r"""Return the factor of a norm, $\gamma / \sqrt{v + \epsilon}$.

  Args:
    layer: The norm; both factors of a `ShiftNorm` are powers of two.
    scale: Its $\gamma$, `[channels]`.
    var: Its v, `[channels]`.

  Returns:
    `[channels]`.
  """
  deviation = jnp.sqrt(var + layer.epsilon)
  if isinstance(layer, sp.ShiftNorm):
    return power_of_two(scale) * power_of_two(1 / deviation)
  return scale / deviation


class Norm(nn.Module):
  r"""Normalize each channel as `nn.BatchNorm`, except as `layer` specifies.

  $C(x) = x - \mu$ and $y = \gamma \, C(x) / \sqrt{v + \epsilon} + \beta$.
  A `ShiftNorm` takes $v = \langle C(x) \, \mathrm{AP2}(C(x)) \rangle$ and
  rounds both factors (Courbariaux & Hubara+ 2016, arXiv 1602.02830, algorithm
  3), in training and in inference.

  Attributes:
    layer: The norm.
    train: Whether the statistics are those of the batch.
  """

  layer: sp.Norm
  train: bool

  @nn.compact
  def __call__(self, x: Array, frozen: Array | None = None) -> Array:
    """Return the normalized inputs.

    Args:
      x: `[batch, ..., channels]`.
      frozen: `()` bool: whether the running statistics are used, and not
        updated, in training.

    Returns:
      The shape of `x`.
    """
    size = x.shape[-1:]
    mean = self.variable('batch_stats', 'mean', jnp.zeros, size)
    var = self.variable('batch_stats', 'var', jnp.ones, size)
    scale = self.param('scale', nn.initializers.ones, size)
    bias = self.param('bias', nn.initializers.zeros, size)
    used = (mean.value, var.value)
    if self.train:
      used = self._batch_statistics(x)
      if frozen is not None:
        used = (
          jnp.where(frozen, mean.value, used[0]),
          jnp.where(frozen, var.value, used[1]),
        )
      if not self.is_initializing():
        for kept, new in zip((mean, var), used, strict=True):
          rest = 1 - self.layer.momentum
          kept.value = kept.value + rest * (new - kept.value)
    return (x - used[0]) * gain(self.layer, scale, used[1]) + bias

  def _batch_statistics(self, x: Array) -> tuple[Array, Array]:
    """Return the mean and the variance of a batch."""
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    centered = x - mean
    shifts = isinstance(self.layer, sp.ShiftNorm)
    other = power_of_two(centered) if shifts else centered
    return mean, jnp.mean(centered * other, axes)
