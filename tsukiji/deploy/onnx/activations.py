"""Activations that JAX writes as several operators, and ONNX as one."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tsukiji.deploy.onnx.axes import held, number
from tsukiji.graph.nodes import Node, Ref

Found = Mapping[str, Any]
COMMUTE = ('add', 'max', 'min', 'mul')


class Activation(NamedTuple):
  """An activation.

  Attributes:
    op: Its name among the emitters.
    pattern: An operator and its inputs: patterns, numbers, and names, of which
      those with '#' are numbers and settings, the others inputs.
  """

  op: str
  pattern: Any


_BENT = ('select', (None, 'x', 0.0), ('mul', '#alpha', 'x'), 'x')
_SLOPES = ('select', (None, 'x', 0.0), ('mul', 'y', 'x'), 'x')
_POSITIVE = ('gt', 'x', 0.0)
_BELOW = ('select', ('lt', 'x', '#low'), 'x', '#low')
_ERFC = ('erfc', ('mul', ('neg', 'x'), math.sqrt(0.5)))
ACTIVATIONS = (
  *(
    Activation(op, (form[0], (sign, *form[1][1:]), *form[2:]))
    for sign in ('ge', 'gt')
    for op, form in (('leaky_relu', _BENT), ('prelu', _SLOPES))
  ),
  Activation(
    'elu',
    (
      'select',
      _POSITIVE,
      ('mul', '#alpha', ('expm1', ('select', _POSITIVE, 'x', 0.0))),
      'x',
    ),
  ),
  Activation('clip', ('select', ('gt', 'x', '#high'), _BELOW, '#high')),
  Activation('clip', ('min', ('max', 'x', '#low'), '#high')),
  Activation('gelu', ('mul', ('mul', 0.5, 'x'), _ERFC)),
)


def activated(nodes: Sequence[Node]) -> list[Node]:
  """Return nodes of which activations are one; what they read remains.

  >>> bent = [Node('max', ('@0', np.array(0.0))),
  ...   Node('min', (0, np.array(6.0)))]
  >>> activated(bent)[1]
  Node(op='clip', inputs=('@0',), attrs={'low': 0.0, 'high': 6.0})
  """
  return [_one(nodes, node) or node for node in nodes]


def _one(nodes: Sequence[Node], node: Node) -> Node | None:
  for activation in ACTIVATIONS:
    for found in _matches(nodes, node, activation.pattern, {}):
      inputs = tuple(x for key, x in found.items() if key[0] != '#')
      attrs = {key[1:]: x for key, x in found.items() if key[0] == '#'}
      constant = isinstance(found.get('y', held(0).value), np.ndarray)
      if constant and attrs.get('low', 0) <= attrs.get('high', math.inf):
        return Node(activation.op, inputs, attrs)
  return None


def _matches(
  nodes: Sequence[Node], node: Node, pattern: Any, found: Found
) -> Iterator[Found]:
  """Yield the meanings of names with which a node is a pattern."""
  op, *parts = pattern
  if node.op != op or len(parts) != len(node.inputs):
    return
  orders = [node.inputs]
  if op in COMMUTE:
    orders.append(node.inputs[::-1])
  for refs in orders:
    yield from _all_match(nodes, refs, parts, found)


def _all_match(
  nodes: Sequence[Node], refs: Sequence[Ref], parts: Sequence[Any], found: Found
) -> Iterator[Found]:
  if not refs:
    yield found
    return
  for more in _reads(nodes, refs[0], parts[0], found):
    yield from _all_match(nodes, refs[1:], parts[1:], more)


def _reads(
  nodes: Sequence[Node], ref: Ref, part: Any, found: Found
) -> Iterator[Found]:
  """Yield the meanings of names with which what is read is a pattern."""
  if isinstance(part, tuple):
    if type(ref) is int:
      yield from _matches(nodes, nodes[ref], part, found)
    return
  single = isinstance(ref, np.ndarray) and ref.ndim < 2 and ref.size == 1
  value = number(held(ref)) if single else None
  if isinstance(part, float):
    if value is not None and math.isclose(value, part, rel_tol=1e-6):
      yield found
    return
  meaning = value if part[0] == '#' else ref
  if meaning is None:
    return
  known = found.get(part, meaning)
  if known is meaning or (type(known) is type(meaning) and known == meaning):
    yield {**found, part: meaning}
