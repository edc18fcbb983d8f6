"""The sign function with surrogate gradients.

The derivative of the sign is 0 almost everywhere. Each function here returns
+1 for x >= 0, -1 for x < 0 and NaN for NaN, so that a diverged run is noticed;
they differ in the surrogate of the derivative.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from compress.tree import Array, Key


def _sign(x: Array) -> Array:
  return jnp.where(x >= 0, 1, jnp.where(x < 0, -1, x)).astype(x.dtype)


@jax.custom_jvp
def clipped(x: Array) -> Array:
  r"""Return the sign with the gradient of hard tanh, $g \, 1(|x| \leq 1)$.

  Courbariaux & Hubara+ 2016, arXiv 1602.02830, equation 4. The bounds are
  included, so that a weight clipped to 1 still has a gradient.

  >>> clipped(jnp.array([-2.0, -0.0, 0.5])).tolist()
  [-1.0, 1.0, 1.0]
  """
  return _sign(x)


@clipped.defjvp
def _clipped_jvp(
  primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
  (x,), (dx,) = primals, tangents
  return _sign(x), jnp.where(jnp.abs(x) <= 1, dx, 0)


@jax.custom_jvp
def quadratic(x: Array) -> Array:
  r"""Return the sign with the gradient $g \max(2 - 2|x|, 0)$.

  The gradient of a piecewise quadratic function that is closer to the sign
  than hard tanh (ApproxSign of Bi-Real Net, Liu+ 2018, arXiv 1808.00278).

  >>> float(jax.grad(quadratic)(0.25))
  1.5
  """
  return _sign(x)


@quadratic.defjvp
def _quadratic_jvp(
  primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
  (x,), (dx,) = primals, tangents
  return _sign(x), jnp.maximum(2 - 2 * jnp.abs(x), 0) * dx


SIGNS: dict[str, Callable[[Array], Array]] = {
  'clipped': clipped,
  'quadratic': quadratic,
}


def stochastic(x: Array, key: Key) -> Array:
  r"""Return +1 with probability $\mathrm{clip}((x + 1) / 2, 0, 1)$, else -1.

  The stochastic sign (arXiv 1602.02830, equations 2 and 3); its mean inside
  [-1, 1] is `x`. The gradient is that of `clipped`.

  >>> stochastic(jnp.array([-1.0, 1.0]), jax.random.key(0)).tolist()
  [-1.0, 1.0]
  """
  up = jax.random.uniform(key, x.shape, x.dtype) < (x + 1) / 2
  sign = clipped(x)
  # Sums of +-1 and +-2 are exact.
  return sign + jax.lax.stop_gradient(jnp.where(up, 1, -1) - sign)
