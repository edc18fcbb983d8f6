"""Distillation of regression against the rules of the papers, one by one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress.distill import regression
from compress.method import Batch, Ctx, Method

Y = np.float32([[0.0], [1.0], [2.0], [3.0]])
TEACHER = np.float32([[0.1], [3.0], [2.0], [2.0]])
STUDENT = np.float32([[0.5], [2.0], [2.1], [3.2]])


def loss(made: Method, student: Any = STUDENT, y: Any = Y) -> Any:
  x = jnp.zeros(len(Y))
  batch = Batch(x, jnp.asarray(y), jnp.asarray(student), jnp.asarray(TEACHER))
  return made.loss({}, Ctx(batch=batch))


@pytest.mark.parametrize('y', [Y, Y[:, 0]])
@pytest.mark.parametrize(
  ('margin', 'counted'), [(0.0, [0, 2]), (0.97, [0, 2, 3]), (5.0, [0, 1, 2, 3])]
)
def test_examples_better_than_the_teacher_have_no_loss(
  margin: float, counted: list[int], y: Any
) -> None:
  gaps = (STUDENT - Y)[:, 0] ** 2
  want = 0.5 * gaps[counted].sum() / len(Y)
  got = loss(regression.bounded(margin, 0.5), y=y)
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_bounded_student_has_no_gradient() -> None:
  made = regression.bounded()
  grads = jax.grad(lambda s: loss(made, s))(jnp.asarray(STUDENT))
  assert np.flatnonzero(grads).tolist() == [0, 2]


def test_a_label_far_from_the_teacher_is_replaced() -> None:
  target = np.where(np.abs(Y - TEACHER) <= 1.5, Y, TEACHER)
  assert np.flatnonzero(target != Y).tolist() == [1]
  want = 2 * np.mean((STUDENT - target) ** 2)
  got = loss(regression.trusted(1.5, 2.0))
  np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.slow
def test_outliers_move_a_student_less_than_the_labels_do() -> None:
  """A line through points of which a tenth were mistaken by 50."""
  drawn = np.random.default_rng(0)
  x = drawn.uniform(-1, 1, (200, 1)).astype(np.float32)
  clean = 2 * x
  y = np.where(np.arange(200)[:, None] % 10 == 0, clean + 50, clean)

  def fit(of: Any) -> float:
    w = jnp.zeros((1, 1))
    for _ in range(60):
      w -= 0.3 * jax.grad(of)(w)
    return float(w[0, 0])

  made = regression.trusted(1.0)
  near = clean + 0.1  # a teacher that is a little off

  def trusted(w: Any) -> Any:
    return made.loss({}, Ctx(batch=Batch(x, y, x @ w, jnp.asarray(near))))

  believed = fit(lambda w: jnp.mean((x @ w - y) ** 2))
  assert abs(fit(trusted) - 2) < 0.05 < abs(believed - 2)


@pytest.mark.parametrize('y', [np.arange(4), np.ones((4, 2), np.float32)])
@pytest.mark.parametrize(
  'made', [regression.bounded(), regression.trusted(1.0)]
)
def test_classes_are_refused(made: Method, y: Any) -> None:
  with pytest.raises(ValueError, match='It is for regression; distill.kd'):
    loss(made, y=y)
