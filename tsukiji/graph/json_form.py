"""Graphs as JSON and back.

A node is `[op, *inputs]`, with its settings as a dictionary at the end if there
are any but the `USUAL` ones. An input is the index of a node, the path of a
parameter, the name of an input (`'@0'`) or of a constant (`'#0'`, stored with
the weights), or a float: a constant of float32.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tsukiji.graph.nodes import Graph, Input, Node, Ref, replaced
from tsukiji.graph.operators import OPERATORS, WINDOWS

LOOPS = ('scan', 'item')
PRECISE = np.float32
# Settings that are left out: those of images with the channels last.
USUAL: dict[str, dict[str, Any]] = {
  'conv': {
    'dims': ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)),
    'strides': (1, 1),
    'padding': ((0, 0), (0, 0)),
    'dilation': ((1, 1), (1, 1)),
  },
  'dot': {'dims': (((1,), (0,)), ((), ()))},
  **{
    op: {'padding': ((0, 0),) * 4, 'dilation': ((1,) * 4, (1,) * 4)}
    for op in WINDOWS
  },
}


def without_constants(graph: Graph) -> tuple[Graph, dict[str, np.ndarray]]:
  """Return a graph that reads its constants by name, and these.

  Finite numbers of float32 stay.
  """
  found: dict[str, np.ndarray] = {}
  names: dict[Any, str] = {}

  def named(ref: Ref) -> Ref:
    if not isinstance(ref, np.ndarray) or _is_number(ref):
      return ref
    key = ref.dtype.str, ref.shape, ref.tobytes()
    name = names.setdefault(key, f'#{len(names)}')
    found[name] = ref
    return name

  return replaced(graph, named), found


def _is_number(x: np.ndarray) -> bool:
  return x.dtype == PRECISE and x.shape == () and bool(np.isfinite(x))


def to_json(graph: Graph) -> dict[str, Any]:
  """Return a graph without named constants as JSON types.

  >>> to_json(Graph((Node('tanh', ('@0',)),), (0,), (Input((3,)),)))
  {'inputs': ['float32 3'], 'nodes': [['tanh', '@0']], 'outputs': [0]}
  """
  plain: dict[str, Any] = {
    'nodes': [_node(node) for node in graph.nodes],
    'outputs': [*map(_ref, graph.outputs)],
  }
  if graph.inputs:
    inputs = (' '.join((x.dtype, *map(str, x.shape))) for x in graph.inputs)
    plain = {'inputs': [*inputs], **plain}
  return plain


def _node(node: Node) -> list[Any]:
  usual = USUAL.get(node.op, {})
  attrs = {
    key: _attr(x) for key, x in node.attrs.items() if usual.get(key) != x
  }
  return [node.op, *map(_ref, node.inputs), *([attrs] if attrs else [])]


def _ref(ref: Ref) -> Any:
  if not isinstance(ref, np.ndarray):
    return ref
  return float(str(PRECISE(ref)))  # as short as it can be read


def _attr(x: Any) -> Any:
  if isinstance(x, Graph):
    return to_json(x)
  return [*map(_attr, x)] if isinstance(x, tuple) else x


def from_json(plain: Any) -> Graph:
  """Return the graph that JSON describes.

  Args:
    plain: The result of `json.loads`; it need not be trusted.

  Raises:
    ValueError: If it is no graph.
  """
  _expect(type(plain) is dict, 'a dictionary', plain)
  _expect(
    set(plain) - {'inputs'} == {'nodes', 'outputs'}, 'nodes', sorted(plain)
  )
  _expect(all(type(x) is list for x in plain.values()), 'lists', plain)
  inputs = tuple(map(_input, plain.get('inputs', [])))
  nodes: list[Node] = []
  for x in plain['nodes']:
    nodes.append(_read_node(x, len(nodes)))
  outputs = [_read_ref(x, len(nodes)) for x in plain['outputs']]
  return Graph(tuple(nodes), tuple(outputs), inputs)


def _input(text: Any) -> Input:
  _expect(type(text) is str, 'a type and a shape', text)
  dtype, *sizes = text.split(' ')
  right = all(x.isascii() and x.isdigit() and len(x) < 10 for x in sizes)
  _expect(right and len(sizes) < 32, 'a shape', text)
  kind = dtype in ('bool', 'int32', 'uint8', 'float32', 'float16', 'bfloat16')
  _expect(kind, 'a type of inputs', dtype)
  return Input(tuple(map(int, sizes)), dtype)


def _read_node(x: Any, before: int) -> Node:
  _expect(type(x) is list and len(x) > 0, 'a node', x)
  op, *rest = x
  known = type(op) is str and (op in OPERATORS or op in LOOPS)
  _expect(known, 'a known operator', op)
  attrs = rest.pop() if rest and type(rest[-1]) is dict else {}
  refs = tuple(_read_ref(ref, before) for ref in rest)
  given = {key: _read_attr(x) for key, x in attrs.items()}
  return Node(op, refs, USUAL.get(op, {}) | given)


def _read_ref(x: Any, before: int) -> Ref:
  if type(x) is float and math.isfinite(x):
    return np.asarray(x, PRECISE)
  right = (type(x) is int and 0 <= x < before) or type(x) is str
  _expect(right, 'a node before it, a name or a number', x)
  ref: Ref = x
  return ref


def _read_attr(x: Any) -> Any:
  if isinstance(x, Mapping):
    return from_json(x)
  if isinstance(x, list):
    return tuple(map(_read_attr, x))
  right = (
    x is None or type(x) in (bool, str) or (type(x) is int and abs(x) < 2**31)
  )
  _expect(right, 'a setting of an operator', x)
  return x


def _expect(right: bool, what: str, got: Any) -> None:
  if not right:
    raise ValueError(f'graph: expected {what}, got {repr(got)[:80]}.')
