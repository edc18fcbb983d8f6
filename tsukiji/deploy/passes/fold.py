"""Folding of norms into the layers before them, to train on without them."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from compress import tree
from tsukiji.deploy.passes.shrink import shrink
from tsukiji.models import norm as norms
from tsukiji.models.spec import Branch, Conv, Dense, Layer, Norm, Spec, is_own

Variables = dict[str, Any]


def folded(spec: Spec, variables: Variables) -> tuple[Spec, Variables]:
  """Return a network whose norms are in its weights.

  Args:
    spec: The network.
    variables: `params` (arrays or nodes) and `batch_stats`.

  Returns:
    A network with the same outputs, to float error, and its variables; removed
    channels are gone. A norm behind a weight that cannot be scaled stays.

  Raises:
    ValueError: If it comes from outside, in one piece.
  """
  if is_own(spec):
    raise ValueError(
      'fold: expected a network of layers, whose norms can be folded, got one '
      'from outside. Fold them in its function.'
    )
  spec, variables = shrink(spec, {'batch_stats': {}, **variables})
  left = {
    'params': dict(variables['params']),
    'batch_stats': dict(variables['batch_stats']),
  }
  return dataclasses.replace(spec, layers=_fold_norms(spec.layers, left)), left


def _fold_norms(
  layers: tuple[Layer, ...], variables: Variables
) -> tuple[Layer, ...]:
  """Fold each norm into the convolution or dense layer directly before it."""
  out: list[Layer] = []
  for layer in layers:
    if isinstance(layer, Branch):
      paths = tuple(_fold_norms(path, variables) for path in layer.paths)
      layer = Branch(paths=paths, merge=layer.merge)
    last = out[-1] if out else None
    if isinstance(layer, Norm) and isinstance(last, Conv | Dense):
      folded = _fold(last, layer, variables)
      if folded is not None:
        out[-1] = folded
        continue
    out.append(layer)
  return tuple(out)


def _fold(
  layer: Conv | Dense, norm: Norm, variables: Variables
) -> Conv | Dense | None:
  """Fold one norm and delete it; None if the weight cannot be scaled."""
  params, stats = variables['params'], variables['batch_stats']
  affine, moments = params[norm.name], stats[norm.name]
  gain = norms.gain(norm, affine['scale'], moments['var'])
  kernel = tree.scaled(params[layer.name]['kernel'], gain)
  if kernel is None:
    return None
  bias = params[layer.name].get('bias', jnp.zeros_like(gain))
  params[layer.name] = {
    'kernel': kernel,
    'bias': (bias - moments['mean']) * gain + affine['bias'],
  }
  del params[norm.name], stats[norm.name]
  return dataclasses.replace(layer, bias=True)
