"""Losses by name, each a function of every example.

Each belongs to one of `metrics.GOALS`: classes, numbers or neighbors.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from compress.tree import Array


def cross_entropy(logits: Array, labels: Array, smoothing: float) -> Array:
  """Return the cross entropy `[batch]` with smoothed labels."""
  if isinstance(smoothing, float) and not smoothing:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  hot = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
  return optax.softmax_cross_entropy(logits, hot)


def squared_hinge(logits: Array, labels: Array, smoothing: float) -> Array:
  r"""Return the mean of $\max(0, 1 - t z)^2$ over the classes, `[batch]`.

  The targets $t$ are +1 for the label and -1 for the others, as in the L2-SVM
  output of BNN (Courbariaux & Hubara+ 2016, arXiv 1602.02830); smoothing moves
  them towards each other.
  """
  hot = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
  return jnp.mean(jnp.maximum(0, 1 - (2 * hot - 1) * logits) ** 2, axis=-1)


def squared_error(outputs: Array, labels: Array, smoothing: float) -> Array:
  """Return the mean squared gap of `[batch, numbers]`, `[batch]`."""
  del smoothing
  return jnp.mean((outputs - labels.reshape(outputs.shape)) ** 2, axis=-1)


def smooth_l1(outputs: Array, labels: Array, smoothing: float) -> Array:
  """Return Huber's loss, linear beyond a gap of 1, `[batch]`."""
  del smoothing
  gaps = optax.huber_loss(outputs, labels.reshape(outputs.shape))
  return jnp.mean(gaps, axis=-1)


def on_sphere(x: Array) -> Array:
  """Return the rows of a matrix with norm 1."""
  return x / jnp.sqrt(jnp.sum(x**2, axis=1, keepdims=True) + 1e-12)


def triplet(
  outputs: Array, labels: Array, smoothing: float, margin: float = 0.2
) -> Array:
  r"""Return $\max(0, d(a, p) - d(a, n) + m)$ on the sphere, `[batch]`.

  Each example of the batch is an anchor; p is the farthest of its class and n
  the nearest of another (batch hard, Hermans+ 2017, arXiv 1703.07737, equation
  5), in squared distances of embeddings of norm 1 (FaceNet, Schroff+ 2015,
  arXiv 1503.03832).
  """
  del smoothing
  unit = on_sphere(outputs)
  apart = 2 - 2 * unit @ unit.T
  same = labels[:, None] == labels[None]
  far = jnp.max(jnp.where(same, apart, -jnp.inf), axis=1)
  near = jnp.min(jnp.where(same, 4.0, apart), axis=1)
  return jnp.maximum(far - near + margin, 0)


class Loss(NamedTuple):
  """A loss and its goal.

  Attributes:
    value: Outputs `[batch, ...]`, labels, label smoothing -> `[batch]`.
    goal: One of `metrics.GOALS`.
  """

  value: Callable[[Array, Array, float], Array]
  goal: str


LOSSES: dict[str, Loss] = {
  'cross_entropy': Loss(cross_entropy, 'classes'),
  'smooth_l1': Loss(smooth_l1, 'numbers'),
  'squared_error': Loss(squared_error, 'numbers'),
  'squared_hinge': Loss(squared_hinge, 'classes'),
  'triplet': Loss(triplet, 'neighbors'),
}
