"""Networks in evaluation mode: predictions, calibration, accuracy."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from compress import dataflow, tree
from compress.tree import Array, Params
from tsukiji.data import batches
from tsukiji.data.datasets import Split
from tsukiji.graph import evaluate as graphs
from tsukiji.graph.nodes import Graph
from tsukiji.models import spec as sp
from tsukiji.models.net import Net
from tsukiji.models.spec import Spec
from tsukiji.training.losses import LOSSES
from tsukiji.training.metrics import goal_of


def applied(spec: Spec, stats: Any) -> Callable[[Params, Array], Array]:
  """Return a network as a function of dense parameters and images.

  Args:
    spec: The network.
    stats: Its batch statistics.

  Returns:
    The function, in evaluation mode.
  """
  run: Callable[..., Any] = Net(spec).apply
  return lambda params, x: run({'params': params, 'batch_stats': stats}, x)


def predictor(
  spec: Spec | Graph, variables: dict[str, Any]
) -> Callable[[Array], Array]:
  """Return a network as a function from images to logits.

  Args:
    spec: The network, or a graph.
    variables: Its parameters (arrays or nodes) and batch statistics.

  Returns:
    The function, in evaluation mode: a `jax.tree_util.Partial`.
  """
  if isinstance(spec, Graph):
    run: Callable[..., Any] = functools.partial(graphs.run, spec)
  else:
    run = applied(spec, variables['batch_stats'])
  dense = tree.decode(variables['params'])
  grids = dataflow.transforming(variables['params'])

  def apply(params: Params, x: Array) -> Array:
    logits: Array = dataflow.transformed(run, params, (x,), grids)
    return logits

  return jax.tree_util.Partial(apply, dense)


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

  grids = dataflow.transforming(variables['params'])

  def run(dense: Params, x: Array) -> Any:
    state = {'params': dense, 'batch_stats': variables['batch_stats']}
    key = jax.random.key(0)  # of dropout, which comes behind every norm
    train: Callable[..., Any] = Net(fresh).apply
    _, after = train(
      state, x, train=True, mutable=['batch_stats'], rngs={'dropout': key}
    )
    return after['batch_stats']

  @jax.jit
  def statistics(x: Array) -> Any:
    return dataflow.transformed(run, dense, (x,), grids)

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
    return scored(predictor(spec, variables), split, loss, batch_size)
  params = variables['params']
  nodes = any(map(tree.is_node, tree.paths(params).values()))
  dense = jax.jit(tree.decode)(params) if nodes else tree.decode(params)
  network = {'params': dense, 'batch_stats': variables['batch_stats']}
  sums = np.zeros(2)
  for x, y, mask in batches.padded(split, min(batch_size, len(split.y))):
    sums += np.asarray(_sums(spec, loss, params, network, (x, y, mask)))
  return Score(*(sums / len(split.y)).tolist())


def scored(
  answer: Callable[[Array], Array],
  split: Split,
  loss: str = 'cross_entropy',
  batch_size: int = 512,
) -> Score:
  """Evaluate a function of images on every example of a set exactly once.

  Args:
    answer: Images to outputs; compiled once for each batch size.
    split: The examples.
    loss: Name of the loss; computed on labels without smoothing.
    batch_size: Examples at a time.

  Returns:
    The mean loss and the score.
  """
  found = jnp.asarray(outputs(answer, split, batch_size))
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
  run = applied(spec, network['batch_stats'])
  grids = dataflow.transforming(params)
  logits = dataflow.transformed(run, network['params'], (x,), grids)
  losses = LOSSES[loss].value(logits, y, 0.0)
  correct = jnp.argmax(logits, -1) == y
  return jnp.stack([jnp.sum(losses * mask), jnp.sum(correct * mask)])
