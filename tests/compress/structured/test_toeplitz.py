"""Toeplitz-like tiles against SciPy's and the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from compress.structured.toeplitz import (
  displaced,
  expand,
  f_circulant,
  project,
  summed,
)


def drawn(*shape: int) -> np.ndarray:
  return np.float32(np.random.default_rng(2).normal(size=shape))


def errors(tile: np.ndarray, rank: int) -> float:
  """Return the share of a tile that its projection misses."""
  tiles = jnp.asarray(tile)[None, None]
  values = project(tiles, jnp.ones_like(tiles), None, 2 * rank)
  gap = expand(values) - tiles
  return float(jnp.sum(gap**2) / jnp.sum(tiles**2))


def test_f_circulant_vectors_are_scipys() -> None:
  v = drawn(5)
  row = np.concatenate([v[:1], -v[:0:-1]])
  want = scipy.linalg.toeplitz(v, row)
  np.testing.assert_array_equal(f_circulant(jnp.asarray(v), -1), want)
  np.testing.assert_array_equal(
    f_circulant(jnp.asarray(v), 1), scipy.linalg.circulant(v)
  )


def test_displacement_is_that_of_shift_matrices() -> None:
  m, shift = drawn(6, 6), np.roll(np.eye(6), 1, 0)
  minus = shift.copy()
  minus[0, -1] = -1
  want = shift @ m - m @ minus
  np.testing.assert_allclose(displaced(jnp.asarray(m)), want)


@pytest.mark.slow
def test_tiles_have_the_rank_of_their_values() -> None:
  made = expand(jnp.asarray(drawn(1, 1, 4, 8)))[0, 0]
  s = np.linalg.svd(displaced(made), compute_uv=False)
  assert s[1] > 1e3 * s[2]


@pytest.mark.slow
@pytest.mark.parametrize('invert', [False, True])
def test_toeplitz_matrices_and_inverses_have_rank_two(invert: bool) -> None:
  tile = scipy.linalg.toeplitz(drawn(8), drawn(8)) + 8 * np.eye(8)
  tile = np.float32(np.linalg.inv(tile) if invert else tile)
  assert errors(tile, 2) < 1e-8
  assert errors(tile, 1) > 1e-4


def test_least_squares_come_nearer_than_the_cut_displacement() -> None:
  tile = drawn(8, 8)
  u, s, vt = np.linalg.svd(displaced(jnp.asarray(tile)))
  cut = (u[:, :1] * s[:1]) @ vt[:1]
  # The map from matrices to displacements is invertible.
  every = [
    np.ravel(displaced(jnp.asarray(np.float32(unit))))
    for unit in np.eye(64).reshape(64, 8, 8)
  ]
  plain = np.linalg.solve(np.stack(every, 1), cut.ravel()).reshape(8, 8)
  before = np.sum((plain - tile) ** 2) / np.sum(tile**2)
  assert errors(tile, 1) < before - 0.02


@pytest.mark.parametrize('f', [1, -1])
@pytest.mark.parametrize('n', [1, 2, 5, 8])
def test_sums_are_the_adjoint_of_circulants(n: int, f: int) -> None:
  m = jax.random.normal(jax.random.key(n), (3, 2, n, n))
  v = jnp.zeros((3, 2, n))
  (want,) = jax.linear_transpose(lambda v: f_circulant(v, f), v)(m)
  np.testing.assert_allclose(summed(m, f), want, atol=1e-5)
