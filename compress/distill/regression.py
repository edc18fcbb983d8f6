"""Distillation of regression: a teacher that may be wrong has no softmax."""

import jax.numpy as jnp

from compress.distill.base import answers, expect_positive, taught
from compress.method import Batch, Method
from compress.schedule import Schedule
from compress.tree import Array, Params


def bounded(
  margin: float = 0.0,
  weight: float = 0.5,
  *,
  schedule: Schedule | None = None,
) -> Method:
  r"""Train on the labels further where the student is worse than its teacher.

  Adds $\nu \, \mathrm{mean}(L_b)$ with $L_b = \lVert R_s - y \rVert^2$ where
  $\lVert R_s - y \rVert^2 + m > \lVert R_t - y \rVert^2$ and 0 elsewhere
  (Chen+ 2017, NIPS, "Learning efficient object detection models with knowledge
  distillation", equation 6). The teacher is an upper bound, never a target: it
  may be far off and does no harm.

  Args:
    margin: m, 0 or more, in the square of the label's unit.
    weight: $\nu$, above 0.
    schedule: How the weight grows over the run; by default whole at once.

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
    student, teacher = answers(where, batch)
    y = _labels(where, batch)
    mine, told = (jnp.sum((z - y) ** 2, -1) for z in (student, teacher))
    return jnp.mean(jnp.where(mine + margin > told, mine, 0.0))

  return taught(where, cost, weight, schedule)


def trusted(
  limit: float,
  weight: float = 1.0,
  *,
  schedule: Schedule | None = None,
) -> Method:
  r"""Believe a label only where the teacher finds it plausible.

  Adds $w \, \mathrm{mean}(\lVert R_s - y^* \rVert^2)$ with $y^* = y$ where
  $\lVert y - R_t \rVert \leq \epsilon$, else $y^* = R_t$: labels far from what
  the teacher says are outliers, rejected and replaced by its answer (teacher
  outlier rejection after Takamoto+ 2020, arXiv 2002.12597). Train with
  `labels=0.0` in the recipe, so that the labels count here alone.

  Args:
    limit: $\epsilon$, above 0, in the unit of the label.
    weight: w, above 0.
    schedule: How the weight grows over the run; by default whole at once.

  Returns:
    The method; labels are numbers of the shape of the outputs.

  Raises:
    ValueError: As `bounded`.
  """
  where = 'distill.trusted'
  expect_positive(where, limit=limit)

  def cost(params: Params, batch: Batch, progress: Array) -> Array:
    del params, progress
    student, teacher = answers(where, batch)
    y = _labels(where, batch)
    apart = jnp.sum((y - teacher) ** 2, -1, keepdims=True)
    target = jnp.where(apart <= limit**2, y, teacher)
    return jnp.mean(jnp.sum((student - target) ** 2, -1))

  return taught(where, cost, weight, schedule)


def _labels(where: str, batch: Batch) -> Array:
  """Return the labels as `[batch, numbers]`, or say that they are classes."""
  y, wanted = batch.labels, batch.outputs.shape
  if not jnp.issubdtype(y.dtype, jnp.floating) or y.size != batch.outputs.size:
    raise ValueError(
      f'{where}: expected labels {wanted} of real numbers, got {y.shape} of '
      f'{y.dtype}. It is for regression; distill.kd is for classes.'
    )
  return y.reshape(wanted)
