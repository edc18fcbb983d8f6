"""Distillation of features: what layers put out, through a learned map."""

import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from compress.distill import auxiliary
from compress.distill.base import (
  answers,
  expect_positive,
  feature,
  pair,
  taught,
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
  of: Path = '',
  weight: float = 1.0,
  *,
  regressor: bool = True,
  schedule: Schedule | None = None,
) -> Method:
  r"""Match what a layer of the teacher puts out, through a 1x1 regressor.

  Adds $\frac{w}{2} \, \mathrm{mean}((u - W v)^2)$, where $v$ and $u$ are what
  the layers put out and $W$ maps the channels of one to those of the other
  (FitNets, Romero+ 2015, arXiv 1412.6550, equation 3). $W$ is trained with the
  network and not packed. For the two stages of the paper let a recipe `start`
  from one that trains by hints.

  Args:
    layer: Path of a module of the student, as 'conv2'.
    of: Path of a module of the teacher; '' for the same.
    weight: w, above 0.
    regressor: Whether there is a $W$; without, shapes have to be equal.
    schedule: How the weight grows over the run; by default whole at once.

  Returns:
    The method. Methods that remove channels go into a stage before it: $W$ is
    as wide as the layer is.

  Raises:
    ValueError: If an argument is impossible; before training, if there is no
      such layer or the shapes do not match.
  """
  where, name = 'distill.fitnet', f'hint {layer} {of}'
  _expect_layer(where, layer)

  def view(batch: Batch) -> tuple[Array, Array]:
    mine, told = pair(where, batch, layer, of)
    _expect_alike(where, (layer, mine), (of or layer, told), regressor)
    return mine, told

  def cost(params: Params, batch: Batch, progress: Array) -> Array:
    del progress
    mine, told = view(batch)
    if regressor:
      mine = mine @ auxiliary.read(params, name)
    return jnp.mean((told - mine) ** 2) / 2

  made = taught(where, cost, weight, schedule, BOTH)
  return _mapped(where, name, view, made) if regressor else made


def probe(
  layer: Path,
  temperature: float = 4.0,
  weight: float = 1.0,
  *,
  schedule: Schedule | None = None,
) -> Method:
  r"""Let a linear probe on a layer answer as the teacher does.

  Adds $w T^2 \, \mathrm{KL}(\sigma(z_t / T) \| \sigma(W \bar v / T))$, where
  $\bar v$ is what the layer puts out, averaged over positions, and a 1 for the
  bias. $W$ is trained with the network and not packed (linear probes, Alain &
  Bengio 2017, arXiv 1610.01644, whose gradient here reaches the layer, as that
  of the classifiers of Lee+ 2015, arXiv 1409.5185, section 2).

  Args:
    layer: Path of a module of the student, as 'conv2'.
    temperature: T, above 0.
    weight: w, above 0.
    schedule: How the weight grows over the run; by default whole at once.

  Returns:
    The method; see `hint`.

  Raises:
    ValueError: As `hint`.
  """
  where, name = 'distill.probe', f'probe {layer}'
  _expect_layer(where, layer)
  expect_positive(where, temperature=temperature)

  def view(batch: Batch) -> tuple[Array, Array]:
    x = feature(where, batch.features, layer, 'student')
    mean = jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))
    ones = jnp.ones((len(mean), 1), mean.dtype)
    return jnp.concatenate([mean, ones], axis=1), answers(where, batch)[1]

  def cost(params: Params, batch: Batch, progress: Array) -> Array:
    del progress
    mine, told = view(batch)
    return divergence(mine @ auxiliary.read(params, name), told, temperature)

  made = taught(where, cost, weight, schedule, BOTH)
  return _mapped(where, name, view, made)


def attention(
  layer: Path,
  of: Path = '',
  weight: float = 1.0,
  *,
  schedule: Schedule | None = None,
) -> Method:
  r"""Look where the teacher looks.

  Adds $w \, \lVert Q_s / \lVert Q_s \rVert - Q_t / \lVert Q_t \rVert
  \rVert^2$, the mean over the batch, where $Q = \sum_c A_c^2$ is the map of a
  layer's activity, flattened (attention transfer, Zagoruyko & Komodakis 2017,
  arXiv 1612.03928, equation 2, squared). Channels may differ.

  Args:
    layer: Path of a convolution or norm of the student, as 'conv2'.
    of: Of the teacher; '' for the same.
    weight: w, above 0.
    schedule: How the weight grows over the run; by default whole at once.

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
    mine, told = pair(where, batch, layer, of)
    _expect_alike(where, (layer, mine), (of or layer, told), True)
    gap = activity(mine) - activity(told)
    return jnp.mean(jnp.sum(gap**2, axis=1))

  return taught(where, cost, weight, schedule, BOTH)


def activity(x: Array) -> Array:
  """Return the squares summed over channels, of norm 1, `[batch, positions]`.

  >>> activity(jnp.array([[[[3.0], [0.0]], [[0.0], [0.0]]]])).tolist()
  [[1.0, 0.0, 0.0, 0.0]]
  """
  map_ = jnp.sum(x**2, axis=-1).reshape(len(x), -1)
  return map_ / jnp.sqrt(jnp.sum(map_**2, axis=1, keepdims=True) + 1e-12)


def _mapped(where: str, name: str, view: View, made: Method) -> Method:
  """Return a method with a learned matrix between the two sides of a view."""

  def init(params: Params, ctx: Ctx) -> Params:
    if ctx.batch is None or ctx.key is None:
      raise ValueError(
        f'{where}: expected the shapes of a batch and a key, got none. Pass '
        'Ctx(key=..., batch=...) with features.'
      )
    mine, told = jax.eval_shape(view, ctx.batch)
    shape = mine.shape[-1], told.shape[-1]
    key = own(ctx.key, name)
    start = draw(jax.random.normal, key, shape, mine.dtype)
    params = auxiliary.attach(params, name, start / math.sqrt(shape[0]))
    return made.init(params, ctx)

  return made._replace(init=init)


def _expect_layer(where: str, layer: Path) -> None:
  if not layer or not isinstance(layer, str):
    raise ValueError(
      f"{where}: expected the path of a layer as 'conv2', got {layer!r}."
    )


def _expect_alike(
  where: str,
  mine: tuple[Path, Array],
  told: tuple[Path, Array],
  regressor: bool,
) -> None:
  """Raise ValueError unless shapes are equal, or differ in channels alone."""
  shapes = [x.shape for _, x in (mine, told)]
  if shapes[0] == shapes[1]:
    return
  said = ' and '.join(f'{path} {list(x.shape[1:])}' for path, x in (mine, told))
  if shapes[0][:-1] != shapes[1][:-1]:
    raise ValueError(
      f'{where}: expected layers of equal height and width, got {said} of '
      'student and teacher. Choose layers behind as many pools.'
    )
  if not regressor:
    raise ValueError(
      f'{where}: expected layers of equal shapes, got {said} of student and '
      'teacher. Use regressor=True, which maps the channels.'
    )
