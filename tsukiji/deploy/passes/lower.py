"""Lowering of a trained network to its deployed form.

`lower(spec, variables)` returns a network with the same outputs and fewer
layers and numbers: without removed channels, with frozen nodes, with factors as
layers, and with norms folded into the weights before them.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from compress import tree
from compress.quantize.half import stored
from compress.tree import Array
from tsukiji.deploy.passes.shrink import shrink
from tsukiji.deploy.passes.unfold import unfold
from tsukiji.models import norm as norms
from tsukiji.models.spec import Branch, Conv, Dense, Layer, Norm, Spec

Variables = dict[str, Any]


def lower(spec: Spec, variables: Variables) -> tuple[Spec, Variables]:
  """Return the deployed form of a trained network.

  Args:
    spec: The trained network.
    variables: `params` (arrays or nodes) and `batch_stats`.

  Returns:
    The spec and variables of a network with the same outputs, to float error.
  """
  spec, variables = shrink(spec, {'batch_stats': {}, **variables})
  frozen = {**variables, 'params': tree.freeze(variables['params'])}
  spec, variables = unfold(spec, frozen)
  lowered = {
    'params': dict(variables['params']),
    'batch_stats': dict(variables['batch_stats']),
  }
  layers = _fold_norms(spec.layers, lowered)
  small = Spec(name=spec.name, input_shape=spec.input_shape, layers=layers)
  return small, lowered


def _fold_norms(
  layers: tuple[Layer, ...], variables: Variables
) -> tuple[Layer, ...]:
  r"""Fold each norm into the convolution or dense layer directly before it.

  $\gamma (W x + b - \mu) / \sigma + \beta = W' x + b'$ with
  $W' = W \gamma / \sigma$ and $b' = (b - \mu) \gamma / \sigma + \beta$ (Jacob+
  2018, arXiv 1712.05877, section 3.2). On a grid with a step per channel the
  codes do not change; on the grid of a folded weight the step does not either.
  """
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
  kernel = _scaled(params[layer.name]['kernel'], gain)
  if kernel is None:
    return None
  bias = params[layer.name].get('bias', jnp.zeros_like(gain))
  params[layer.name] = {
    'kernel': kernel,
    'bias': (bias - moments['mean']) * gain + affine['bias'],
  }
  del params[norm.name], stats[norm.name]
  return dataclasses.replace(layer, bias=True)


def _scaled(kernel: Any, gain: Array) -> Any:
  """Return a weight times `gain` in as many bits; None if it cannot."""
  if not tree.is_node(kernel) and kernel.dtype.itemsize == 2:
    kernel = stored(kernel)
  return tree.scaled(kernel, gain)
