"""Distillation for regression."""

import jax.numpy as jnp

from compress.distill.base import expect_positive, logit_pair, make_distillation
from compress.method import Batch, Method
from compress.schedule import Schedule
from compress.tree import Array, Params


def bounded(
  margin: float = 0.0,
  weight: float = 0.5,
  *,
  schedule: Schedule | None = None,
) -> Method:
  r"""Add the label loss where the student is worse than its teacher.

  Adds $\nu \, \mathrm{mean}(L_b)$ with $L_b = \lVert R_s - y \rVert^2$ where
  $\lVert R_s - y \rVert^2 + m > \lVert R_t - y \rVert^2$ and 0 elsewhere
  (Chen+ 2017, NIPS, "Learning efficient object detection models with knowledge
  distillation", equation 6). The teacher is an upper bound and not a target,
  so that an inaccurate teacher does not mislead the student.

  Args:
    margin: m, 0 or more, in squared units of the label.
    weight: $\nu$, above 0.
    schedule: How the weight grows over the run; by default constant.

  Returns:
    The method; labels are numbers of the shape of the outputs.

  Raises:
    ValueError: If an argument is impossible; before training, if there is no
      teacher or it or the labels have another size.
  """
  where = 'distill.bounded'
  if not margin >= 0:
    raise ValueError(f'{where}: expected a margin from 0, got {margin!r}.')

  def cost(params: Params, batch: Batch, progress: Array) -> Array:
    del params, progress
    student, teacher = logit_pair(where, batch)
    y = _labels(where, batch)
    student_error, teacher_error = (
      jnp.sum((z - y) ** 2, -1) for z in (student, teacher)
    )
    worse = student_error + margin > teacher_error
    return jnp.mean(jnp.where(worse, student_error, 0.0))

  return make_distillation(where, cost, weight, schedule)


def trusted(
  limit: float,
  weight: float = 1.0,
  *,
  schedule: Schedule | None = None,
) -> Method:
  r"""Replace outlier labels by the output of the teacher.

  Adds $w \, \mathrm{mean}(\lVert R_s - y^* \rVert^2)$ with $y^* = y$ where
  $\lVert y - R_t \rVert \leq \epsilon$, else $y^* = R_t$: labels far from the
  output of the teacher are outliers and are replaced by it (teacher outlier
  rejection after Takamoto+ 2020, arXiv 2002.12597). Train with the weight 0
  for the task loss in the recipe, so that labels count only here.

  Args:
    limit: $\epsilon$, above 0, in the unit of the label.
    weight: w, above 0.
    schedule: How the weight grows over the run; by default constant.

  Returns:
    The method; labels are numbers of the shape of the outputs.

  Raises:
    ValueError: As `bounded`.
  """
  where = 'distill.trusted'
  expect_positive(where, limit=limit)

  def cost(params: Params, batch: Batch, progress: Array) -> Array:
    del params, progress
    student, teacher = logit_pair(where, batch)
    y = _labels(where, batch)
    distance = jnp.sum((y - teacher) ** 2, -1, keepdims=True)
    target = jnp.where(distance <= limit**2, y, teacher)
    return jnp.mean(jnp.sum((student - target) ** 2, -1))

  return make_distillation(where, cost, weight, schedule)


def _labels(where: str, batch: Batch) -> Array:
  """Return the labels as `[batch, outputs]`; raise if they are classes."""
  y, wanted = batch.labels, batch.outputs.shape
  if not jnp.issubdtype(y.dtype, jnp.floating) or y.size != batch.outputs.size:
    raise ValueError(
      f'{where}: expected labels {wanted} of real numbers, got {y.shape} of '
      f'{y.dtype}. It is for regression; distill.kd is for classes.'
    )
  return y.reshape(wanted)
