"""Signs against NumPy, and the slopes that stand in for theirs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress.binary import straight_through

X = np.float32([-2.0, -1.0, -0.6, -1e-30, -0.0, 0.0, 0.25, 1.0, 1.5])
SLOPES = {
  'clipped': [0, 1, 1, 1, 1, 1, 1, 1, 0],
  'quadratic': [0, 0, 0.8, 2, 2, 2, 1.5, 0, 0],
}


@pytest.mark.parametrize('name', sorted(straight_through.SIGNS))
def test_signs_and_slopes(name: str) -> None:
  fn = straight_through.SIGNS[name]
  np.testing.assert_array_equal(fn(X), np.where(X >= 0, 1, -1))
  slopes = jax.vmap(jax.grad(fn))(jnp.asarray(X))
  np.testing.assert_allclose(slopes, SLOPES[name], rtol=1e-6)
  assert fn(X).dtype == np.float32
  assert fn(X.astype(np.float16)).dtype == np.float16


@pytest.mark.parametrize('name', sorted(straight_through.SIGNS))
def test_a_diverged_number_stays_one(name: str) -> None:
  fn = straight_through.SIGNS[name]
  assert np.isnan(fn(jnp.float32(np.nan)))
  found = fn(jnp.array([-jnp.inf, jnp.inf]))
  assert found.tolist() == [-1.0, 1.0]


def test_the_quadratic_slope_is_that_of_its_polynomial() -> None:
  # Bi-Real Net: 2x + x^2 below 0 and 2x - x^2 above.
  x = np.linspace(-0.95, 0.95, 20)
  step = 1e-4

  def polynomial(x: np.ndarray) -> np.ndarray:
    return 2 * x - np.sign(x) * x**2

  slope = (polynomial(x + step) - polynomial(x - step)) / (2 * step)
  found = jax.vmap(jax.grad(straight_through.quadratic))(jnp.float32(x))
  np.testing.assert_allclose(found, slope, rtol=1e-4)


@pytest.mark.slow
def test_signs_are_drawn_as_often_as_they_should_be() -> None:
  x = jnp.array([-1.5, -1.0, -0.5, 0.0, 0.8, 1.0, 3.0])
  many = jnp.broadcast_to(x, (4000, 7))
  found = np.asarray(straight_through.stochastic(many, jax.random.key(0)))
  assert set(found.ravel()) == {-1.0, 1.0}
  # Four standard deviations of the mean of 4000 signs.
  np.testing.assert_allclose(found.mean(0), np.clip(x, -1, 1), atol=0.064)
  for at in (0, 1, 5, 6):
    assert len(set(found[:, at])) == 1


def test_drawn_signs_pass_gradients_as_the_others_do() -> None:
  slopes = jax.grad(
    lambda x: jnp.sum(straight_through.stochastic(x, jax.random.key(1)))
  )(jnp.asarray(X))
  np.testing.assert_array_equal(slopes, SLOPES['clipped'])
