"""Distillation against formulas in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import distill
from compress.method import Batch, Ctx
from compress.tree import Array


def softmax(z: np.ndarray) -> np.ndarray:
  e = np.exp(z - z.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def loss(
  outputs: Array, teacher: Array | None, t: float = 4.0, w: float = 1.0
) -> Array:
  x, y = jnp.zeros((len(outputs), 2)), jnp.zeros(len(outputs), jnp.int32)
  ctx = Ctx(batch=Batch(x, y, outputs, teacher))
  return distill.logits(t, w).loss({}, ctx)


@pytest.fixture
def logits() -> tuple[Array, Array]:
  student, teacher = jax.random.normal(jax.random.key(0), (2, 5, 7)) * 3
  return student, teacher


@pytest.mark.parametrize(('t', 'w'), [(1.0, 1.0), (4.0, 0.5), (20.0, 2.0)])
def test_it_is_the_divergence_of_hinton(
  logits: tuple[Array, Array], t: float, w: float
) -> None:
  student, teacher = (np.asarray(z, np.float64) for z in logits)
  p, q = softmax(teacher / t), softmax(student / t)
  want = w * t**2 * (p * np.log(p / q)).sum(-1).mean()
  np.testing.assert_allclose(loss(*logits, t, w), want, rtol=1e-4)


def test_a_student_that_agrees_has_no_loss(
  logits: tuple[Array, Array],
) -> None:
  student, _ = logits
  shifted = student + 3  # the same distribution
  np.testing.assert_allclose(loss(student, shifted), 0, atol=1e-5)
  grads = jax.grad(loss)(student, shifted)
  np.testing.assert_allclose(grads, 0, atol=1e-5)


def test_hot_limit_is_logit_matching(logits: tuple[Array, Array]) -> None:
  """At large T the gradient is (z_s - z_t) / classes, both centred."""
  student, teacher = logits
  grads = jax.grad(loss)(student, teacher, 300.0)
  gap = student - teacher
  centred = gap - gap.mean(-1, keepdims=True)
  want = centred / gap.shape[-1] / len(gap)
  np.testing.assert_allclose(grads, want, atol=5e-3)


@pytest.mark.parametrize(
  ('t', 'w', 'what'), [(0, 1, 'temperature'), (4, -1, 'weight')]
)
def test_arguments_are_positive(t: float, w: float, what: str) -> None:
  with pytest.raises(ValueError, match=f'a {what} above 0'):
    distill.logits(t, w)


def test_a_teacher_is_needed_with_the_same_classes(
  logits: tuple[Array, Array],
) -> None:
  student, teacher = logits
  with pytest.raises(ValueError, match='expected a teacher, got a batch'):
    loss(student, None)
  with pytest.raises(ValueError, match='same classes'):
    loss(student, teacher[:, :3])
