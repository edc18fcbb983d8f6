"""Relational distillation: losses on distances and angles of examples."""

import jax.numpy as jnp
import optax

from compress.distill.base import feature_pair, make_distillation
from compress.method import FEATURES, TEACHER, Batch, Method
from compress.schedule import Schedule
from compress.tree import Array, Params, Path


def rkd(
  layer: Path = '',
  teacher_layer: Path = '',
  *,
  distance: float = 1.0,
  angle: float = 2.0,
  weight: float = 1.0,
  schedule: Schedule | None = None,
) -> Method:
  r"""Match the distances and angles between the examples of a batch.

  $w (\lambda_D \, \mathrm{mean} \, \ell_\delta(d_{ij} / \bar d) + \lambda_A \,
  \mathrm{mean} \, \ell_\delta(\cos \angle_{ijk}))$, differences of student
  and teacher under Huber's $\ell_\delta$, $\delta = 1$ (relational KD, Park+
  2019, arXiv 1904.05068, equations 4 to 8). Outputs need not be classes and may
  differ in size, as for embeddings.

  Args:
    layer: Path of a module of the student; '' for its outputs.
    teacher_layer: Of the teacher; '' for the same.
    distance: $\lambda_D$, 0 or more; 25 on CIFAR, 1 for embeddings.
    angle: $\lambda_A$, 0 or more; 50 on CIFAR, 2 for embeddings. Its
      memory is cubic in the batch size.
    weight: w, above 0.
    schedule: How the weight grows over the run; by default constant.

  Returns:
    The method; it has only a loss.

  Raises:
    ValueError: If an argument is impossible; before training, if there is no
      teacher or no such layer.
  """
  where = 'distill.rkd'
  if not (distance >= 0 and angle >= 0 and distance + angle > 0):
    raise ValueError(
      f'{where}: expected weights of 0 or more, one of them above, got '
      f'distance={distance!r} and angle={angle!r}.'
    )

  def cost(params: Params, batch: Batch, progress: Array) -> Array:
    del params, progress
    pair = feature_pair(where, batch, layer, teacher_layer)
    student, teacher = (x.reshape(len(x), -1) for x in pair)
    total = jnp.zeros(())
    for part, relation in ((distance, distances), (angle, angles)):
      if part:
        gap = optax.huber_loss(relation(student), relation(teacher))
        total += part * jnp.mean(gap)
    return total

  requires = (TEACHER, FEATURES) if layer or teacher_layer else (TEACHER,)
  return make_distillation(where, cost, weight, schedule, requires)


def distances(x: Array) -> Array:
  """Return the distances of points over their mean, `[points, points]`.

  >>> distances(jnp.array([[0.0], [2.0]])).tolist()
  [[0.0, 1.0], [1.0, 0.0]]
  """
  found = _norms(x[:, None] - x[None])
  count = len(x) * (len(x) - 1)
  return found / jnp.maximum(jnp.sum(found) / max(count, 1), 1e-12)


def angles(x: Array) -> Array:
  r"""Return $\cos \angle_{jik}$ at each point i, `[points, points, points]`.

  >>> corner = angles(jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]))
  >>> float(corner[0, 1, 2])
  0.0
  """
  gaps = x[None] - x[:, None]
  unit = gaps / jnp.maximum(_norms(gaps), 1e-12)[..., None]
  return jnp.einsum('ijd,ikd->ijk', unit, unit)


def _norms(x: Array) -> Array:
  """Return the norms of the last axis, with gradient 0 where they are 0."""
  squares = jnp.sum(x**2, axis=-1)
  positive = squares > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)
