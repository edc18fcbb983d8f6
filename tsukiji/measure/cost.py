"""Counts of a network: parameters, MACs, BOPs, zeros.

Folds over a graph and its parameters; nothing is run. 1 MAC (multiply and
add) = 2 FLOP. Zeros cost what other numbers cost, because dense kernels
multiply them.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from compress import tree
from compress.prune.magnitude import Masked
from compress.tree import Compressed, Params
from tsukiji.deploy.passes.lower import captured
from tsukiji.graph.multiplies import Multiply, multiplies
from tsukiji.graph.nodes import Graph
from tsukiji.models import net as net_lib
from tsukiji.models.spec import Shape, Spec

FLOAT_BITS = 32  # networks compute in float32


class LayerCost(NamedTuple):
  """The counts of one product with a weight, per example.

  Attributes:
    name: Of its layer, as in the parameter tree.
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


def macs(network: Spec | Graph, params: Params | None = None) -> int:
  """Count the multiply-accumulates of one example.

  Convolutions and products of matrices count; norms, activations, pools and
  biases do not. A SAME convolution counts its padded taps, as dense kernels do.

  Args:
    network: The layers, or a graph.
    params: Of a graph, whose sizes they are.

  Returns:
    MACs. Twice that is FLOP.

  >>> from tsukiji.models import spec as sp
  >>> layers = (sp.Flatten(), sp.Dense(name='fc', features=3))
  >>> macs(Spec(name='n', input_shape=(2, 2, 1), layers=layers))
  12
  """
  if isinstance(network, Graph):
    return sum(product.macs for product in _products(network, params))
  return _of_layers(network)


@functools.cache
def _of_layers(spec: Spec) -> int:
  """Return the MACs of a network with dense weights."""
  shapes = net_lib.variable_shapes(spec)
  return macs(*captured(spec, jax.tree.map(_zeros, shapes)))


def _zeros(x: Any) -> np.ndarray:
  return np.zeros(x.shape, x.dtype)


def layers(graph: Graph, params: Params) -> tuple[LayerCost, ...]:
  """Count every product with a weight.

  Args:
    graph: The network.
    params: Its parameters by path: arrays and nodes.

  Returns:
    One `LayerCost` per product, in order of execution.
  """
  weights = tree.paths(params)
  found = _products(graph, params)
  return tuple(_of_product(x, weights) for x in found if x.path)


def _products(graph: Graph, params: Params) -> tuple[Multiply, ...]:
  shapes = jax.eval_shape(tree.decode, params)
  constants = graph.parameters
  return multiplies(graph, {p: shapes[p] for p in constants if p in shapes})


def _of_product(x: Multiply, weights: dict[str, Any]) -> LayerCost:
  kind = {'conv': 'Conv', 'dot': 'Dense'}[x.op]
  node = weights[x.path]
  dense = tree.decode(node)
  sizes = np.size(dense), _nonzero(dense)
  return LayerCost(
    x.layer, kind, x.before, x.after, x.macs, *sizes, *_bits(node)
  )


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
  graph: Graph, params: Params, dense_macs: int | None = None
) -> dict[str, float]:
  """Return the counts as keys of a results row.

  Args:
    graph: The network, lowered.
    params: Its parameters.
    dense_macs: MACs of the dense network, to add `mac_fraction`.

  Returns:
    `params`, `nonzero`, `macs`, `bops`, `sparsity`; `weight_bits` and
    `activation_bits` where any layer has such a grid: the mean over layers
    weighted by their weights, floats counting 32.
  """
  costs = layers(graph, params)
  stored = _stored(params)
  row: dict[str, float] = {
    'params': sum(np.size(x) for x in stored),
    'nonzero': sum(map(_nonzero, stored)),
    'macs': macs(graph, params),
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
