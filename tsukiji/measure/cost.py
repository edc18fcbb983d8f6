"""Counts of a network: parameters, MACs, BOPs, zeros.

Folds over a `Spec` and its parameters; nothing is run. 1 MAC (multiply and
add) = 2 FLOP. Zeros cost what other numbers cost, because dense kernels
multiply them.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from compress import tree
from compress.prune.magnitude import Masked
from compress.tree import Compressed, Params
from tsukiji.models import spec as sp
from tsukiji.models.spec import Layer, Shape, Spec, Step

FLOAT_BITS = 32  # networks compute in float32


class LayerCost(NamedTuple):
  """The counts of one convolution or dense layer, per example.

  Attributes:
    name: Its name in the spec and the parameter tree.
    kind: 'Conv' or 'Dense'.
    before: Shape of its input, without the batch.
    after: Shape of its output, without the batch.
    macs: Multiply-accumulates.
    weights: Numbers in its decoded kernel.
    nonzero: Those that are not exactly 0.
    weight_bits: Width of the kernel's grid; 32 for floats.
    activation_bits: Width of the grid of its input; 32 for floats.
  """

  name: str
  kind: str
  before: Shape
  after: Shape
  macs: int
  weights: int
  nonzero: int
  weight_bits: int
  activation_bits: int

  @property
  def bops(self) -> int:
    """MACs x weight bits x activation bits."""
    return self.macs * self.weight_bits * self.activation_bits


def macs(spec: Spec) -> int:
  """Count the multiply-accumulates of one example.

  Convolutions and dense layers count; norms, activations, pools and biases do
  not. A SAME convolution counts its padded taps, as dense kernels do.

  Args:
    spec: The network.

  Returns:
    MACs. Twice that is FLOP.

  >>> layers = (sp.Flatten(), sp.Dense(name='fc', features=3))
  >>> macs(Spec(name='n', input_shape=(2, 2, 1), layers=layers))
  12
  """
  return sum(_macs(step) for step in sp.walk(spec))


def layers(spec: Spec, params: Params) -> tuple[LayerCost, ...]:
  """Count every convolution and dense layer.

  Args:
    spec: The network.
    params: Its parameters: arrays and nodes.

  Returns:
    One `LayerCost` per layer, in order of execution.

  Raises:
    ValueError: If a layer has no kernel in `params`, or one of another shape.
  """
  weights = tree.paths(params)
  steps = [s for s in sp.walk(spec) if isinstance(s.layer, sp.Conv | sp.Dense)]
  return tuple(_cost(step, weights) for step in steps)


def params(params: Params) -> int:
  """Count the stored numbers: weights, biases, norms, scales, ranges.

  Args:
    params: Arrays and nodes; counted as frozen. A mask that could not be
      frozen into its weight is not counted: it holds no numbers.

  Returns:
    The count.

  >>> params({'fc': {'bias': np.zeros(3), 'kernel': np.ones((2, 3))}})
  9
  """
  return sum(np.size(x) for x in _stored(params))


def nonzero(params: Params) -> int:
  """Count the stored numbers that are not exactly 0.

  >>> nonzero({'fc': {'bias': np.zeros(3), 'kernel': np.ones((2, 3))}})
  6
  """
  return sum(_nonzero(x) for x in _stored(params))


def sparsity(params: Params) -> float:
  """Return the share of exact zeros among the decoded weights.

  Weights are the arrays of two axes or more: biases and norms do not count.

  Args:
    params: Arrays and nodes.

  Returns:
    A fraction in [0, 1]; 0 for a tree without weights.

  >>> sparsity({'fc': {'bias': np.zeros(3), 'kernel': np.eye(2)}})
  0.5
  """
  decoded = jax.tree.leaves(tree.decode(params))
  weights = [x for x in decoded if np.ndim(x) >= 2]
  total = sum(np.size(x) for x in weights)
  return 1 - sum(map(_nonzero, weights)) / total if total else 0.0


def summary(
  spec: Spec, params: Params, dense_macs: int | None = None
) -> dict[str, float]:
  """Return the counts as keys of a results row.

  Args:
    spec: The network, lowered.
    params: Its parameters.
    dense_macs: MACs of the dense network, to add `mac_fraction`.

  Returns:
    `params`, `nonzero`, `macs`, `bops`, `sparsity`; `weight_bits` and
    `activation_bits` where any layer has such a grid: the mean over layers
    weighted by their weights, floats counting 32.

  Raises:
    ValueError: If the parameters are not those of the network.
  """
  costs = layers(spec, params)
  stored = _stored(params)
  row: dict[str, float] = {
    'params': sum(np.size(x) for x in stored),
    'nonzero': sum(map(_nonzero, stored)),
    'macs': sum(c.macs for c in costs),
    'bops': sum(c.bops for c in costs),
    'sparsity': sparsity(params),
  }
  if dense_macs:
    row['mac_fraction'] = row['macs'] / dense_macs
  for key in ('weight_bits', 'activation_bits'):
    bits = [getattr(c, key) for c in costs]
    if any(b != FLOAT_BITS for b in bits):
      row[key] = _mean(bits, [c.weights for c in costs])
  return row


def _macs(step: Step) -> int:
  kernel = _kernel(step.layer, step.before)
  positions = math.prod(step.after[:-1])
  return positions * math.prod(kernel) if kernel else 0


def _kernel(layer: Layer, before: Shape) -> Shape:
  """Return the shape of a layer's kernel, `()` if it has none."""
  match layer:
    case sp.Conv():
      return (*layer.kernel, before[-1] // layer.groups, layer.features)
    case sp.Dense():
      return (before[-1], layer.features)
  return ()


def _cost(step: Step, weights: dict[str, Any]) -> LayerCost:
  layer, before, after = step
  name = getattr(layer, 'name', '')
  shape = _kernel(layer, before)
  kernel = weights.get(f'{name}/kernel', np.zeros(()))
  decoded = tree.decode(kernel)
  if np.shape(decoded) != shape:
    raise ValueError(
      f'cost: expected {name}/kernel of shape {shape}, got '
      f'{np.shape(decoded)} among {", ".join(weights)}. Count parameters with '
      'the spec they belong to.'
    )
  return LayerCost(
    name,
    type(layer).__name__,
    before,
    after,
    _macs(step),
    np.size(decoded),
    _nonzero(decoded),
    *_bits(kernel),
  )


def _bits(weight: Any) -> tuple[int, int]:
  """Return the widths of a weight and of the input that it multiplies."""
  nodes = list(_nodes(weight))
  # The widest of several factors determines the multiplier.
  widths = [node.bits for node in nodes if hasattr(node, 'bits')]
  inputs = [width for width in map(_input_bits, nodes) if width]
  return max(widths, default=FLOAT_BITS), (inputs or [FLOAT_BITS])[0]


def _input_bits(node: Any) -> int:
  """Return the width of the input that a node rounds; 0 if it does not."""
  grid = getattr(node, 'inputs', None)
  return grid.bits if grid else getattr(node, 'input_bits', 0)


def _nodes(x: Any) -> Iterator[Any]:
  """Yield the nodes of a weight at any depth, outermost first."""
  if isinstance(x, Compressed):
    yield x
    for field in x.inner:
      yield from _nodes(getattr(x, field))


def _stored(params: Params) -> list[Any]:
  """Return the arrays of the frozen tree, without masks."""
  frozen = tree.freeze(params)
  return jax.tree.leaves(tree.map_nodes(Masked, lambda _, n: n.w, frozen))


def _nonzero(x: Any) -> int:
  return int(np.count_nonzero(np.asarray(x)))


def _mean(bits: list[int], weights: list[int]) -> float:
  if len(set(bits)) == 1:
    return bits[0]
  return float(np.average(bits, weights=weights))
