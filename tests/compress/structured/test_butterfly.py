"""Butterfly tiles against products of sparse factors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from compress.structured.butterfly import BUTTERFLY, expand, project


def projected(tile: np.ndarray) -> np.ndarray:
  tiles = jnp.float32(tile)[None, None]
  lines = BUTTERFLY.lines(len(tile), 1)
  values = project(tiles, jnp.ones_like(tiles), None, lines)
  assert values.shape == (1, 1, lines, len(tile))
  return np.asarray(expand(values)[0, 0])


def test_a_tile_is_a_product_of_factors_of_pairs() -> None:
  values = np.random.default_rng(4).normal(size=(1, 1, 6, 8))
  want = np.eye(8)
  for stage in range(3):
    half, groups = 4 >> stage, 2**stage
    parts = values[0, 0, 2 * stage : 2 * stage + 2]
    parts = parts.reshape(groups, 2, 2, half)
    factor = scipy.linalg.block_diag(
      *(
        np.block([[np.diag(part) for part in row] for row in group])
        for group in parts
      )
    )
    want = factor @ want
  found = expand(jnp.float32(values))[0, 0]
  np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_hadamard_matrix_is_a_butterfly() -> None:
  h = scipy.linalg.hadamard(16)
  np.testing.assert_allclose(projected(h), h, atol=1e-4)


def test_gradients_of_many_tiles_are_those_of_one_by_one() -> None:
  # XLA of jax 0.10 crashed on this one when tiles had two axes.
  drawn = np.random.default_rng(6)
  values = jnp.float32(drawn.normal(size=(3, 2, 12, 64)))
  weight = jnp.float32(drawn.normal(size=(3, 2, 64, 64)))

  @jax.jit
  def slope(values: jax.Array, weight: jax.Array) -> jax.Array:
    return jax.grad(lambda v: jnp.vdot(expand(v), weight))(values)

  found = slope(values, weight)
  for i, j in np.ndindex(3, 2):
    one = slope(values[i : i + 1, j : j + 1], weight[i : i + 1, j : j + 1])
    np.testing.assert_allclose(found[i, j], one[0, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('size', [2, 4, 8])
def test_projection_is_exact_for_butterflies(size: int) -> None:
  drawn = np.random.default_rng(5)
  lines = BUTTERFLY.lines(size, 1)
  tile = expand(jnp.float32(drawn.normal(size=(1, 1, lines, size))))
  tile = np.asarray(tile[0, 0])
  np.testing.assert_allclose(projected(tile), tile, atol=1e-4)
  # Two inputs and outputs are any matrix; more are not.
  other = drawn.normal(size=(size, size))
  assert np.allclose(projected(other), other, atol=1e-5) == (size == 2)
