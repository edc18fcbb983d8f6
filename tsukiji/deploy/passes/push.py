r"""Affine functions of constants go into the products that read them.

What a product reads as $g x + s$ is a matter of its weight:
$W (g x + s) = (W g) x + W s$. So the standardization of inputs goes into the
first layer.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tsukiji.deploy.passes.absorb import Weights, placed, product_of
from tsukiji.deploy.passes.affine import Affine, Chains
from tsukiji.graph.nodes import Graph, Node, Ref, expanded, input_name, pruned

SUMS = ('reduce_sum', 'reduce_window_sum')  # which a factor makes means


def pushed(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
  """Return a network with the same outputs, to float error.

  Args:
    graph: The network.
    weights: Arrays and frozen nodes, by path.

  Returns:
    The network, where such products read $x$ and the sum with their constant
    follows, and its weights. What stays: a convolution with padding, whose
    zeros are not $s$; a weight that is no array of float32, or is read twice;
    means, which engines know.
  """
  chains, weights = Chains(graph, weights), dict(weights)
  found = dict[int, tuple[Ref, np.ndarray]]()
  starts: list[Ref] = [*map(input_name, range(len(graph.inputs)))]
  starts += [i for i, x in enumerate(graph.nodes) if x.op not in SUMS]
  done = set[Ref]()
  for ref in starts:
    for chain in chains.after(ref) if ref not in done else ():
      done |= {*chain.nodes}
      new = _pushed(chain, graph, weights, chains)
      if new:
        i, path, weights[path], term = new
        found[i] = ref, term

  def summed(i: int, node: Node, at: int) -> list[Node]:
    if i not in found:
      return [node]
    return [node, Node('add', (at, found[i][1]))]

  nodes = [*graph.nodes]
  for i, (ref, _) in found.items():
    nodes[i] = nodes[i]._replace(inputs=(ref, nodes[i].inputs[1]))
  small = pruned(expanded(graph._replace(nodes=tuple(nodes)), summed))
  return small, {path: weights[path] for path in small.parameters}


def _pushed(
  chain: Affine, graph: Graph, weights: Weights, chains: Chains
) -> tuple[int, str, jax.Array, np.ndarray] | None:
  """Return the product, its weight, what this becomes, and the constant."""
  i = chains.reader(chain)
  if i is None:
    return None
  node = graph.nodes[i]
  product = product_of(node, weights)
  if product is None or not chains.once(product.path):
    return None
  w = weights[product.path]
  plain = isinstance(w, jax.Array) and w.dtype == jnp.float32
  axis = _inputs(node, chains)
  if not plain or axis is None and chain.gain.ndim + chain.shift.ndim:
    return None
  if np.any(chain.shift != 0) and not _is_plain(node):
    return None
  rank = w.ndim
  gain, shift = (
    np.asarray(placed(x, (axis or 0) - rank)) for x in (chain.gain, chain.shift)
  )
  outputs = rank + product.channels
  others = tuple(i for i in range(rank) if i != outputs)
  term = np.sum(np.float64(w) * shift, axis=others)
  new = jnp.float32(np.float64(w) * gain)
  return (
    i,
    product.path,
    new,
    np.asarray(placed(np.float32(term), product.axis)),
  )


def _inputs(node: Node, chains: Chains) -> int | None:
  """Return the axis of a weight that meets the last one of what is read."""
  rank = len(chains.shape(node.inputs[0]).shape)
  if node.op == 'conv':
    (_, channels, *_), (_, axis, *_), _ = node.attrs['dims']
    size = chains.shape(node.inputs[1]).shape[axis]
    grouped = chains.shape(node.inputs[0]).shape[channels] != size
    return axis if channels == rank - 1 and not grouped else None
  (left, right), _ = node.attrs['dims']
  return right[left.index(rank - 1)] if rank - 1 in left else None


def _is_plain(node: Node) -> bool:
  """Return whether a product sums what it reads alone, by its outputs alone."""
  if node.op == 'dot':
    return node.attrs['dims'][1] == ((), ())
  spread = any(step != 1 for step in node.attrs['dilation'][0])
  return not spread and not any(any(pair) for pair in node.attrs['padding'])
