"""The process against scikit-learn's, and against its own definition."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import monitoring
from sklearn.gaussian_process import GaussianProcessRegressor, kernels

from search import gp

D, N = 3, 11
RNG = np.random.default_rng(0)
X, Y = RNG.random((N, D)), RNG.standard_normal(N)
NUMBERS = np.zeros(D, bool)
# Length-scales 0.5, 1 and 2, all of it Matern, variance 1.7, noise 0.01.
THETA = np.array(
  [
    *(-2 * np.log([0.5, 1.0, 2.0])),
    *np.zeros(D),
    *(np.log(1.7), -50.0, -50.0, np.log(0.01 - gp.NOISE)),
  ]
)


def reference() -> GaussianProcessRegressor:
  """Return the same process of scikit-learn."""
  matern = kernels.Matern([0.5, 1.0, 2.0], nu=2.5)
  kernel = kernels.ConstantKernel(1.7) * matern
  model = GaussianProcessRegressor(kernel, alpha=0.01, optimizer=None)
  return model.fit(X, Y)


@pytest.mark.slow
def test_posterior_is_scikit_learn_s() -> None:
  at = RNG.random((5, D))
  mean, deviation = reference().predict(at, return_std=True)
  with gp.precise():
    data = gp.padded(X, Y)
    model = gp.condition(THETA, NUMBERS, data, data.y[:, None])
    found = gp.predict(model, NUMBERS, at)
  np.testing.assert_allclose(found[0][:, 0], mean, rtol=1e-8)
  np.testing.assert_allclose(found[1], deviation, rtol=1e-7)


def test_likelihood_is_scikit_learn_s() -> None:
  want = reference().log_marginal_likelihood()
  with gp.precise():
    value, _ = gp.loss(THETA, NUMBERS, gp.padded(X, Y))
    found = -float(value + gp.log_prior(THETA)) - N / 2 * np.log(2 * np.pi)
  np.testing.assert_allclose(found, want, rtol=1e-8)


def test_gradient_is_that_of_differences() -> None:
  theta = gp.start(D) + RNG.standard_normal(2 * D + 4) * 0.3
  category = np.array([False, True, False])
  x = np.where(category, np.round(X * 2) / 2, X)
  with gp.precise():
    data = gp.padded(x, Y)
    _, slope = gp.loss(theta, category, data)
    for i, step in enumerate(1e-5 * np.eye(len(theta))):
      up, down = (gp.loss(theta + s, category, data)[0] for s in (step, -step))
      np.testing.assert_allclose(slope[i], (up - down) / 2e-5, atol=1e-5)


def test_joint_posterior_is_scikit_learn_s() -> None:
  _, covariance = reference().predict(X, return_cov=True)
  with gp.precise():
    data = gp.padded(X, Y)
    model = gp.condition(THETA, NUMBERS, data, data.y[:, None])
    found = np.asarray(gp.joint(model, NUMBERS)[1])[:N, :N]
  np.testing.assert_allclose(found, covariance, atol=1e-8)


def test_kernel_of_categories_counts_what_differs() -> None:
  theta = np.array([0.0, 0.0, 0.0, 0.0, 0.0, -50.0, -50.0, 0.0])
  a = np.array([[0.25, 0.1], [0.75, 0.1]])
  with gp.precise():
    found = gp.kernel(theta, np.array([True, False]), a, a)
  r = np.sqrt(5)
  want = (1 + r + r * r / 3) * np.exp(-r)  # at distance 1, not at 1/2
  np.testing.assert_allclose(found, [[1, want], [want, 1]], rtol=1e-9)


@pytest.mark.slow
def test_the_smooth_part_is_scikit_learn_s() -> None:
  theta = THETA.copy()
  theta[-2] = 50.0
  with gp.precise():
    found = gp.kernel(theta, NUMBERS, X, X)
  want = 1.7 * kernels.RBF([0.5, 1.0, 2.0])(X)
  np.testing.assert_allclose(found, want, rtol=1e-9)


@given(share=st.floats(-3, 3), smooth=st.floats(-3, 3), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_kernel_is_a_covariance(share: float, smooth: float, seed: int) -> None:
  rng = np.random.default_rng(seed)
  theta = rng.standard_normal(2 * D + 4)
  theta[-3:-1] = share, smooth
  with gp.precise():
    found = np.asarray(gp.kernel(theta, NUMBERS, X, X))
  np.testing.assert_allclose(np.diag(found), np.exp(theta[-4]), rtol=1e-9)
  assert np.linalg.eigvalsh(found).min() > -1e-9


def test_fit_is_best_near_by() -> None:
  y = np.sin(5 * X[:, 0])
  y = (y - y.mean()) / y.std()
  with gp.precise():
    theta, value = gp.fit(X, y, NUMBERS)
    data = gp.padded(X, y)
    for step in RNG.standard_normal((20, len(theta))) * 0.05:
      assert gp.loss(theta + step, NUMBERS, data)[0] > value - 1e-3
  length = np.exp(-0.5 * theta[:D])
  assert length[0] < min(length[1:])  # it has found what matters


@pytest.mark.slow
def test_nothing_compiles_twice_within_a_padding() -> None:
  compiled = []
  monitoring.register_event_duration_secs_listener(
    lambda event, _, **__: compiled.append(event)
  )
  try:
    with gp.precise():
      for n in (33, 40, 64, 65):
        data = gp.padded(RNG.random((n, 2)), RNG.standard_normal(n))
        gp.loss(gp.start(2), np.zeros(2, bool), data)
        count = sum('backend_compile' in event for event in compiled)
        compiled.clear()
        assert count == (n in (33, 65)), n
  finally:
    monitoring.clear_event_listeners()


def test_hyper_parameters_come_from_the_best_and_from_all() -> None:
  y = RNG.permutation(300.0 + np.arange(300))
  rows = gp.spread(y, 20)
  assert len(set(rows)) == 20
  ranks = scipy.stats.rankdata(y)[rows]
  assert sorted(ranks)[:10] == list(range(1, 11)) and max(ranks) == 300


@pytest.mark.parametrize(('n', 'want'), [(1, 32), (32, 32), (33, 64)])
def test_padding_is_a_power_of_two(n: int, want: int) -> None:
  data = gp.padded(np.ones((n, 2)), np.ones(n))
  assert data.x.shape == (want, 2)
  assert data.mask.sum() == data.y.sum() == n
