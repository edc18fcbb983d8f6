"""Quantization of the gradients between layers (DoReFa)."""

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from compress import kinds, tree
from compress.method import Ctx, Method
from compress.random import own
from compress.tree import Array, Compressed, Key, Params, Path


@struct.dataclass
class Backward(Compressed):
  """A weight whose layer inputs have quantized gradients.

  Attributes:
    w: The weight.
    noise: Raw data of the random key of this step.
    width: Bit width of the gradients.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  inner: ClassVar[tuple[str, ...]] = ('w',)
  kind: ClassVar[str] = kinds.SIGNAL

  w: Any
  noise: Array
  width: int = struct.field(pytree_node=False)

  def decode(self) -> Array:
    """Return the weight."""
    return self.w

  def transform_input(self, x: Array) -> Array:
    """Return the layer input, with a quantized gradient."""
    return round_gradient(super().transform_input(x), self.noise, self.width)

  def freeze(self) -> Any:
    """Return the weight without this node."""
    return self.w


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def round_gradient(x: Array, noise: Array, width: int) -> Array:
  """Return `x`, with a gradient that is `rounded`."""
  del noise, width
  return x


def _forward(x: Array, noise: Array, width: int) -> tuple[Array, Array]:
  del width
  return x, noise


def _backward(width: int, noise: Array, dx: Array) -> tuple[Array, None]:
  return rounded(dx, jax.random.wrap_key_data(noise), width), None


round_gradient.defvjp(_forward, _backward)


def rounded(dx: Array, key: Key, width: int) -> Array:
  r"""Round gradients stochastically to few bits, without bias.

  $2 m [ Q_k ( \frac{dx}{2 m} + \frac12 + N ) - \frac12 ]$, m the largest
  magnitude of the example, $N = \sigma / (2^k - 1)$ and $\sigma$ uniform in
  $[-\frac12, \frac12]$ (Zhou+ 2016, arXiv 1606.06160, equation 12). Exact
  zeros stay 0, which is unbiased like the noise that the paper adds to them.

  Args:
    dx: Gradients `[batch, ...]`.
    key: A random key.
    width: k.

  Returns:
    The shape of dx, with at most 2^k values per example.
  """
  top = 2**width - 1
  largest = jnp.max(jnp.abs(dx), axis=tuple(range(1, dx.ndim)), keepdims=True)
  largest = jnp.where(largest > 0, largest, 1.0)
  sigma = jax.random.uniform(key, dx.shape, dx.dtype, -0.5, 0.5)
  level = jnp.clip(jnp.round(top * (dx / (2 * largest) + 0.5) + sigma), 0, top)
  return jnp.where(dx == 0, 0.0, 2 * largest * (level / top - 0.5))


def gradients(bits: int = 8) -> Method:
  r"""Quantize the gradients that layers pass backward (DoReFa).

  The gradient with respect to the input of each layer is `rounded`, so that
  the gradients of all weights but those of the last layer derive from few bits.
  Evaluation and the stored network do not change.

  Args:
    bits: Bit width of the gradients, 1 to 16.

  Returns:
    The method. Chain it before or after the quantization of the weights.

  Raises:
    ValueError: If the width is not valid.
  """
  if not (type(bits) is int and 1 <= bits <= 16):
    raise ValueError(
      f'quantize.gradients: expected bits from 1 to 16, got {bits!r}.'
    )

  def init(params: Params, ctx: Ctx) -> Params:
    first = jax.random.key(0) if ctx.key is None else ctx.key
    return tree.map_arrays(
      lambda path, w: Backward(w, _noise(first, path), bits), params
    )

  def update(params: Params, ctx: Ctx) -> Params:
    key = ctx.key
    if key is None:
      return params
    return tree.map_nodes(
      Backward, lambda path, x: x.replace(noise=_noise(key, path)), params
    )

  return Method(init, update)


def _noise(key: Key, path: Path) -> Array:
  """Return the raw data of a random key for each layer."""
  return jax.random.key_data(own(key, path))
