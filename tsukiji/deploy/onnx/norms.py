r"""Softmax and layer norms, which JAX writes as several operators.

A softmax is $e^{x - m} / \sum e^{x - m}$, whatever $m$ is, as long as it does
not change along the axis of the sum. A layer norm is the product of $x - \mu$,
$1 / \sqrt{\sigma^2 + \epsilon}$ and constants along the last axis, in any
order, with or without constants that are added.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tsukiji.deploy.onnx.axes import held, number
from tsukiji.graph.nodes import Node, Ref

Shape = tuple[int | None, ...]


class Nodes(NamedTuple):
  """The nodes of a graph, and their tensors."""

  nodes: Sequence[Node]
  results: Sequence[Any]

  def of(self, ref: Ref, *ops: str) -> Node | None:
    """Return the node that gives a value, if it is one of some operators."""
    node = self.nodes[ref] if type(ref) is int else None
    return node if node and node.op in ops else None

  def shape(self, ref: Ref) -> Shape:
    """Return the shape of what a node gives."""
    return tuple(self.results[ref].shape) if type(ref) is int else ()

  def same(self, ref: Ref) -> Ref:
    """Return a value without axes of size 1 that it was given."""
    node = self.of(ref, 'expand', 'reshape')
    if node is None or _wide(self.shape(node.inputs[0])) != _wide(
      self.shape(ref)
    ):
      return ref
    return self.same(node.inputs[0])


def normalized(nodes: Sequence[Node], results: Sequence[Any]) -> list[Node]:
  """Return nodes of which softmax and layer norms are one.

  Args:
    nodes: Those of a graph; what they read remains.
    results: Their tensors.
  """
  every = Nodes(nodes, results)
  return [
    _softmax(every, node)
    or _layer_norm(every, node)
    or _biased_norm(every, node)
    or node
    for node in nodes
  ]


def _softmax(every: Nodes, node: Node) -> Node | None:
  if node.op != 'div':
    return None
  top, under = node.inputs
  power = every.of(top, 'exp')
  total = every.of(every.same(under), 'reduce_sum')
  if not power or not total or not _is(total.inputs[0], top):
    return None
  axis, *others = total.attrs['axes']
  shape = every.shape(top)
  ones = (*shape[:axis], 1, *shape[axis + 1 :])
  if others or every.shape(under) != ones:
    return None
  moved = every.of(power.inputs[0], 'sub')
  if moved and every.shape(moved.inputs[1]) == ones:
    return Node('softmax', moved.inputs[:1], {'axis': axis})
  return Node('softmax', power.inputs, {'axis': axis})


def _layer_norm(every: Nodes, node: Node) -> Node | None:
  """Return the norm that a product is, without a bias."""
  factors = [*_factors(every, node)] if node.op == 'mul' else []
  others = [x for x in factors if not isinstance(x, np.ndarray)]
  if len(others) != 2:
    return None
  for one, other in (others, others[::-1]):
    size = (every.shape(one) or (None,))[-1]
    x, spread = _centered(every, one), _inverse(every, other)
    if size is None or x is None or spread is None:
      continue
    constants = [x for x in factors if isinstance(x, np.ndarray)]
    scales = [s for x in constants if (s := _along(x, size)) is not None]
    fits = len(scales) == len(constants)
    if fits and _is_variance(every, spread[0], x, size):
      scale = np.prod([np.ones(size, np.float32), *scales], axis=0)
      attrs = {'scale': scale, 'bias': None, 'epsilon': spread[1]}
      return Node('layer_norm', (x,), attrs)
  return None


def _biased_norm(every: Nodes, node: Node) -> Node | None:
  """Return the norm that a sum with constants is."""
  for one, other in _orders(node) if node.op == 'add' else ():
    product = every.of(one, 'mul')
    norm = _layer_norm(every, product) if product else None
    if norm and isinstance(other, np.ndarray):
      bias = _along(other, len(norm.attrs['scale']))
      if bias is not None:
        return norm._replace(attrs={**norm.attrs, 'bias': bias})
  return None


def _centered(every: Nodes, ref: Ref) -> Ref | None:
  """Return what a value is without its mean along the last axis."""
  node = every.of(ref, 'sub')
  if node is None or not every.shape(ref):
    return None
  x, mean = node.inputs
  of = _averaged(every, mean, every.shape(ref)[-1])
  return x if of is not None and _is(of, x) else None


def _inverse(every: Nodes, ref: Ref) -> tuple[Ref, float] | None:
  """Return the variance and epsilon of an inverse deviation."""
  node = every.of(every.same(ref), 'rsqrt')
  total = every.of(every.same(node.inputs[0]), 'add') if node else None
  for one, other in _orders(total) if total else ():
    epsilon = _number(other)
    if epsilon is not None:
      return one, epsilon
  return None


def _is_variance(every: Nodes, ref: Ref, x: Ref, size: int) -> bool:
  """Return whether a value is a variance along the last axis.

  It is a mean of squares: of what is without its mean, or of $x$, less the
  square of its mean, and at least 0.
  """
  ref = every.same(ref)
  for one, other in _orders(every.of(ref, 'max')):
    if _number(other) == 0:
      return _is_variance(every, one, x, size)
  less = every.of(ref, 'sub')
  if less is None:
    squares = _averaged(every, ref, size)
    base = None if squares is None else _root(every, squares)
    found = None if base is None else _centered(every, base)
    return found is not None and _is(found, x)
  squares, square = _averaged(every, less.inputs[0], size), less.inputs[1]
  base, mean = (
    None if r is None else _root(every, r)
    for r in (squares, every.same(square))
  )
  own = None if mean is None else _averaged(every, mean, size)
  return all(found is not None and _is(found, x) for found in (base, own))


def _averaged(every: Nodes, ref: Ref, size: int | None) -> Ref | None:
  """Return what a value is the mean of along the last axis, of this size."""
  share = 1.0
  while scaled := every.of(ref := every.same(ref), 'div', 'mul'):
    pairs = _orders(scaled) if scaled.op == 'mul' else [scaled.inputs]
    found = [(x, by) for x, n in pairs if (by := _number(n))]
    if not found:
      return None
    ref, by = found[0]
    share *= by if scaled.op == 'mul' else 1 / by
  total = every.of(ref, 'reduce_sum')
  last = total and total.attrs['axes'] == (len(every.shape(ref)),)
  whole = size and math.isclose(share * size, 1, rel_tol=1e-5)
  return total.inputs[0] if total and last and whole else None


def _root(every: Nodes, ref: Ref) -> Ref | None:
  """Return what a value is the square of."""
  node = every.of(ref, 'ipow', 'mul')
  if node is None:
    return None
  if node.op == 'ipow':
    return node.inputs[0] if node.attrs['power'] == 2 else None
  return node.inputs[0] if _is(*node.inputs) else None


def _factors(every: Nodes, node: Node) -> Iterator[Ref]:
  for ref in node.inputs:
    inner = every.of(ref, 'mul')
    if inner:
      yield from _factors(every, inner)
    else:
      yield ref


def _orders(node: Node | None) -> list[tuple[Ref, ...]]:
  return [node.inputs, node.inputs[::-1]] if node else []


def _along(x: Any, size: int) -> np.ndarray | None:
  """Return constants along the last axis; None if they are others."""
  if x.size == 1:
    return np.full(size, x.item(), np.float32)
  one = x.shape[-1] == x.size == size
  return x.reshape(-1).astype(np.float32) if one else None


def _wide(shape: Shape) -> list[int | None]:
  return [n for n in shape if n != 1]


def _number(ref: Ref) -> float | None:
  return number(held(ref)) if isinstance(ref, np.ndarray) else None


def _is(one: Ref, other: Ref) -> bool:
  """Return whether two values are the same, of a node or an input."""
  return type(one) is type(other) in (int, str) and one == other
