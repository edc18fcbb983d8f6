"""Unfolding: a product with a factorized weight becomes several products."""

from typing import Any

from compress.lowrank.factors import Factored
from tsukiji.deploy.passes.absorb import Weights
from tsukiji.graph import evaluate
from tsukiji.graph.nodes import Graph, Node, expanded, pruned, reads

CHANNELS_LAST = (3, 2, 0, 1)  # axes of a kernel: outputs, inputs, window
MATRIX = ((0,), ())  # summed over, shared


def unfolded(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
  """Replace each product with a factorized weight by products of its factors.

  Args:
    graph: The network.
    weights: Arrays and frozen nodes, by path.

  Returns:
    A network with the same outputs, to float error, and its weights. Where the
    factors are no kernels of the product (groups, other axes, a weight that is
    read elsewhere) they are multiplied before it.
  """
  counts, weights = reads(graph), dict(weights)
  if not any(isinstance(x, Factored) for x in weights.values()):
    return graph, weights
  grouped = _grouped(graph, weights)

  def factors(i: int, node: Node, at: int) -> list[Node]:
    path = node.inputs[1] if len(node.inputs) == 2 else None
    if isinstance(path, str) and counts[path] == 1 and i not in grouped:
      return _chain(node, path, weights, at)
    return [node]

  small = pruned(expanded(graph, factors))
  return small, {path: weights[path] for path in small.parameters}


def _grouped(graph: Graph, weights: Weights) -> set[int]:
  """Return the convolutions with groups."""
  found = set[int]()
  values = evaluate.shapes_of(graph, weights)
  for i, node in enumerate(graph.nodes):
    if node.op == 'conv':
      x, kernel = (values(ref).shape for ref in node.inputs[:2])
      (_, channels, *_), (_, inputs, *_), _ = node.attrs['dims']
      if x[channels] != kernel[inputs]:
        found.add(i)
  return found


def _chain(node: Node, path: str, weights: Weights, at: int) -> list[Node]:
  """Return the products of the factors; the node alone if there are none.

  The nodes will be at `at` and behind it; `weights` gets the factors.
  """
  weight = weights.get(path)
  if not isinstance(weight, Factored) or not _is_plain(node):
    return [node]
  found: list[Node] = []
  attrs = dict(node.attrs)
  for field, factor in weight.factors().items():
    name = _named(path, field)
    x = node.inputs[0] if not found else at + len(found) - 1
    here, attrs = _part(attrs, weight.shape, factor.shape)
    found.append(Node(node.op, (x, name), here))
    weights[name] = factor
  return found


def _is_plain(node: Node) -> bool:
  """Return whether factors, which are kernels of layers, suit a node."""
  if node.op == 'dot':
    (_, summed), (_, shared) = node.attrs['dims']
    return (summed, shared) == MATRIX and 'dtype' not in node.attrs
  if node.op != 'conv' or 'dtype' in node.attrs:
    return False
  once = all(step == 1 for steps in node.attrs['dilation'] for step in steps)
  return once and node.attrs['dims'][1] == CHANNELS_LAST


def _named(path: str, field: str) -> str:
  """Return the path of a factor.

  >>> _named('conv1/kernel', 'u')
  'conv1_u/kernel'
  """
  layer, _, name = path.rpartition('/')
  return f'{layer}_{field}/{name}' if layer else f'{name}_{field}'


def _part(
  attrs: dict[str, Any], whole: tuple[int, ...], part: tuple[int, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Return the settings of a factor, and those that are left for the next.

  A side is strided over and padded where its window is, or else at once.
  """
  if 'strides' not in attrs:
    return attrs, attrs
  sides = len(attrs['strides'])
  here = [n == k for n, k in zip(part[:sides], whole[:sides], strict=True)]
  used, left = dict(attrs), dict(attrs)
  for key, none in (('strides', 1), ('padding', (0, 0))):
    pairs = [*zip(here, attrs[key], strict=True)]
    used[key] = tuple(x if now else none for now, x in pairs)
    left[key] = tuple(none if now else x for now, x in pairs)
  return used, left
