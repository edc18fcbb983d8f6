"""Networks in evaluation mode: predictions, calibration, accuracy."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from compress import dataflow, tree
from compress.tree import Array, Params, Stats
from tsukiji.data import batches
from tsukiji.data.datasets import Split
from tsukiji.errors import expect
from tsukiji.models import spec as sp
from tsukiji.models.net import Net
from tsukiji.models.spec import Spec
from tsukiji.training.losses import LOSSES
from tsukiji.training.metrics import goal_of


def predictor(
  spec: Spec, variables: dict[str, Any]
) -> Callable[[Array], Array]:
  """Return a network as a function from images to logits.

  Args:
    spec: The network.
    variables: Its parameters (arrays or nodes) and batch statistics.

  Returns:
    The function, in evaluation mode.
  """
  params = variables['params']
  dense = {**variables, 'params': tree.decode(params)}
  return lambda x: _apply_eval(spec, params, dense, x)[0]


def _apply_eval(
  spec: Spec, params: Params, dense: dict[str, Any], x: Array
) -> tuple[Array, Stats]:
  """Apply decoded variables in evaluation mode: logits, input statistics."""
  run: Callable[[], Any] = functools.partial(Net(spec).apply, dense, x)
  return dataflow.apply(run, params)


def calibrate(
  spec: Spec, variables: dict[str, Any], split: Split, examples: int = 1024
) -> Stats:
  """Return `[min, max]` of the input of each weight over some examples.

  Args:
    spec: The network.
    variables: Its parameters (arrays or nodes) and batch statistics.
    split: Where the first `examples` are taken from; never the test set.
    examples: Number of examples.

  Returns:
    The statistics, by path.

  Raises:
    ValueError: If there is no example.
  """
  some = min(examples, len(split.x))
  fix = 'Leave some to train on.'
  expect('calibrate', some > 0, 'at least one example', some, fix)
  params = variables['params']
  dense = {**variables, 'params': tree.decode(params)}
  observe = jax.jit(lambda x: _apply_eval(spec, params, dense, x)[1])
  return observe(split.x[:examples])


def recalibrate(
  spec: Spec,
  variables: dict[str, Any],
  split: Split,
  batch_size: int = 512,
  examples: int = 4096,
) -> dict[str, Any]:
  """Return the variables with recomputed running statistics.

  Args:
    spec: The network.
    variables: Its parameters (arrays or nodes) and batch statistics.
    split: Training examples, of which the first are taken.
    batch_size: Examples per batch, or all if there are fewer.
    examples: Number of examples.

  Returns:
    The variables, the statistics the mean of those of the batches.
  """
  if not variables['batch_stats']:
    return variables
  dense = tree.decode(variables['params'])
  # Momentum 0 makes the running statistics those of the batch.
  fresh = sp.map_layers(
    lambda layer: (
      dataclasses.replace(layer, momentum=0.0)
      if isinstance(layer, sp.Norm)
      else layer
    ),
    spec,
  )

  @jax.jit
  def statistics(x: Array) -> Any:
    state = {'params': dense, 'batch_stats': variables['batch_stats']}
    key = jax.random.key(0)  # of dropout, which comes behind every norm
    run: Callable[..., Any] = Net(fresh).apply
    _, after = dataflow.apply(
      lambda: run(
        state, x, train=True, mutable=['batch_stats'], rngs={'dropout': key}
      ),
      variables['params'],
    )[0]
    return after['batch_stats']

  size = min(batch_size, len(split.y))
  count = max(1, min(examples, len(split.y)) // size)
  found = [statistics(split.x[i * size : (i + 1) * size]) for i in range(count)]
  mean = jax.tree.map(lambda *xs: sum(xs) / len(xs), *found)
  return {**variables, 'batch_stats': mean}


def outputs(
  answer: Callable[[Array], Array], split: Split, batch_size: int = 512
) -> np.ndarray:
  """Return the outputs of a function of images for a split."""
  run, size = jax.jit(answer), min(batch_size, len(split.y))
  parts = (run(x) for x, _, _ in batches.padded(split, size))
  return np.concatenate([np.asarray(part) for part in parts])[: len(split.y)]


class Score(NamedTuple):
  """The mean loss and the score of a network on a set.

  Attributes:
    loss: Mean over the examples.
    accuracy: Fraction correct, or the score of `metrics.GOALS` in its place.
  """

  loss: float
  accuracy: float


def evaluate(
  spec: Spec,
  variables: dict[str, Any],
  split: Split,
  batch_size: int = 512,
  loss: str = 'cross_entropy',
) -> Score:
  """Evaluate a network on every example of a set exactly once.

  Args:
    spec: The network.
    variables: Its parameters (arrays or nodes) and batch statistics.
    split: The examples.
    batch_size: Examples at a time.
    loss: Name of the loss; computed on labels without smoothing. Scores that
      are not means over examples are computed over the set at once.

  Returns:
    The mean loss and the score.
  """
  if LOSSES[loss].goal != 'classes':
    return _at_once(spec, variables, split, batch_size, loss)
  params = variables['params']
  dense = jax.jit(tree.decode)(params)  # once, outside the loop
  network = {'params': dense, 'batch_stats': variables['batch_stats']}
  sums = np.zeros(2)
  for x, y, mask in batches.padded(split, min(batch_size, len(split.y))):
    sums += np.asarray(_sums(spec, loss, params, network, (x, y, mask)))
  return Score(*(sums / len(split.y)).tolist())


def _at_once(
  spec: Spec,
  variables: dict[str, Any],
  split: Split,
  batch_size: int,
  loss: str,
) -> Score:
  found = jnp.asarray(outputs(predictor(spec, variables), split, batch_size))
  y = jnp.asarray(split.y)
  losses = LOSSES[loss].value(found, y, 0.0)
  return Score(float(jnp.mean(losses)), float(goal_of(loss).score(found, y)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sums(
  spec: Spec,
  loss: str,
  params: Params,
  network: dict[str, Any],
  batch: tuple[Array, Array, Array],
) -> Array:
  x, y, mask = batch
  logits, _ = _apply_eval(spec, params, network, x)
  losses = LOSSES[loss].value(logits, y, 0.0)
  correct = jnp.argmax(logits, -1) == y
  return jnp.stack([jnp.sum(losses * mask), jnp.sum(correct * mask)])
