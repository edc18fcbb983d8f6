"""Lowering of a trained network to its deployed form, a graph.

`lower(spec, variables)` returns a network with the same outputs and fewer
operations and numbers: without removed channels, with frozen nodes, with
products for factors, and with norms absorbed by the weights before them and
the standardization of inputs by those behind it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from compress import tree
from tsukiji.deploy.passes.absorb import Weights
from tsukiji.deploy.passes.halve import halved
from tsukiji.deploy.passes.narrow import narrowed
from tsukiji.deploy.passes.simplify import simplified
from tsukiji.graph.capture import capture
from tsukiji.graph.folding import folded
from tsukiji.graph.nodes import Graph, Ref, bound, pruned, replaced
from tsukiji.models.net import Net
from tsukiji.models.spec import Spec

Variables = dict[str, Any]
PARAMS, STATS = 'params/', 'batch_stats'


def lower(spec: Spec, variables: Variables) -> tuple[Graph, Variables]:
  """Return the deployed form of a trained network.

  Args:
    spec: The trained network.
    variables: `params` (arrays or nodes) and `batch_stats`.

  Returns:
    A graph with the same outputs, to float error, and `{'params': ...}`, its
    frozen weights by path.
  """
  graph, weights = simplified(*halved(*captured(spec, variables)))
  return graph, {'params': weights}


def captured(spec: Spec, variables: Variables) -> tuple[Graph, Weights]:
  """Return a network as a graph whose statistics are constants.

  Args:
    spec: The network.
    variables: `params` (arrays or nodes) and `batch_stats`.

  Returns:
    The graph and its frozen weights, by path, without removed channels.
  """
  run: Any = Net(spec).apply
  params, moments = (variables.get(x, {}) for x in ('params', STATS))
  one = jax.ShapeDtypeStruct((1, *spec.input_shape), jnp.float32)
  whole = {'params': jax.eval_shape(tree.decode, params), STATS: moments}
  graph = replaced(capture(run, whole, one), _short)
  stats = {
    f'{STATS}/{k}': np.asarray(x) for k, x in tree.paths(moments).items()
  }
  return narrowed(pruned(folded(bound(graph, stats))), params)


def _short(ref: Ref) -> Ref:
  """Return the path of a parameter among `params`."""
  return ref.removeprefix(PARAMS) if isinstance(ref, str) else ref
