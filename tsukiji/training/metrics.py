"""Goals of training and the score of each."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from compress.tree import Array
from tsukiji.training.losses import LOSSES, on_sphere


def accuracy(outputs: Array, labels: Array) -> Array:
  """Return the share of `[batch, classes]` whose largest is the label."""
  return jnp.mean(jnp.argmax(outputs, -1) == labels)


def r2(outputs: Array, labels: Array) -> Array:
  r"""Return $1 - \sum (y - \hat y)^2 / \sum (y - \bar y)^2$, at most 1.

  >>> float(r2(jnp.array([[1.0], [1.0]]), jnp.array([0.0, 2.0])))
  0.0
  """
  y = labels.reshape(outputs.shape)
  total = jnp.sum((y - jnp.mean(y, 0)) ** 2)
  return 1 - jnp.sum((y - outputs) ** 2) / jnp.maximum(total, 1e-12)


def recall_at_1(outputs: Array, labels: Array) -> Array:
  """Return the share whose nearest other embedding has the same label.

  >>> points = jnp.array([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0]])
  >>> round(float(recall_at_1(points, jnp.array([0, 0, 1]))), 3)
  0.667
  """
  unit = on_sphere(outputs)
  alike = unit @ unit.T - 4 * jnp.eye(len(unit))
  return jnp.mean(labels[jnp.argmax(alike, axis=1)] == labels)


class Goal(NamedTuple):
  """A goal of training.

  Attributes:
    key: Of the score in a row.
    score: Outputs and labels of a set -> `()`, 1 at best.
    real: Whether labels are real numbers, else classes.
  """

  key: str
  score: Callable[[Array, Array], Array]
  real: bool = False


GOALS: dict[str, Goal] = {
  'classes': Goal('accuracy', accuracy),
  'neighbors': Goal('recall_at_1', recall_at_1),
  'numbers': Goal('r2', r2, real=True),
}


def goal_of(loss: str) -> Goal:
  """Return the goal of a loss."""
  return GOALS[LOSSES[loss].goal]


def no_labels(loss: str, outputs: Array) -> Array:
  """Return zeros of the shape and type of the labels of outputs."""
  if goal_of(loss).real:
    return jnp.zeros(outputs.shape)
  return jnp.zeros(len(outputs), jnp.int32)
