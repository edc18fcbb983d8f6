"""What losses of distillation share: the teacher's side of a batch."""

import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from compress.method import TEACHER, Batch, Ctx, Method
from compress.schedule import Schedule
from compress.tree import Array, Features, Params, Path

Cost: TypeAlias = Callable[[Params, Batch, Array], Array]  # at a progress


def taught(
  where: str,
  cost: Cost,
  weight: float,
  schedule: Schedule | None = None,
  asks: tuple[str, ...] = (TEACHER,),
) -> Method:
  """Return the method whose loss is `weight * schedule * cost`.

  Args:
    where: Who asks, for the errors.
    cost: The parameters, the batch and the progress in [0, 1] -> `()`.
    weight: Above 0.
    schedule: How the weight grows over the run; by default whole at once.
    asks: What the cost reads of the batch. Answers of a shape that it refuses
      end a run before it starts.

  Returns:
    The method.

  Raises:
    ValueError: If the weight is not positive or the schedule is none.
  """
  expect_positive(where, weight=weight)
  expect_schedules(where, schedule)

  def init(params: Params, ctx: Ctx) -> Params:
    if ctx.batch is not None:
      jax.eval_shape(lambda b: loss(params, ctx._replace(batch=b)), ctx.batch)
    return params

  def loss(params: Params, ctx: Ctx) -> Array:
    if ctx.batch is None:
      raise ValueError(f'{where}: expected a batch, got none. Train with one.')
    progress = jnp.asarray(ctx.progress)
    part = weight * (schedule(progress) if schedule else 1.0)
    return part * cost(params, ctx.batch, progress)

  return Method(init, loss=loss, requires=frozenset(asks))


def answers(where: str, batch: Batch) -> tuple[Array, Array]:
  """Return the outputs of student and teacher, `[batch, classes]` both.

  Raises:
    ValueError: If there is no teacher or it has other classes.
  """
  told = _told(where, batch)
  if told.shape != batch.outputs.shape:
    raise ValueError(
      f'{where}: expected a teacher with outputs {batch.outputs.shape}, got '
      f'{told.shape}. Teacher and student need the same classes.'
    )
  return batch.outputs, told


def _told(where: str, batch: Batch) -> Array:
  if batch.teacher is None:
    raise ValueError(
      f'{where}: expected a teacher, got a batch without. Give the plan one, '
      'or leave distillation out of the recipe.'
    )
  return jax.lax.stop_gradient(batch.teacher)


def feature(
  where: str, found: Features | None, layer: Path, whose: str
) -> Array:
  """Return what a layer put out, `[batch, ..., channels]`.

  Args:
    where: Who asks, for the error.
    found: Features of a batch.
    layer: Path of a module, as 'conv1'.
    whose: 'student' or 'teacher', for the error.

  Raises:
    ValueError: If there are none or no such layer; the message names those
      that there are.
  """
  if found is None:
    raise ValueError(
      f'{where}: expected features of the {whose}, got a batch without. Give '
      'the plan a Flax module that is not jitted.'
    )
  if layer not in found:
    raise ValueError(
      f'{where}: expected a layer of the {whose}, got {layer!r}. It has '
      f'{", ".join(found)}.'
    )
  return found[layer]


def pair(
  where: str, batch: Batch, layer: Path, of: Path
) -> tuple[Array, Array]:
  """Return what a layer of the student and one of the teacher put out.

  Args:
    where: Who asks, for the errors.
    batch: With features.
    layer: Of the student; '' for its outputs.
    of: Of the teacher; '' for the same as `layer`.
  """
  if not layer and not of:
    return batch.outputs, _told(where, batch)
  mine = feature(where, batch.features, layer, 'student')
  told = feature(where, batch.teacher_features, of or layer, 'teacher')
  return mine, jax.lax.stop_gradient(told)


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
