"""Removal of pruned channels from the layers of a network."""

import dataclasses
import functools
from typing import Any

import jax

from compress import tree
from compress.channels import sliced
from tsukiji.models import spec as sp
from tsukiji.models.net import Net
from tsukiji.models.spec import Conv, Dense, Layer, Spec

Variables = dict[str, Any]


def shrink(spec: Spec, variables: Variables) -> tuple[Spec, Variables]:
  """Return a network without its removed channels.

  Args:
    spec: The network.
    variables: `params`, in which channels may be `Sliced`, and `batch_stats`.

  Returns:
    The spec with fewer features and the variables of their shapes, with other
    nodes unchanged. The same network if nothing is sliced, if it comes from
    outside, or if the shapes do not match (channels removed from a layer but
    not from the next).
  """
  params = variables['params']
  if sp.is_own(spec) or not tree.find(sliced.Sliced, params):
    return spec, variables
  small = sp.map_layers(functools.partial(_narrow, params), spec)
  left = {
    'params': tree.map_paths(lambda _, x: sliced.unsliced(x), params),
    'batch_stats': _statistics(variables['batch_stats'], params),
  }
  return (small, left) if _fits(small, left) else (spec, variables)


def _narrow(params: Any, layer: Layer) -> Layer:
  """Return a layer with the remaining features."""
  if not isinstance(layer, Conv | Dense):
    return layer
  weight = sliced.unsliced(params[layer.name]['kernel'])
  features = weight.shape[-1]
  if isinstance(layer, Conv) and layer.groups == layer.features:  # depthwise
    return dataclasses.replace(layer, features=features, groups=features)
  return dataclasses.replace(layer, features=features)


def _statistics(stats: Any, params: Any) -> Any:
  """Return the running statistics of the remaining channels."""

  def visit(path: str, x: Any) -> Any:
    norm, _, _ = path.rpartition('/')
    keep = sliced.kept(params[norm].get('scale'), 0)
    return x if keep is None else x[keep]

  return tree.map_paths(visit, stats)


def _fits(spec: Spec, variables: Variables) -> bool:
  """Return whether the shapes of the arrays are those of the network."""
  x = jax.ShapeDtypeStruct((1, *spec.input_shape), 'float32')
  try:
    want = jax.eval_shape(Net(spec).init, jax.random.key(0), x)
  except (TypeError, ValueError):
    return False
  have = jax.eval_shape(tree.decode, variables['params'])
  shapes = (tree.paths(want['params']), tree.paths(have))
  return len({tuple((p, x.shape) for p, x in s.items()) for s in shapes}) == 1
