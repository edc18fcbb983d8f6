"""Alternating least squares against tensors whose rank is known."""

import jax.numpy as jnp
import numpy as np
import pytest

from compress.lowrank import polyadic

SIDES = (3, 2, 5, 6)


def planted(rank: int) -> jnp.ndarray:
  """Return a sum of `rank` products of vectors."""
  drawn = np.random.default_rng(0)
  parts = [drawn.normal(size=(n, rank)) for n in SIDES]
  return jnp.float32(np.einsum('ar,br,cr,dr->abcd', *parts))


@pytest.mark.slow
def test_a_sum_of_products_is_found_again() -> None:
  w = planted(3)
  node = polyadic.polyadic(w, 3, sweeps=200)
  assert [x.shape for x in node.factors().values()] == [
    (1, 1, 5, 3),
    (3, 1, 1, 3),
    (1, 2, 1, 3),
    (1, 1, 3, 6),
  ]
  error = np.linalg.norm(np.asarray(node.decode() - w))
  assert error < 1e-3 * np.linalg.norm(np.asarray(w))


@pytest.mark.slow
def test_more_sweeps_are_no_worse_and_factors_equally_large() -> None:
  w = planted(6)
  errors = [
    float(jnp.sum((polyadic.polyadic(w, 2, n).decode() - w) ** 2))
    for n in (1, 5, 50)
  ]
  assert errors == sorted(errors, reverse=True)
  node = polyadic.polyadic(w, 2)
  sizes = [
    np.linalg.norm(np.asarray(x).reshape(-1, 2), axis=0)
    for x in (node.u, node.rows, node.columns, node.v[0, 0].T)
  ]
  np.testing.assert_allclose(sizes, [sizes[0]] * 4, rtol=1e-3)


@pytest.mark.slow
def test_the_largest_rank_is_always_enough() -> None:
  assert polyadic.largest_rank(SIDES) == 30
  w = jnp.float32(np.random.default_rng(1).normal(size=(2, 2, 2, 2)))
  node = polyadic.polyadic(w, polyadic.largest_rank(w.shape), sweeps=300)
  np.testing.assert_allclose(node.decode(), w, atol=0.05)
