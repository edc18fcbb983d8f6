"""Accuracy of a linear classifier on the features of each unit of a network.

The curve of those accuracies over depth shows which units contribute (Chen &
Zhao 2018, IEEE TPAMI, doi 10.1109/TPAMI.2018.2874634); `models.drop_layers`
removes the others.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from compress import dataflow, tree
from compress.tree import Array, Params
from tsukiji.data import batches
from tsukiji.data.datasets import Split
from tsukiji.errors import expect
from tsukiji.models.drop_layers import units
from tsukiji.models.net import apply_layer
from tsukiji.models.spec import Spec

INPUT = 'input'  # the name of what is read before any layer
BATCH_SIZE = 256  # examples evaluated at a time
RIDGE = 1e-3  # of the mean variance of the features


class Reading(NamedTuple):
  """The accuracy of a linear classifier on the features behind a unit.

  Attributes:
    name: Of the unit; 'input' for the pixels.
    accuracy: Fraction correct on held-out examples.
  """

  name: str
  accuracy: float


class Taps(nn.Module):
  """A `Net` that gives the pooled features behind each unit.

  Attributes:
    spec: The network.
    grid: Means over `grid x grid` windows stand for each feature map.
  """

  spec: Spec
  grid: int

  @nn.compact
  def __call__(self, x: Array) -> dict[str, Array]:
    """Return `[batch, features]` by unit, and of the input `x`."""
    x = x.astype(jnp.float32)
    ends = {unit.stop: unit.name for unit in units(self.spec)}
    found = {INPUT: _pooled(x, self.grid)}
    for stop, layer in enumerate(self.spec.layers, 1):
      x = apply_layer(layer, x, train=False)
      if stop in ends:
        found[ends[stop]] = _pooled(x, self.grid)
    return found


def _pooled(x: Array, grid: int) -> Array:
  """Return the means of windows of `[batch, height, width, channels]`."""
  for axis in range(1, x.ndim - 1):
    parts = jnp.array_split(x, min(grid, x.shape[axis]), axis)
    means = [jnp.mean(part, axis, keepdims=True) for part in parts]
    x = jnp.concatenate(means, axis)
  return x.reshape(len(x), -1)


def readings(
  spec: Spec,
  variables: dict[str, Any],
  train: Split,
  validation: Split,
  *,
  examples: int = 4096,
  grid: int = 2,
) -> tuple[Reading, ...]:
  r"""Fit a linear classifier to the features behind every unit.

  Ridge regression of the one-hot labels $Y$ on standardized features $X$,
  $W = (X^\top X + \lambda n I)^{-1} X^\top Y$: one solution, no steps, where
  the paper fits logistic regressions.

  Args:
    spec: The network.
    variables: Its parameters (arrays or nodes) and batch statistics.
    train: Where the classifiers learn.
    validation: Where they are scored.
    examples: How many of each split at most, from the start.
    grid: Each feature map is pooled to `grid x grid` means.

  Returns:
    One reading a unit, in order, after that of the input.

  Raises:
    ValueError: If two units have one name or the numbers are not sizes.
  """
  for what, size in (('examples', examples), ('grid', grid)):
    right = isinstance(size, int) and size > 0
    expect('readings', right, f'{what} from 1', size)
  names = [INPUT, *(unit.name for unit in units(spec))]
  right = len(set(names)) == len(names)
  expect('readings', right, 'units of different names', names)
  features = functools.partial(_features, spec, variables, grid)
  first, second = (
    Split(*(part[:examples] for part in split)) for split in (train, validation)
  )
  fit, score = features(first), features(second)
  return tuple(
    Reading(name, _accuracy(fit[name], first.y, score[name], second.y))
    for name in names
  )


def _features(
  spec: Spec,
  variables: dict[str, Any],
  grid: int,
  split: Split,
) -> dict[str, np.ndarray]:
  """Return the pooled features of a split, by unit."""
  params = variables['params']
  network = {**variables, 'params': tree.decode(params)}
  size = min(BATCH_SIZE, len(split.y))
  found: dict[str, list[np.ndarray]] = {}
  for x, _, mask in batches.padded(split, size):
    for name, part in _tapped(spec, grid, params, network, x).items():
      found.setdefault(name, []).append(np.asarray(part)[np.asarray(mask) > 0])
  return {name: np.concatenate(parts) for name, parts in found.items()}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _tapped(
  spec: Spec, grid: int, params: Params, network: dict[str, Any], x: Array
) -> dict[str, Array]:
  taps: Callable[..., Any] = Taps(spec, grid).apply

  def run(dense: Params, x: Array) -> Any:
    return taps({**network, 'params': dense}, x)

  grids = dataflow.transforming(params)
  return dataflow.transformed(run, network['params'], (x,), grids)


def _accuracy(
  fit: np.ndarray, fit_y: np.ndarray, score: np.ndarray, score_y: np.ndarray
) -> float:
  """Fit a ridge regression and return its accuracy elsewhere."""
  fit, score = fit.astype(np.float64), score.astype(np.float64)
  mean, spread = fit.mean(0), fit.std(0)
  spread = np.where(spread > 0, spread, 1.0)
  x, other = ((part - mean) / spread for part in (fit, score))
  hot = np.equal.outer(fit_y, np.arange(fit_y.max() + 1)).astype(np.float64)
  gram = x.T @ x + RIDGE * len(x) * np.eye(x.shape[1])
  weights = np.linalg.solve(gram, x.T @ (hot - hot.mean(0)))
  guess = np.argmax(other @ weights + hot.mean(0), axis=1)
  return float(np.mean(guess == score_y))


def gains(found: tuple[Reading, ...]) -> dict[str, float]:
  """Return the accuracy that each unit adds to the one before it.

  >>> gains((Reading('input', 0.5), Reading('a', 0.75), Reading('b', 0.75)))
  {'a': 0.25, 'b': 0.0}
  """
  return {
    after.name: after.accuracy - before.accuracy
    for before, after in zip(found, found[1:], strict=False)
  }
