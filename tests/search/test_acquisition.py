"""Acquisition functions against quadrature and sampling."""

import jax
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from search import acquisition, gp, pareto
from search.acquisition import Goal


@pytest.mark.parametrize('z', [2.0, 0.0, -0.9, -1.1, -5.0, -30.0])
def test_log_h_is_an_integral(z: float) -> None:
  # E max(z - x, 0) over a normal x, shifted so that nothing underflows.
  full, _ = scipy.integrate.quad(
    lambda t: t * np.exp(-0.5 * t * t + z * t), 0, 60
  )
  want = np.log(full) - 0.5 * z * z - 0.5 * np.log(2 * np.pi)
  with gp.precise():
    np.testing.assert_allclose(acquisition.log_h(np.array(z)), want, rtol=1e-7)


@pytest.mark.slow
def test_log_h_is_smooth_where_its_forms_meet() -> None:
  with gp.precise():
    for z in (-1.0, acquisition.FAR):
      sides = np.array([z - 1e-6, z + 1e-6])
      value, slope = jax.vmap(jax.value_and_grad(acquisition.log_h))(sides)
      np.testing.assert_allclose(value[0], value[1], rtol=1e-4)
      np.testing.assert_allclose(slope[0], slope[1], rtol=1e-3)
    assert np.isfinite(jax.grad(acquisition.log_h)(-1e8))


def test_ei_is_the_mean_improvement() -> None:
  draws = 0.3 + 0.7 * np.random.default_rng(0).standard_normal(1_000_000)
  want = np.log(np.maximum(0.1 - draws, 0).mean())
  with gp.precise():
    found = acquisition.log_ei(*map(np.float64, (0.3, 0.7, 0.1)))
  np.testing.assert_allclose(found, want, atol=5e-3)


def goal(
  corners: np.ndarray,
  limits: np.ndarray,
  count: int,
  seconds: tuple[float, ...] = (),
) -> Goal:
  """Return a goal of some processes that saw different outputs."""
  rng = np.random.default_rng(1)
  x = rng.random((6, 2))
  category = np.zeros(2, bool)
  models = []
  for _ in range(count):
    data = gp.padded(x, rng.standard_normal(6))
    models.append(gp.condition(gp.start(2), category, data, data.y[:, None]))
  stacked = jax.tree.map(lambda *a: np.stack(a), *models)
  weight = np.ones(len(corners))
  best, improve, took = np.array([-0.5]), np.ones(()), np.array(seconds)
  return Goal(stacked, category, best, corners, weight, limits, improve, took)


@pytest.mark.slow
def test_ehvi_is_the_mean_growth_of_the_volume() -> None:
  front = np.array([[-0.5, 0.6], [0.0, 0.0], [0.7, -0.4]])
  reference = np.array([1.0, 1.0])
  with gp.precise():
    made = goal(pareto.boxes(front, reference), np.zeros(0), 2)
    x = np.array([[0.3, 0.8]])
    found = float(acquisition.scores(made, x)[0])
    mean, deviation = map(
      np.asarray,
      jax.vmap(gp.predict, (0, None, None))(made.models, made.category, x),
    )
  rng = np.random.default_rng(0)
  draws = mean[:, 0, 0] + deviation[:, 0] * rng.standard_normal((4000, 2))
  before = pareto.hypervolume(front, reference)
  grown = [pareto.hypervolume(np.vstack([front, d]), reference) for d in draws]
  np.testing.assert_allclose(np.exp(found), np.mean(grown) - before, rtol=0.06)


@pytest.mark.slow
def test_score_multiplies_by_the_chance_to_be_feasible() -> None:
  with gp.precise():
    made = goal(np.zeros((1, 2, 1)), np.array([0.2]), 2)
    x = np.array([[0.1, 0.2], [0.9, 0.4]])
    mean, deviation = jax.vmap(gp.predict, (0, None, None))(
      made.models, made.category, x
    )
    gain = acquisition.log_ei(mean[0, :, 0], deviation[0], -0.5)
    chance = scipy.stats.norm.logcdf((0.2 - mean[1, :, 0]) / deviation[1])
    np.testing.assert_allclose(
      acquisition.scores(made, x), gain + chance, rtol=1e-9
    )
    none = made._replace(improve=np.zeros(()))
    np.testing.assert_allclose(acquisition.scores(none, x), chance, atol=1e-12)


@pytest.mark.slow
def test_improvements_are_divided_by_seconds() -> None:
  with gp.precise():
    made = goal(np.zeros((1, 2, 1)), np.array([0.2]), 3, (0.7,))
    x = np.array([[0.1, 0.2], [0.9, 0.4]])
    free = made._replace(
      models=jax.tree.map(lambda a: a[:2], made.models), seconds=np.zeros(0)
    )
    took, _ = gp.predict(
      jax.tree.map(lambda a: a[2], made.models), made.category, x
    )
    want = acquisition.scores(free, x) - 0.7 * took[:, 0]
    np.testing.assert_allclose(acquisition.scores(made, x), want, rtol=1e-9)


@pytest.mark.slow
def test_climbing_rises_and_keeps_what_is_not_free() -> None:
  with gp.precise():
    made = goal(np.zeros((1, 2, 1)), np.zeros(0), 1)
    starts = np.array([[0.5, 0.5], [0.2, 0.9]])
    free = np.array([[True, True], [True, False]])
    ends = acquisition.climb(made, starts, free)
    before, after = (
      np.asarray(acquisition.scores(made, at)) for at in (starts, ends)
    )
  rise = after - before
  assert np.all(rise >= 0) and np.any(rise > 0.1)
  assert ends[1, 1] == 0.9
  assert ends.min() >= 0 and ends.max() <= 1
