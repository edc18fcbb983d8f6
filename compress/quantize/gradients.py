"""Gradients of few bits between layers (DoReFa)."""

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
  """A weight behind whose inputs gradients have few bits.

  Attributes:
    w: The weight.
    noise: Raw data of the key of this step's noise.
    width: Bits of the gradients.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  inner: ClassVar[tuple[str, ...]] = ('w',)
  kind: ClassVar[str] = kinds.SIGNAL

  w: Any
  noise: Array
  width: int = struct.field(pytree_node=False)

  def decode(self, key: Key | None) -> Array:
    """Return the weight."""
    del key
    return self.w

  def transform_input(self, x: Array) -> Array:
    """Return the layer input; its gradient will be rounded."""
    return rounded_behind(super().transform_input(x), self.noise, self.width)

  def freeze(self) -> Any:
    """Return the weight alone."""
    return self.w


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def rounded_behind(x: Array, noise: Array, width: int) -> Array:
  """Return `x`; its gradient is `rounded` with the noise of a key."""
  del noise, width
  return x


def _forward(x: Array, noise: Array, width: int) -> tuple[Array, Array]:
  del width
  return x, noise


def _backward(width: int, noise: Array, dx: Array) -> tuple[Array, None]:
  return rounded(dx, jax.random.wrap_key_data(noise), width), None


rounded_behind.defvjp(_forward, _backward)


def rounded(dx: Array, key: Key, width: int) -> Array:
  r"""Round gradients to few bits, at random and right on average.

  $2 m [ Q_k ( \frac{dx}{2 m} + \frac12 + N ) - \frac12 ]$, m the largest
  magnitude of the example, $N = \sigma / (2^k - 1)$ and $\sigma$ uniform in
  $[-\frac12, \frac12]$ (Zhou+ 2016, arXiv 1606.06160, equation 12). Exact
  zeros stay 0, as right on average as the noise that the paper puts there.

  Args:
    dx: Gradients `[batch, ...]`.
    key: Randomness.
    width: k.

  Returns:
    As dx, of at most 2^k values an example.
  """
  top = 2**width - 1
  most = jnp.max(jnp.abs(dx), axis=tuple(range(1, dx.ndim)), keepdims=True)
  most = jnp.where(most > 0, most, 1.0)
  sigma = jax.random.uniform(key, dx.shape, dx.dtype, -0.5, 0.5)
  level = jnp.clip(jnp.round(top * (dx / (2 * most) + 0.5) + sigma), 0, top)
  return jnp.where(dx == 0, 0.0, 2 * most * (level / top - 0.5))


def gradients(bits: int = 8) -> Method:
  r"""Pass gradients from layer to layer in few bits (DoReFa).

  What a layer sends back to the one before it is `rounded`, so that the
  gradients of all weights but the last layer's come from few bits. Nothing
  changes in evaluation, nor in what is stored.

  Args:
    bits: Of a gradient, 1 to 16.

  Returns:
    The method; put it before or behind the quantization of the weights.

  Raises:
    ValueError: If the width is impossible.
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
  """Return the raw key of a layer, so that no two share their noise."""
  return jax.random.key_data(own(key, path))
