"""What training minimises: a loss of each example, by name."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from compress.tree import Array


def cross_entropy(logits: Array, labels: Array, smoothing: float) -> Array:
  """Return the cross entropy `[batch]` with smoothed labels."""
  if not smoothing:
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


LOSSES: dict[str, Callable[[Array, Array, float], Array]] = {
  'cross_entropy': cross_entropy,
  'squared_hinge': squared_hinge,
}
