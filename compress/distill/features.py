"""Feature distillation: losses on the outputs of layers."""

import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from compress import state
from compress.distill.base import (
  expect_positive,
  feature,
  feature_pair,
  logit_pair,
  make_distillation,
)
from compress.distill.logits import divergence
from compress.method import FEATURES, TEACHER, Batch, Ctx, Method
from compress.random import draw, own
from compress.schedule import Schedule
from compress.tree import Array, Params, Path

View: TypeAlias = Callable[[Batch], tuple[Array, Array]]  # of student, teacher
BOTH = (TEACHER, FEATURES)


def fitnet(
  layer: Path,
  teacher_layer: Path = '',
  weight: float = 1.0,
  *,
  regressor: bool = True,
  schedule: Schedule | None = None,
) -> Method:
  r"""Match the output of a layer of the teacher through a 1x1 regressor.

  Adds $\frac{w}{2} \, \mathrm{mean}((u - W v)^2)$, where $v$ and $u$ are the
  outputs of the layers of student and teacher and $W$ maps channels to channels
  (FitNets, Romero+ 2015, arXiv 1412.6550, equation 3). $W$ trains with the
  network and is not stored. For the two stages of the paper, a recipe may
  `start` from one that trains with hints.

  Args:
    layer: Path of a module of the student, as 'conv2'.
    teacher_layer: Path of a module of the teacher; '' for the same.
    weight: w, above 0.
    regressor: Whether to use $W$; without it, shapes have to be equal.
    schedule: How the weight grows over the run; by default constant.

  Returns:
    The method. Remove channels in an earlier stage: $W$ has the width of the
    layer.

  Raises:
    ValueError: If an argument is impossible; before training, if there is no
      such layer or the shapes do not match.
  """
  where = 'distill.fitnet'
  name = f'hint {layer} {teacher_layer}'
  _expect_layer(where, layer)

  def view(batch: Batch) -> tuple[Array, Array]:
    student, teacher = feature_pair(where, batch, layer, teacher_layer)
    _expect_same_shape(
      where, (layer, student), (teacher_layer or layer, teacher), regressor
    )
    return student, teacher

  def cost(params: Params, batch: Batch, progress: Array) -> Array:
    del progress
    student, teacher = view(batch)
    if regressor:
      student = student @ state.read(params, name)
    return jnp.mean((teacher - student) ** 2) / 2

  method = make_distillation(where, cost, weight, schedule, BOTH)
  return _mapped(where, name, view, method) if regressor else method


def probe(
  layer: Path,
  temperature: float = 4.0,
  weight: float = 1.0,
  *,
  schedule: Schedule | None = None,
) -> Method:
  r"""Match the teacher with a linear probe on a layer.

  Adds $w T^2 \, \mathrm{KL}(\sigma(z_t / T) \| \sigma(W \bar v / T))$, where
  $\bar v$ is the output of the layer, averaged over positions, and a 1 for the
  bias. $W$ trains with the network and is not stored (linear probes, Alain &
  Bengio 2017, arXiv 1610.01644, whose gradient here reaches the layer, as that
  of the classifiers of Lee+ 2015, arXiv 1409.5185, section 2).

  Args:
    layer: Path of a module of the student, as 'conv2'.
    temperature: T, above 0.
    weight: w, above 0.
    schedule: How the weight grows over the run; by default constant.

  Returns:
    The method; see `fitnet`.

  Raises:
    ValueError: As `fitnet`.
  """
  where, name = 'distill.probe', f'probe {layer}'
  _expect_layer(where, layer)
  expect_positive(where, temperature=temperature)

  def view(batch: Batch) -> tuple[Array, Array]:
    x = feature(where, batch.features, layer, 'student')
    mean = jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))
    ones = jnp.ones((len(mean), 1), mean.dtype)
    return jnp.concatenate([mean, ones], axis=1), logit_pair(where, batch)[1]

  def cost(params: Params, batch: Batch, progress: Array) -> Array:
    del progress
    student, teacher = view(batch)
    logits = student @ state.read(params, name)
    return divergence(logits, teacher, temperature)

  method = make_distillation(where, cost, weight, schedule, BOTH)
  return _mapped(where, name, view, method)


def attention(
  layer: Path,
  teacher_layer: Path = '',
  weight: float = 1.0,
  *,
  schedule: Schedule | None = None,
) -> Method:
  r"""Match the attention maps of the teacher.

  Adds $w \, \lVert Q_s / \lVert Q_s \rVert - Q_t / \lVert Q_t \rVert
  \rVert^2$, the mean over the batch, where $Q = \sum_c A_c^2$ is the
  flattened attention map of a layer (attention transfer, Zagoruyko & Komodakis
  2017, arXiv 1612.03928, equation 2, squared). Channels may differ.

  Args:
    layer: Path of a convolution or norm of the student, as 'conv2'.
    teacher_layer: Of the teacher; '' for the same.
    weight: w, above 0.
    schedule: How the weight grows over the run; by default constant.

  Returns:
    The method; it has only a loss.

  Raises:
    ValueError: If an argument is impossible; before training, if there is no
      such layer or the maps differ in size.
  """
  where = 'distill.attention'
  _expect_layer(where, layer)

  def cost(params: Params, batch: Batch, progress: Array) -> Array:
    del params, progress
    student, teacher = feature_pair(where, batch, layer, teacher_layer)
    _expect_same_shape(
      where, (layer, student), (teacher_layer or layer, teacher), True
    )
    gap = attention_map(student) - attention_map(teacher)
    return jnp.mean(jnp.sum(gap**2, axis=1))

  return make_distillation(where, cost, weight, schedule, BOTH)


def attention_map(x: Array) -> Array:
  """Return squares summed over channels, normalized, `[batch, positions]`.

  >>> attention_map(jnp.array([[[[3.0], [0.0]], [[0.0], [0.0]]]])).tolist()
  [[1.0, 0.0, 0.0, 0.0]]
  """
  map_ = jnp.sum(x**2, axis=-1).reshape(len(x), -1)
  return map_ / jnp.sqrt(jnp.sum(map_**2, axis=1, keepdims=True) + 1e-12)


def _mapped(where: str, name: str, view: View, method: Method) -> Method:
  """Return a method with a learned matrix between student and teacher."""

  def init(params: Params, ctx: Ctx) -> Params:
    if ctx.batch is None or ctx.key is None:
      raise ValueError(
        f'{where}: expected the shapes of a batch and a key, got none. Pass '
        'Ctx(key=..., batch=...) with features.'
      )
    student, teacher = jax.eval_shape(view, ctx.batch)
    shape = student.shape[-1], teacher.shape[-1]
    key = own(ctx.key, name)
    start = draw(jax.random.normal, key, shape, student.dtype)
    params = state.add(params, name, start / math.sqrt(shape[0]))
    return method.init(params, ctx)

  return method._replace(init=init)


def _expect_layer(where: str, layer: Path) -> None:
  if not layer or not isinstance(layer, str):
    raise ValueError(
      f"{where}: expected the path of a layer as 'conv2', got {layer!r}."
    )


def _expect_same_shape(
  where: str,
  student: tuple[Path, Array],
  teacher: tuple[Path, Array],
  regressor: bool,
) -> None:
  """Raise ValueError unless shapes are equal, or differ only in channels."""
  shapes = [x.shape for _, x in (student, teacher)]
  if shapes[0] == shapes[1]:
    return
  given = ' and '.join(
    f'{path} {list(x.shape[1:])}' for path, x in (student, teacher)
  )
  if shapes[0][:-1] != shapes[1][:-1]:
    raise ValueError(
      f'{where}: expected layers of equal height and width, got {given} of '
      'student and teacher. Choose layers behind as many pools.'
    )
  if not regressor:
    raise ValueError(
      f'{where}: expected layers of equal shapes, got {given} of student and '
      'teacher. Use regressor=True, which maps the channels.'
    )
