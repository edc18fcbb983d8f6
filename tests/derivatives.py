"""Values and derivatives of functions that are to agree."""

import jax
import jax.numpy as jnp
import numpy as np


def distinct(shape: tuple, seed: int = 0) -> jax.Array:
  """Draw float32 without ties: a permutation of 0..1."""
  n = int(np.prod(shape))
  order = np.random.default_rng(seed).permutation(n)
  return jnp.asarray((order / n).reshape(shape), jnp.float32)


def value_and_vjp(f, *args):
  y, pull = jax.vjp(f, *args)
  return y, pull(distinct(y.shape, seed=1))


def assert_close(got, want):
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
