"""Circulant tiles against SciPy's."""

import jax.numpy as jnp
import numpy as np
import scipy.linalg

from compress.structured import tiles
from compress.structured.circulant import expand, multiply, project, signs


def drawn(*shape: int) -> np.ndarray:
  return np.float32(np.random.default_rng(1).normal(size=shape))


def test_tiles_are_signed_circulants() -> None:
  values = jnp.asarray(drawn(2, 3, 1, 5))
  held = signs(7, 2, 5)
  found = np.asarray(expand(values, held))
  for i in range(2):
    sign = np.diag(np.where(held[i], 1.0, -1.0))
    for j in range(3):
      want = sign @ scipy.linalg.circulant(values[i, j, 0]).T
      np.testing.assert_array_equal(found[i, j], want)
  assert 0 < np.mean(np.asarray(held)) < 1


def test_projection_is_the_least_squares_solution() -> None:
  w = drawn(7, 6)  # tiles of 4 reach beyond both sides
  held = signs(3, 2, 4)
  observed = tiles.split(jnp.ones_like(w), 4)
  values = project(tiles.split(w, 4), observed, held, 1)
  columns = []
  for i in range(values.size):
    unit = jnp.zeros(values.size).at[i].set(1).reshape(values.shape)
    made = tiles.join(expand(unit, held), w.shape)
    columns.append(np.asarray(made).ravel())
  want = np.linalg.lstsq(np.stack(columns, 1), w.ravel(), rcond=None)[0]
  np.testing.assert_allclose(np.ravel(values), want, atol=1e-5)


def test_fourier_transforms_multiply_as_the_matrix_does() -> None:
  values, held = jnp.asarray(drawn(2, 3, 1, 8)), signs(5, 2, 8)
  matrix = tiles.join(expand(values, held), (16, 24))
  x = drawn(4, 16)
  found = multiply(jnp.asarray(x).reshape(4, 2, 8), values, held)
  np.testing.assert_allclose(found.reshape(4, 24), x @ matrix, atol=1e-4)
