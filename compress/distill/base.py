"""Building blocks of distillation losses."""

import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from compress.method import TEACHER, Batch, Ctx, Method
from compress.schedule import Schedule
from compress.tree import Array, Features, Params, Path

Cost: TypeAlias = Callable[[Params, Batch, Array], Array]  # with progress


def make_distillation(
  where: str,
  cost: Cost,
  weight: float,
  schedule: Schedule | None = None,
  requires: tuple[str, ...] = (TEACHER,),
) -> Method:
  """Return a method with the loss `weight * schedule * cost`.

  Args:
    where: Name of the caller, for error messages.
    cost: The parameters, the batch and the progress in [0, 1] -> `()`.
    weight: Above 0.
    schedule: How the weight grows over the run; by default constant.
    requires: What the cost reads of the batch. Wrong shapes raise before
      training.

  Returns:
    The method.

  Raises:
    ValueError: If the weight is not positive or the schedule not callable.
  """
  expect_positive(where, weight=weight)
  expect_schedules(where, schedule)

  def init(params: Params, ctx: Ctx) -> Params:
    if ctx.batch is not None:
      jax.eval_shape(lambda b: loss(params, ctx._replace(batch=b)), ctx.batch)
    return params

  def loss(params: Params, ctx: Ctx) -> Array:
    if ctx.batch is None:
      raise ValueError(
        f'{where}: expected a batch to compare, got none. Return a '
        'compress.Batch beside the loss, with has_aux=True.'
      )
    progress = jnp.asarray(ctx.progress)
    part = weight * (schedule(progress) if schedule else 1.0)
    return part * cost(params, ctx.batch, progress)

  return Method(init, loss=loss, requires=frozenset(requires))


def logit_pair(where: str, batch: Batch) -> tuple[Array, Array]:
  """Return the outputs of student and teacher, each `[batch, classes]`.

  Raises:
    ValueError: If there is no teacher or the shapes differ.
  """
  teacher = _teacher_logits(where, batch)
  if teacher.shape != batch.outputs.shape:
    raise ValueError(
      f'{where}: expected a teacher with outputs {batch.outputs.shape}, got '
      f'{teacher.shape}. Teacher and student need the same classes.'
    )
  return batch.outputs, teacher


def _teacher_logits(where: str, batch: Batch) -> Array:
  if batch.teacher is None:
    raise ValueError(
      f'{where}: expected a teacher, got a batch without. Configure a '
      'teacher, or remove distillation from the recipe.'
    )
  return jax.lax.stop_gradient(batch.teacher)


def feature(
  where: str, found: Features | None, layer: Path, whose: str
) -> Array:
  """Return the output of a layer, `[batch, ..., channels]`.

  Args:
    where: Name of the caller, for error messages.
    found: Features of a batch.
    layer: Path of a module, as 'conv1'.
    whose: 'student' or 'teacher', for the error.

  Raises:
    ValueError: If there are no features or no such layer; the message lists
      the layers.
  """
  if found is None:
    raise ValueError(
      f'{where}: expected features of the {whose}, got a batch without. '
      'A teacher is jax.tree_util.Partial(apply, params); see '
      'compress.features.'
    )
  if layer not in found:
    raise ValueError(
      f'{where}: expected a layer of the {whose}, got {layer!r}. It has '
      f'{", ".join(found)}.'
    )
  return found[layer]


def feature_pair(
  where: str, batch: Batch, layer: Path, teacher_layer: Path
) -> tuple[Array, Array]:
  """Return the outputs of a layer of the student and one of the teacher.

  Args:
    where: Name of the caller, for error messages.
    batch: With features.
    layer: Of the student; '' for its logits.
    teacher_layer: Of the teacher; '' for the same as `layer`.
  """
  if not layer and not teacher_layer:
    return batch.outputs, _teacher_logits(where, batch)
  student = feature(where, batch.features, layer, 'student')
  teacher = feature(
    where, batch.teacher_features, teacher_layer or layer, 'teacher'
  )
  return student, jax.lax.stop_gradient(teacher)


def expect_positive(where: str, **values: float) -> None:
  """Raise ValueError unless all are finite numbers above 0."""
  for what, value in values.items():
    if not 0 < value < math.inf:
      raise ValueError(f'{where}: expected a {what} above 0, got {value!r}.')


def expect_schedules(where: str, *schedules: Schedule | None) -> None:
  """Raise ValueError unless each is a schedule or None."""
  for schedule in schedules:
    if schedule is not None and not callable(schedule):
      raise ValueError(
        f'{where}: expected a schedule as linear(0.0, 0.2), got {schedule!r}.'
      )
