"""Scaling of weights by powers of two, so that products stay in range."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from compress.tree import Array

ORDINARY = 5  # weights within 1/5 of the exponents of a type are not scaled


class Scaled(NamedTuple):
  """An array of at least single precision and its unit.

  Attributes:
    values: The array divided by a power of the unit.
    unit: A power of two, `()`.
  """

  values: Array
  unit: Array


@functools.partial(jax.jit, static_argnames='factors')
def scaled(w: Array, factors: int = 1) -> Scaled:
  r"""Return $w / u^n$ and $u$, for weights that become products of n factors.

  Squares of the values neither overflow nor underflow. If each of n factors of
  the values is multiplied by $u$, their product is that of $w$. Powers of two
  are exact; $u = 1$ for weights of ordinary magnitude and for zeros.

  Args:
    w: The array, of any floating dtype.
    factors: n.

  Returns:
    The values and their unit, in float32 for types of 16 bits.

  >>> scaled(jnp.array([2.0**90, -(2.0**91)]), 2)
  Scaled(values=Array([ 1., -2.], dtype=float32), unit=Array(...))
  """
  dtype = jnp.promote_types(w.dtype, jnp.float32)
  values = w.astype(dtype)
  # Subnormal numbers are 0 in some operations and not in others.
  values = jnp.where(jnp.abs(values) < jnp.finfo(dtype).tiny, 0, values)
  exponent = jnp.frexp(jnp.max(jnp.abs(values), initial=0))[1]
  ordinary = jnp.abs(exponent) <= jnp.finfo(w.dtype).maxexp // ORDINARY
  power = jnp.where(ordinary, 0, (exponent - 1) // factors)
  unit = jnp.ldexp(jnp.ones((), dtype), power)
  return Scaled(jnp.ldexp(values, -factors * power), unit)
