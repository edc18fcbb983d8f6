"""Lowering of a trained network to its deployed form, a graph.

`lower(spec, variables)` returns a network with the same outputs and fewer
operations and numbers: without removed channels, with frozen nodes, with
products for factors, and with norms absorbed by the weights before them.
"""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from compress import tree
from compress.channels.sliced import Sliced, kept, unsliced
from compress.dataflow import transformed, transforming
from compress.dataflow.arranged import Arranged
from tsukiji.deploy.decoding import decoded
from tsukiji.deploy.passes.absorb import Weights, absorbed
from tsukiji.deploy.passes.halve import halved
from tsukiji.deploy.passes.unfold import unfolded
from tsukiji.graph import evaluate
from tsukiji.graph.capture import capture
from tsukiji.graph.folding import folded
from tsukiji.graph.nodes import Graph, Ref, bound, pruned, replaced
from tsukiji.models.net import Net
from tsukiji.models.spec import Spec

Variables = dict[str, Any]
PARAMS, STATS = 'params/', 'batch_stats'
TOLERANCE = 1e-3  # of outputs without the removed channels


def lower(spec: Spec, variables: Variables) -> tuple[Graph, Variables]:
  """Return the deployed form of a trained network.

  Args:
    spec: The trained network.
    variables: `params` (arrays or nodes) and `batch_stats`.

  Returns:
    A graph with the same outputs, to float error, and `{'params': ...}`, its
    frozen weights by path.
  """
  graph, weights = halved(*captured(spec, variables))
  graph, weights = absorbed(*unfolded(graph, weights))
  return graph, {'params': weights}


def captured(spec: Spec, variables: Variables) -> tuple[Graph, Weights]:
  """Return a network as a graph whose statistics are constants.

  Args:
    spec: The network.
    variables: `params` (arrays or nodes) and `batch_stats`.

  Returns:
    The graph and its frozen weights, by path. Channels that a method has
    removed are gone, if the outputs stay; else their weights are stored among
    zeros, with a warning.
  """
  run: Any = Net(spec).apply
  params, moments = (variables.get(x, {}) for x in ('params', STATS))
  one = jax.ShapeDtypeStruct((1, *spec.input_shape), jnp.float32)
  whole = {'params': jax.eval_shape(tree.decode, params), STATS: moments}
  graph = replaced(capture(run, whole, one), _short)
  stats = tree.paths(moments)
  full = _with_statistics(graph, stats), tree.paths(tree.freeze(params))
  if tree.find(Sliced, params):
    small = tree.freeze(tree.map_paths(lambda _, x: _narrowed(x), params))
    cut = _cut(stats, tree.paths(params))
    found = _with_statistics(graph, cut), tree.paths(small)
    if _same(full, found):
      full = found
    else:
      warnings.warn(
        'lower: expected channels that can go, got other outputs without them. '
        'They are stored as zeros.',
        stacklevel=3,
      )
  graph, weights = full
  return graph, {path: weights[path] for path in graph.parameters}


def _short(ref: Ref) -> Ref:
  """Return the path of a parameter among `params`."""
  return ref.removeprefix(PARAMS) if isinstance(ref, str) else ref


def _with_statistics(graph: Graph, stats: dict[str, Any]) -> Graph:
  """Return a graph with running statistics as constants."""
  values = {f'{STATS}/{path}': np.asarray(x) for path, x in stats.items()}
  return pruned(folded(bound(graph, values)))


def _narrowed(x: Any) -> Any:
  """Return a weight without the channels that are gone."""
  if not isinstance(x, Arranged):
    return unsliced(x)
  if tuple(x.w.shape) != tuple(x.shape[i] for i in x.order):
    return x  # a method sees several of its axes as one
  w = unsliced(x.w)
  sizes = dict(zip(x.order, w.shape, strict=True))
  return x.replace(w=w, shape=tuple(sizes[i] for i in range(len(sizes))))


def _cut(stats: dict[str, Any], weights: dict[str, Any]) -> dict[str, Any]:
  """Return the statistics of the channels that remain."""
  found = {}
  for path, x in stats.items():
    norm = path.rpartition('/')[0]
    keep = kept(weights.get(f'{norm}/scale'), 0)
    found[path] = x if keep is None else np.asarray(x)[np.asarray(keep)]
  return found


def _same(
  one: tuple[Graph, dict[str, Any]], other: tuple[Graph, dict[str, Any]]
) -> bool:
  """Return whether two networks have the same outputs for random inputs."""
  (x,) = one[0].inputs
  drawn = np.random.default_rng(0).normal(size=(4, *x.shape))
  try:
    a, b = (_outputs(*net, jnp.asarray(drawn, x.dtype)) for net in (one, other))
  except (TypeError, ValueError):  # shapes that do not fit
    return False
  scale = np.max(np.abs(a), initial=1e-6)
  return a.shape == b.shape and bool(
    np.max(np.abs(a - b), initial=0) <= TOLERANCE * scale
  )


def _outputs(graph: Graph, weights: dict[str, Any], x: Any) -> np.ndarray:
  def run(dense: Any, x: Any) -> Any:
    return evaluate.run(graph, dense, x)

  grids = transforming(weights)
  return np.asarray(transformed(run, decoded(weights), (x,), grids))
