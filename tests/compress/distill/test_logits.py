"""Distillation against formulas in numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe
from compress.distill import logits as logits_lib
from compress.method import TEACHER, Batch, Ctx, Method, chain, only
from compress.schedule import linear
from compress.tree import Array


def softmax(z: np.ndarray) -> np.ndarray:
  e = np.exp(z - z.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def loss_of(
  method: Method, outputs: Array, teacher: Array | None, **ctx: Any
) -> Array:
  """Return what a method adds for labels 0, 1, 2, ..."""
  x, y = jnp.zeros((len(outputs), 2)), jnp.arange(len(outputs))
  return method.loss({}, Ctx(**ctx, batch=Batch(x, y, outputs, teacher)))


def loss(
  outputs: Array, teacher: Array | None, t: float = 4.0, w: float = 1.0
) -> Array:
  return loss_of(logits_lib.kd(t, w), outputs, teacher)


@pytest.fixture
def logits() -> tuple[Array, Array]:
  student, teacher = jax.random.normal(jax.random.key(0), (2, 5, 7)) * 3
  return student, teacher


@pytest.mark.slow
@pytest.mark.parametrize(('t', 'w'), [(1.0, 1.0), (4.0, 0.5), (20.0, 2.0)])
def test_kd_is_equation_of_hinton(
  logits: tuple[Array, Array], t: float, w: float
) -> None:
  student, teacher = (np.asarray(z, np.float64) for z in logits)
  p, q = softmax(teacher / t), softmax(student / t)
  want = w * t**2 * (p * np.log(p / q)).sum(-1).mean()
  np.testing.assert_allclose(loss(*logits, t, w), want, rtol=1e-4)


def test_equal_distributions_have_no_loss(
  logits: tuple[Array, Array],
) -> None:
  student, _ = logits
  shifted = student + 3  # the same distribution
  np.testing.assert_allclose(loss(student, shifted), 0, atol=1e-5)
  grads = jax.grad(loss)(student, shifted)
  np.testing.assert_allclose(grads, 0, atol=1e-5)


def test_the_high_temperature_limit_is_logit_matching(
  logits: tuple[Array, Array],
) -> None:
  """At large T the gradient is (z_s - z_t) / classes, both centered."""
  student, teacher = logits
  grads = jax.grad(loss)(student, teacher, 300.0)
  gap = student - teacher
  centered = gap - gap.mean(-1, keepdims=True)
  want = centered / gap.shape[-1] / len(gap)
  np.testing.assert_allclose(grads, want, atol=5e-3)


@pytest.mark.parametrize(
  ('t', 'w', 'what'), [(0, 1, 'temperature'), (4, -1, 'weight')]
)
def test_arguments_are_positive(t: float, w: float, what: str) -> None:
  with pytest.raises(ValueError, match=f'a {what} above 0'):
    logits_lib.kd(t, w)


def test_a_teacher_is_needed_with_the_same_classes(
  logits: tuple[Array, Array],
) -> None:
  student, teacher = logits
  with pytest.raises(ValueError, match='expected a teacher, got a batch'):
    loss(student, None)
  with pytest.raises(ValueError, match='same classes'):
    loss(student, teacher[:, :3])


@pytest.mark.slow
def test_dkd_is_its_two_divergences(logits: tuple[Array, Array]) -> None:
  t, target, others = 3.0, 2.0, 8.0
  made = logits_lib.dkd(t, target=target, non_target=others, weight=0.5)
  want = 0.0
  for i, (z_s, z_t) in enumerate(zip(*map(np.float64, logits), strict=True)):
    q, p = softmax(z_s / t), softmax(z_t / t)
    pair = p[i] * np.log(p[i] / q[i])
    pair += (1 - p[i]) * np.log((1 - p[i]) / (1 - q[i]))
    p, q = (np.delete(x, i) / (1 - x[i]) for x in (p, q))
    want += target * pair + others * (p * np.log(p / q)).sum()
  want *= 0.5 * t**2 / len(logits[0])
  np.testing.assert_allclose(loss_of(made, *logits), want, rtol=1e-4)
  grads = jax.grad(lambda z: loss_of(made, z, logits[1]))(logits[0])
  assert np.isfinite(grads).all() and np.any(grads)


@pytest.mark.slow
def test_kd_is_dkd_weighed_by_the_confidence_of_the_teacher(
  logits: tuple[Array, Array],
) -> None:
  """Zhao+ 2022, equation 4: KD = TCKD + (1 - p_t) NCKD, here one example."""
  student, teacher = (z[:1] for z in logits)
  sure = softmax(np.float64(teacher))[0, 0]
  made = logits_lib.dkd(1.0, non_target=float(1 - sure))
  want = loss(student, teacher, 1.0)
  np.testing.assert_allclose(loss_of(made, student, teacher), want, rtol=1e-4)


def test_dist_is_the_correlation_of_rows_and_columns(
  logits: tuple[Array, Array],
) -> None:
  t = 2.0
  p, q = (softmax(np.float64(z) / t) for z in logits)
  rows, columns = (
    np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(x, y, strict=True)])
    for x, y in ((p, q), (p.T, q.T))
  )
  made = logits_lib.dist(t, inter=2.0, intra=3.0)
  want = t**2 * (2 * (1 - rows) + 3 * (1 - columns))
  np.testing.assert_allclose(loss_of(made, *logits), want, rtol=1e-4)


def test_dist_does_not_need_equal_probabilities(
  logits: tuple[Array, Array],
) -> None:
  p = jax.nn.softmax(logits[1])
  weaker = jnp.log(0.5 * p + 0.5 / p.shape[1])  # a linear map of p
  made = logits_lib.dist(1.0)
  np.testing.assert_allclose(loss_of(made, weaker, logits[1]), 0, atol=1e-5)
  assert float(loss(weaker, logits[1], 1.0)) > 0.1


def test_mse_is_the_mean_square(logits: tuple[Array, Array]) -> None:
  want = 0.5 * np.mean((logits[0] - logits[1]) ** 2)
  got = loss_of(logits_lib.mse(0.5), *logits)
  np.testing.assert_allclose(got, want, rtol=1e-6)


def test_weights_grow_and_temperatures_fall_with_the_run(
  logits: tuple[Array, Array],
) -> None:
  half = {'step': 5, 'steps': 10}
  grown = logits_lib.kd(3.0, 2.0, schedule=linear(0.0, 1.0))
  cooled = logits_lib.kd(3.0, 2.0, temperature_schedule=linear(0.0, 1.0))
  want = float(loss(*logits, 3.0, 2.0))
  assert float(loss_of(grown, *logits, step=0, steps=10)) == 0
  assert float(loss_of(grown, *logits, **half)) == pytest.approx(want / 2)
  want = float(loss(*logits, 2.0, 2.0))
  got = float(loss_of(cooled, *logits, **half))
  assert got == pytest.approx(want, rel=1e-5)


def test_no_gradient_reaches_the_teacher(logits: tuple[Array, Array]) -> None:
  for text in ('kd', 'mse', 'dkd', 'dist'):
    made = recipe.parse(f'distill.{text}()')
    grads = jax.grad(lambda t, m=made: loss_of(m, logits[0], t))(logits[1])
    assert not np.any(grads)


def test_chains_require_what_their_methods_require() -> None:
  made = logits_lib.kd()
  assert made.requires == {TEACHER}
  assert chain(recipe.parse('prune.weights(0.5)'), made).requires == {TEACHER}
  assert only('fc/.*', made).requires == {TEACHER}
  assert (
    chain().requires == recipe.parse('quantize.int8()').requires == frozenset()
  )


@pytest.mark.parametrize(
  ('text', 'said'),
  [
    ('distill.dkd(0.0)', 'dkd: expected a temperature above 0'),
    ('distill.dist(-1.0)', 'dist: expected a temperature'),
    ('distill.mse(0)', 'mse: expected a weight above 0, got 0'),
    (
      'distill.kd(4.0, temperature_schedule=0.5)',
      'expected a schedule .* got 0.5',
    ),
    ('distill.mse(schedule=1)', 'expected a schedule .* got 1'),
    ('distill.probe("a", 0.0)', 'probe: expected a temperature above 0'),
    ('distill.fitnet("")', "fitnet: expected the path of a layer .* got ''"),
    ('distill.rkd(angle=-1.0)', 'weights of 0 or more.* angle=-1.0'),
    ('distill.rkd(distance=0.0, angle=0.0)', 'one of them above'),
    ('distill.bounded(-1.0)', 'bounded: expected a margin from 0, got -1.0'),
    ('distill.trusted(0.0)', 'trusted: expected a limit above 0, got 0.0'),
  ],
)
def test_impossible_arguments(text: str, said: str) -> None:
  with pytest.raises(ValueError, match=said):
    recipe.parse(text)


def test_outputs_are_checked_before_training(
  logits: tuple[Array, Array],
) -> None:
  shapes = jax.eval_shape(
    lambda: Batch(jnp.zeros(5), jnp.zeros(5, int), *logits)
  )
  made = logits_lib.kd()
  assert made.init({}, Ctx(batch=shapes)) == {}
  other = shapes._replace(teacher=jax.ShapeDtypeStruct((5, 3), jnp.float32))
  with pytest.raises(ValueError, match='same classes'):
    made.init({}, Ctx(batch=other))
  with pytest.raises(ValueError, match='expected a batch to compare, got none'):
    made.loss({}, Ctx())
