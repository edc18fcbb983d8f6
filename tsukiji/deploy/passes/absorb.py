r"""Absorption of affine functions of constants.

What adds to the result of a product, or multiplies it, by channel goes into its
weight and one bias: $\gamma (W x + b - \mu) / \sigma + \beta = W' x + b'$ with
$W' = W \gamma / \sigma$ and $b' = (b - \mu) \gamma / \sigma + \beta$ (Jacob+
2018, arXiv 1712.05877, section 3.2). On a grid with a step per channel the
codes do not change; on the grid of a folded weight the step does not either.
Elsewhere, and where a weight cannot be scaled, one factor and one sum remain.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from compress import tree
from compress.dataflow import Arranged
from compress.quantize.half import stored
from tsukiji.deploy.passes.affine import Affine, Chains
from tsukiji.graph.nodes import Graph, Node, Ref, input_name, pruned

Weights = dict[str, Any]


class Product(NamedTuple):
  """A product with a weight.

  Attributes:
    path: Of the weight.
    channels: Axis of the weight that is that of the channels, from the last.
    axis: Axis of the channels in the result, from the last.
  """

  path: str
  channels: int
  axis: int


def absorbed(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
  """Return a network with the same outputs, to float error, and fewer nodes.

  Args:
    graph: The network.
    weights: Arrays and frozen nodes, by path.

  Returns:
    The network and its weights.
  """
  chains, weights = Chains(graph, weights), dict(weights)
  nodes, done = list(graph.nodes), set[int]()
  starts: list[Ref] = [*map(input_name, range(len(graph.inputs)))]
  for ref in [*starts, *range(len(nodes))]:
    if ref in done:
      continue
    product = product_of(nodes[ref], weights) if type(ref) is int else None
    axis = product.axis if product else -1
    every = chains.after(ref, axis)
    done |= {i for chain in every for i in chain.nodes}
    folded = None
    if product and len(every) == 1:
      folded = _folded(product, every[0], weights, chains)
    if folded:
      bias, changed = folded
      weights |= changed
      nodes[every[0].nodes[-1]] = Node('add', (ref, bias))
      continue
    for chain in every:
      if len(chain.nodes) > 2:
        gain, shift, changed = _shortened(chain, axis, chains)
        weights |= changed
        *_, last, end = chain.nodes
        nodes[last] = Node('mul', (ref, gain))
        nodes[end] = Node('add', (last, shift))
  small = pruned(graph._replace(nodes=tuple(nodes)))
  return small, {path: weights[path] for path in small.parameters}


def product_of(node: Node, weights: Weights) -> Product | None:
  """Return what a node multiplies by, if it is a weight with channels."""
  path = node.inputs[1] if len(node.inputs) == 2 else None
  if not isinstance(path, str) or path not in weights:
    return None
  rank = len(weights[path].shape)
  if node.op == 'conv':
    _, kernel, out = node.attrs['dims']
    return Product(path, kernel[0] - rank, out[1] - rank)
  if node.op != 'dot':
    return None
  (_, summed), (_, batch) = node.attrs['dims']
  free = [i for i in range(rank) if i not in (*summed, *batch)]
  return Product(path, free[0] - rank, -1) if len(free) == 1 else None


def _folded(
  product: Product, chain: Affine, weights: Weights, chains: Chains
) -> tuple[str, Weights] | None:
  """Return the path of the bias and new weights; None if nothing changes.

  A weight that is read elsewhere too cannot be scaled.
  """
  path = product.path
  layer = path.rpartition('/')[0] or path
  bias = f'{layer}/bias'
  if chain.is_sum:
    kernel = weights[path]
    if len(chain.nodes) < 2:
      return None
  elif not chains.once(path):
    return None
  else:
    kernel = _scaled(weights[path], chain.gain, product.channels)
  if kernel is None:
    return None
  while not chains.is_free(bias, chain):
    bias += '_'
  shift = _by_channel(chain.shift, weights[path].shape[product.channels])
  return bias, {path: kernel, bias: placed(shift, product.axis)}


def _scaled(kernel: Any, gain: Any, axis: int) -> Any:
  """Return a weight times `gain` in as many bits; None if it cannot."""
  factors = _by_channel(gain, kernel.shape[axis])
  if isinstance(kernel, Arranged):
    rank = len(kernel.shape)
    alike = len(kernel.w.shape) == rank and kernel.order[-1] == rank + axis
    w = _scaled(kernel.w, gain, -1) if alike else None
    return None if w is None else kernel.replace(w=w)
  if tree.is_node(kernel):
    return tree.scaled(kernel, factors) if axis == -1 else None
  if kernel.dtype.itemsize == 2:
    return tree.scaled(stored(kernel), factors) if axis == -1 else None
  return kernel * placed(factors, axis)


def _shortened(
  chain: Affine, axis: int, chains: Chains
) -> tuple[Ref, Ref, Weights]:
  """Return a factor and a term, and those of them that are parameters."""
  found: Weights = {}

  def named(x: Any, paths: tuple[str, ...]) -> Ref:
    array = np.asarray(placed(x, axis), np.float32)
    for path in reversed(paths):
      if chains.is_free(path, chain) and path not in found:
        found[path] = jnp.asarray(array)
        return path
    return array

  gain = named(chain.gain, chain.gains)
  shift = named(chain.shift, chain.shifts)
  return gain, shift, found


def _by_channel(x: Any, channels: int) -> Any:
  return jnp.asarray(np.broadcast_to(x, channels), jnp.float32)


def placed(x: Any, axis: int) -> Any:
  """Return `[channels]` so that it broadcasts along an axis from the last."""
  return x.reshape(*x.shape, *[1] * (-1 - axis)) if x.ndim else x
