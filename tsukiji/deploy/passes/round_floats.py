"""Floats of fewer bits: scales, biases and what else a network has in floats.

A network of four-bit weights spends a fifth of its file on the scales and
biases of its channels, whose last bits no output depends on. This is a pass,
not a method, because these numbers come to be when norms are absorbed by the
weights before them, after training.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

WIDEST = 24  # significant bits of float32, one of them implied


def rounded(weights: Any, bits: int) -> Any:
  """Return weights whose floats have fewer significant bits.

  Args:
    weights: A tree of arrays and frozen nodes.
    bits: Of each float besides its sign and exponent, 1 to 24; 8 are those of
      bfloat16. Numbers change by a factor of at most 1 ± 2**-bits.

  Returns:
    The same tree; of types other than floats, the same arrays.

  Raises:
    ValueError: If there are no such floats.

  >>> rounded({'scale': jnp.float32([0.3, -5.0])}, 2)['scale'].tolist()
  [0.25, -4.0]
  """
  if not 1 <= bits <= WIDEST:
    raise ValueError(
      f'round_floats: expected bits from 1 to {WIDEST}, got {bits!r}.'
    )
  return jax.tree.map(lambda x: _rounded(x, bits), weights)


def _rounded(x: Any, bits: int) -> Any:
  """Return the nearest numbers of so many bits, of ties the even ones."""
  if not jnp.issubdtype(x.dtype, jnp.floating) or x.dtype.itemsize > 4:
    return x
  fraction, exponent = np.frexp(np.asarray(x, np.float32))
  with np.errstate(over='ignore'):  # the largest numbers stay as they are
    near = np.ldexp(np.rint(np.ldexp(fraction, bits)), exponent - bits)
    finite = np.isfinite(near.astype(x.dtype))
  return jnp.asarray(np.where(finite, near, x), x.dtype)
