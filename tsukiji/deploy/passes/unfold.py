"""Unfolding: a layer with a factorized weight becomes several layers."""

import dataclasses
from typing import Any

import numpy as np

from compress import tree
from compress.lowrank.factors import Factored, is_depthwise
from tsukiji.models import spec as sp
from tsukiji.models.spec import Conv, Dense, Layer, Spec

Variables = dict[str, Any]


def unfold(spec: Spec, variables: Variables) -> tuple[Spec, Variables]:
  """Replace each layer with a factorized weight by layers of its factors.

  Args:
    spec: The network.
    variables: `params` (arrays and nodes) and `batch_stats`.

  Returns:
    The spec and variables of a network with the same outputs, to float error.
    Grouped convolutions do not change, since their factors are not layers.
  """
  params = dict(variables['params'])

  def split(layer: Layer) -> tuple[Layer, ...]:
    if not isinstance(layer, Conv | Dense):
      return (layer,)
    own = params[layer.name]
    kernel, groups = own['kernel'], getattr(layer, 'groups', 1)
    if not isinstance(kernel, Factored) or groups > 1:
      return (layer,)
    del params[layer.name]
    layers = _layers(layer, kernel)
    for one, part in zip(layers, kernel.factors().values(), strict=True):
      params[one.name] = {'kernel': part}
    if 'bias' in own:
      params[layers[-1].name]['bias'] = own['bias']
    return layers

  layers = sp.expand_layers(split, spec)
  return layers, {**variables, 'params': params}


def _layers(layer: Conv | Dense, node: Factored) -> tuple[Conv | Dense, ...]:
  """Return the layers of the factors of a weight."""
  made: list[Conv | Dense] = []
  shapes = {f: tree.shape_of(x) for f, x in node.factors().items()}
  left = list(getattr(layer, 'strides', ()))
  before = 0
  for i, (field, shape) in enumerate(shapes.items()):
    changes: dict[str, Any] = {
      'name': f'{layer.name}_{field}',
      'features': shape[-1],
      'bias': layer.bias and i == len(shapes) - 1,
    }
    if isinstance(layer, Conv):
      # A side is strided over where its window is, or else at once.
      here = [a == k for a, k in zip(shape[:2], layer.kernel, strict=True)]
      changes['kernel'] = shape[:2]
      changes['strides'] = tuple(np.where(here, left, 1).tolist())
      left = np.where(here, 1, left).tolist()
      changes['groups'] = shape[-1] if is_depthwise(before, shape) else 1
    made.append(dataclasses.replace(layer, **changes))
    before = shape[-1]
  return tuple(made)
