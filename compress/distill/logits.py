"""Logit distillation: losses on the outputs of student and teacher.

The task loss has the weight 1. For an adaptive optimizer only the ratio of the
weights matters, so that $(1 - \\alpha) L + \\alpha D$ is a weight of
$\\alpha / (1 - \\alpha)$ here.
"""

import jax
import jax.numpy as jnp

from compress.distill.base import (
  expect_positive,
  expect_schedules,
  logit_pair,
  make_distillation,
)
from compress.method import Batch, Method
from compress.schedule import Schedule
from compress.tree import Array, Params


def kd(
  temperature: float = 4.0,
  weight: float = 1.0,
  *,
  schedule: Schedule | None = None,
  temperature_schedule: Schedule | None = None,
) -> Method:
  r"""Match the teacher's softened distribution.

  Adds $w T^2 \, \mathrm{KL}(\sigma(z_t / T) \| \sigma(z_s / T))$ to the task
  loss (Hinton+ 2015, arXiv 1503.02531, section 2). The teacher's outputs are
  part of the batch.

  Args:
    temperature: T, above 0; higher values weigh small probabilities more.
    weight: w, above 0.
    schedule: How the weight grows over the run; by default constant.
    temperature_schedule: How the temperature moves to 1 over the run, as
      `linear()` (annealing, Jafari+ 2021, arXiv 2104.07163); by default
      constant.

  Returns:
    The method; it has only a loss and chains like any other.

  Raises:
    ValueError: If an argument is not positive or a schedule not callable;
      before training, if there is no teacher or its shape differs.
  """
  where = 'distill.kd'
  expect_positive(where, temperature=temperature)
  expect_schedules(where, temperature_schedule)

  def cost(params: Params, batch: Batch, progress: Array) -> Array:
    del params
    student, teacher = logit_pair(where, batch)
    now = annealed(temperature, temperature_schedule, progress)
    return divergence(student, teacher, now)

  return make_distillation(where, cost, weight, schedule)


def annealed(
  temperature: float, schedule: Schedule | None, progress: Array
) -> float | Array:
  """Return the temperature at some progress, annealed to 1."""
  if schedule is None:
    return temperature
  return temperature + (1 - temperature) * schedule(progress)


def divergence(
  student: Array, teacher: Array, temperature: float | Array
) -> Array:
  r"""Return $T^2 \, \mathrm{KL}$ of softened logits `[batch, classes]`."""
  target = jax.nn.log_softmax(teacher / temperature)
  given = jax.nn.log_softmax(student / temperature)
  each = jnp.sum(jnp.exp(target) * (target - given), axis=-1)
  return temperature**2 * jnp.mean(each)


def mse(weight: float = 1.0, *, schedule: Schedule | None = None) -> Method:
  r"""Match the teacher's outputs in mean square.

  Adds $w \, \mathrm{mean}((z_s - z_t)^2)$: up to the mean of the logits, the
  limit of `kd` at high temperatures (Hinton+ 2015, section 2.1); better on
  CIFAR-100 in Kim+ 2021 (arXiv 2105.08919, equation 5). It also applies to
  regression.

  Args:
    weight: w, above 0.
    schedule: How the weight grows over the run; by default constant.

  Returns:
    The method.

  Raises:
    ValueError: As `kd`.
  """
  where = 'distill.mse'

  def cost(params: Params, batch: Batch, progress: Array) -> Array:
    del params, progress
    student, teacher = logit_pair(where, batch)
    return jnp.mean((student - teacher) ** 2)

  return make_distillation(where, cost, weight, schedule)


def dkd(
  temperature: float = 4.0,
  *,
  target: float = 1.0,
  non_target: float = 8.0,
  weight: float = 1.0,
  schedule: Schedule | None = None,
) -> Method:
  r"""Weigh the target class and the other classes separately (decoupled KD).

  $w T^2 (\alpha \, \mathrm{KL}(b_t \| b_s) + \beta \, \mathrm{KL}(\hat p_t \|
  \hat p_s))$, where $b = (p, 1 - p)$, $p$ is the softened
  probability of the label, and $\hat p$ the distribution among the others
  (decoupled KD, Zhao+ 2022, arXiv 2203.08679, equation 7). `kd` is
  $\alpha = 1$ and $\beta = 1 - p_t$, which vanishes where the teacher is
  confident.

  Args:
    temperature: T, above 0.
    target: $\alpha$, above 0.
    non_target: $\beta$, above 0; 8 on CIFAR-100, 0.5 on ImageNet.
    weight: w, above 0.
    schedule: How the weight grows; the paper warms up over 20 of 240 epochs,
      `linear(0.0, 0.08)`. By default constant.

  Returns:
    The method.

  Raises:
    ValueError: As `kd`.
  """
  where = 'distill.dkd'
  expect_positive(
    where, temperature=temperature, target=target, non_target=non_target
  )

  def cost(params: Params, batch: Batch, progress: Array) -> Array:
    del params, progress
    student, teacher = logit_pair(where, batch)
    hot = jax.nn.one_hot(batch.labels, student.shape[-1], dtype=bool)
    # Finite, so that 0 times the difference of two of them is 0.
    hidden = [jnp.where(hot, -1e9, z) for z in (student, teacher)]
    parts = [_binary(z / temperature, hot) for z in (student, teacher)]
    label = divergence(parts[0], parts[1], 1.0)
    rest = divergence(hidden[0] / temperature, hidden[1] / temperature, 1.0)
    return temperature**2 * (target * label + non_target * rest)

  return make_distillation(where, cost, weight, schedule)


def _binary(z: Array, hot: Array) -> Array:
  """Return the log probabilities of the label and of the others."""
  log_p = jax.nn.log_softmax(z)
  label = jnp.max(jnp.where(hot, log_p, -jnp.inf), axis=-1)
  others = jax.nn.logsumexp(jnp.where(hot, -1e9, log_p), axis=-1)
  return jnp.stack([label, others], axis=-1)


def dist(
  temperature: float = 1.0,
  *,
  inter: float = 1.0,
  intra: float = 1.0,
  weight: float = 1.0,
  schedule: Schedule | None = None,
) -> Method:
  r"""Match correlations with the teacher instead of probabilities (DIST).

  $w T^2 (\beta (1 - \bar\rho_{\text{rows}}) + \gamma (1 -
  \bar\rho_{\text{columns}}))$ with Pearson's $\rho$ between the softened
  distributions of student and teacher: of each example over the classes and of
  each class over the batch (DIST, Huang+ 2022, arXiv 2205.10536, equations 8
  to 11). Small students match relations more easily than
  probabilities of strong teachers.

  Args:
    temperature: T, above 0.
    inter: $\beta$, of the relations between classes, above 0.
    intra: $\gamma$, of those within a class, above 0.
    weight: w, above 0.
    schedule: How the weight grows over the run; by default constant.

  Returns:
    The method.

  Raises:
    ValueError: As `kd`.
  """
  where = 'distill.dist'
  expect_positive(where, temperature=temperature, inter=inter, intra=intra)

  def cost(params: Params, batch: Batch, progress: Array) -> Array:
    del params, progress
    p, q = (jax.nn.softmax(z / temperature) for z in logit_pair(where, batch))
    rows, columns = 1 - pearson(p, q), 1 - pearson(p.T, q.T)
    return temperature**2 * (inter * rows + intra * columns)

  return make_distillation(where, cost, weight, schedule)


def pearson(x: Array, y: Array) -> Array:
  """Return the mean correlation of the rows of two matrices, `()`.

  >>> x = jnp.array([[1.0, 2.0, 4.0], [3.0, 1.0, 0.0]])
  >>> round(float(pearson(x, 5 - 2 * x)), 5)
  -1.0
  """
  x, y = (a - jnp.mean(a, axis=-1, keepdims=True) for a in (x, y))
  norms = jnp.sqrt(jnp.sum(x * x, -1) * jnp.sum(y * y, -1) + 1e-16)
  return jnp.mean(jnp.sum(x * y, -1) / norms)
