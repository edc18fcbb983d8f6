"""Distillation: losses that pull the network's outputs to its teacher's.

The task loss has the weight 1; only the ratio of the weights counts for an
adaptive optimiser, so $(1 - \\alpha) L + \\alpha D$ is a weight of
$\\alpha / (1 - \\alpha)$ here.
"""

import jax
import jax.numpy as jnp

from compress.distill.base import (
  answers,
  expect_positive,
  expect_schedules,
  taught,
)
from compress.method import Batch, Method
from compress.schedule import Schedule
from compress.tree import Array, Params


def kd(
  temperature: float = 4.0,
  weight: float = 1.0,
  *,
  schedule: Schedule | None = None,
  cool: Schedule | None = None,
) -> Method:
  r"""Match the teacher's softened distribution.

  Adds $w T^2 \, \mathrm{KL}(\sigma(z_t / T) \| \sigma(z_s / T))$ to the task
  loss (Hinton+ 2015, arXiv 1503.02531, section 2). The teacher's outputs come
  with the batch: whoever trains decides who teaches.

  Args:
    temperature: T, above 0; higher shows more of the small probabilities.
    weight: w, above 0.
    schedule: How the weight grows over the run; by default whole at once.
    cool: How the temperature moves to 1 over the run, as `linear()`
      (annealing, Jafari+ 2021, arXiv 2104.07163); by default not at all.

  Returns:
    The method; it has only a loss and chains like any other.

  Raises:
    ValueError: If an argument is not positive or no schedule; before training,
      if there is no teacher or one with other classes.
  """
  where = 'distill.kd'
  expect_positive(where, temperature=temperature)
  expect_schedules(where, cool)

  def cost(params: Params, batch: Batch, progress: Array) -> Array:
    del params
    student, teacher = answers(where, batch)
    return divergence(student, teacher, heat(temperature, cool, progress))

  return taught(where, cost, weight, schedule)


def heat(
  temperature: float, cool: Schedule | None, progress: Array
) -> float | Array:
  """Return the temperature on its way to 1."""
  if cool is None:
    return temperature
  return temperature + (1 - temperature) * cool(progress)


def divergence(
  student: Array, teacher: Array, temperature: float | Array
) -> Array:
  r"""Return $T^2 \, \mathrm{KL}$ of softened logits `[batch, classes]`."""
  target = jax.nn.log_softmax(teacher / temperature)
  said = jax.nn.log_softmax(student / temperature)
  each = jnp.sum(jnp.exp(target) * (target - said), axis=-1)
  return temperature**2 * jnp.mean(each)


def mse(weight: float = 1.0, *, schedule: Schedule | None = None) -> Method:
  r"""Match the teacher's outputs themselves, whatever they mean.

  Adds $w \, \mathrm{mean}((z_s - z_t)^2)$: the limit of hot `logits` (Hinton+
  2015, section 2.1), but for the mean of the logits; better than those on
  CIFAR-100 in Kim+ 2021 (arXiv 2105.08919, equation 5). It suits regression.

  Args:
    weight: w, above 0.
    schedule: How the weight grows over the run; by default whole at once.

  Returns:
    The method.

  Raises:
    ValueError: As `logits`.
  """
  where = 'distill.mse'

  def cost(params: Params, batch: Batch, progress: Array) -> Array:
    del params, progress
    student, teacher = answers(where, batch)
    return jnp.mean((student - teacher) ** 2)

  return taught(where, cost, weight, schedule)


def dkd(
  temperature: float = 4.0,
  *,
  target: float = 1.0,
  others: float = 8.0,
  weight: float = 1.0,
  schedule: Schedule | None = None,
) -> Method:
  r"""Weigh what the teacher says of the label and of the other classes apart.

  $w T^2 (\alpha \, \mathrm{KL}(b_t \| b_s) + \beta \, \mathrm{KL}(\hat p_t \|
  \hat p_s))$, where $b = (p, 1 - p)$, $p$ is the softened
  probability of the label, and $\hat p$ the distribution among the others
  (decoupled KD, Zhao+ 2022, arXiv 2203.08679, equation 7). `logits` is
  $\alpha = 1$ and $\beta = 1 - p_t$: next to nothing where the teacher is
  sure.

  Args:
    temperature: T, above 0.
    target: $\alpha$, above 0.
    others: $\beta$, above 0; 8 on CIFAR-100, 0.5 on ImageNet.
    weight: w, above 0.
    schedule: How the weight grows; the paper warms up over 20 of 240 epochs,
      `linear(0.0, 0.08)`. By default whole at once.

  Returns:
    The method.

  Raises:
    ValueError: As `logits`.
  """
  where = 'distill.dkd'
  expect_positive(where, temperature=temperature, target=target, others=others)

  def cost(params: Params, batch: Batch, progress: Array) -> Array:
    del params, progress
    student, teacher = answers(where, batch)
    hot = jax.nn.one_hot(batch.labels, student.shape[-1], dtype=bool)
    # Finite, so that 0 times the difference of two of them is 0.
    hidden = [jnp.where(hot, -1e9, z) for z in (student, teacher)]
    parts = [_binary(z / temperature, hot) for z in (student, teacher)]
    label = divergence(parts[0], parts[1], 1.0)
    rest = divergence(hidden[0] / temperature, hidden[1] / temperature, 1.0)
    return temperature**2 * (target * label + others * rest)

  return taught(where, cost, weight, schedule)


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
  r"""Ask for the teacher's preferences, not for its probabilities.

  $w T^2 (\beta (1 - \bar\rho_{\text{rows}}) + \gamma (1 -
  \bar\rho_{\text{columns}}))$ with Pearson's $\rho$ between the softened
  distributions of student and teacher: of each example over the classes and of
  each class over the batch (DIST, Huang+ 2022, arXiv 2205.10536, equations 8
  to 11). A student too small to copy a strong teacher may still agree.

  Args:
    temperature: T, above 0.
    inter: $\beta$, of the relations between classes, above 0.
    intra: $\gamma$, of those within a class, above 0.
    weight: w, above 0.
    schedule: How the weight grows over the run; by default whole at once.

  Returns:
    The method.

  Raises:
    ValueError: As `logits`.
  """
  where = 'distill.dist'
  expect_positive(where, temperature=temperature, inter=inter, intra=intra)

  def cost(params: Params, batch: Batch, progress: Array) -> Array:
    del params, progress
    p, q = (jax.nn.softmax(z / temperature) for z in answers(where, batch))
    rows, columns = 1 - pearson(p, q), 1 - pearson(p.T, q.T)
    return temperature**2 * (inter * rows + intra * columns)

  return taught(where, cost, weight, schedule)


def pearson(x: Array, y: Array) -> Array:
  """Return the mean correlation of the rows of two matrices, `()`.

  >>> x = jnp.array([[1.0, 2.0, 4.0], [3.0, 1.0, 0.0]])
  >>> round(float(pearson(x, 5 - 2 * x)), 5)
  -1.0
  """
  x, y = (a - jnp.mean(a, axis=-1, keepdims=True) for a in (x, y))
  norms = jnp.sqrt(jnp.sum(x * x, -1) * jnp.sum(y * y, -1) + 1e-16)
  return jnp.mean(jnp.sum(x * y, -1) / norms)
