"""Fastfood tiles against the product of their factors."""

import jax.numpy as jnp
import numpy as np
import scipy.linalg

from compress.structured.fastfood import expand, hadamard, permutation, project


def drawn(*shape: int) -> np.ndarray:
  return np.float32(np.random.default_rng(3).normal(size=shape))


def test_the_transform_is_scipys_and_orthogonal() -> None:
  h = hadamard(16)
  np.testing.assert_allclose(h, scipy.linalg.hadamard(16) / 4)
  np.testing.assert_allclose(h @ h, np.eye(16), atol=1e-6)


def test_tiles_are_the_product_of_seven_factors() -> None:
  values, held = drawn(1, 1, 3, 8), permutation(5, 1, 8)
  s, g, b = (np.diag(line) for line in values[0, 0])
  h, shuffle = scipy.linalg.hadamard(8) / 8**0.5, np.eye(8)[np.asarray(held)]
  want = s @ h @ g @ shuffle @ h @ b  # of columns; the network has rows
  found = expand(jnp.asarray(values), held)[0, 0]
  np.testing.assert_allclose(found, want.T, atol=1e-6)


def test_projection_cannot_be_improved_in_one_diagonal() -> None:
  tiles, held = jnp.asarray(drawn(1, 1, 8, 8)), permutation(0, 1, 8)
  values = project(tiles, jnp.ones_like(tiles), held, 3)

  def error(values: jnp.ndarray) -> float:
    return float(jnp.sum((expand(values, held) - tiles) ** 2))

  best = error(values)
  assert best < 0.7 * float(jnp.sum(tiles**2))
  # The outer left diagonal was fitted last: it is at its least.
  for i in range(8):
    for change in (-0.05, 0.05):
      assert error(values.at[0, 0, 0, i].add(change)) > best


def test_empty_tiles_stay_finite() -> None:
  tiles, held = jnp.zeros((1, 1, 4, 4)), permutation(0, 1, 4)
  values = project(tiles, tiles, held, 3)
  assert np.all(np.isfinite(values))
  assert not np.asarray(expand(values, held)).any()
