"""The graph of a function, read from its jaxpr.

The function is traced for two numbers of examples. What is equal in both is
kept; a size that differs is the number of examples (`BATCH`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from compress import tree
from compress.dataflow.interpreter import opened
from tsukiji.graph.builder import Builder, Value
from tsukiji.graph.folding import folded
from tsukiji.graph.nodes import (
  BATCH,
  Graph,
  Input,
  Node,
  Ref,
  input_name,
  pruned,
)
from tsukiji.graph.trace import UNKNOWN, walk
from tsukiji.graph.windows import windowed

COUNTS = (11, 13)  # examples of the two traces, unlike other sizes


def capture(apply: Callable[..., Any], params: Any, *inputs: Any) -> Graph:
  """Return the graph of a network.

  Args:
    apply: `(params, *inputs)` -> an array or a tree of arrays: any JAX
      function of trees of arrays, in evaluation mode.
    params: Its parameters: arrays, nodes or shapes.
    *inputs: Arrays or shapes, examples first; their number does not matter.

  Returns:
    The graph; it takes any number of examples.

  Raises:
    ValueError: If an operator is not known, or the function is another one
      for other numbers of examples; the message says where in the source.

  >>> graph = capture(lambda p, x: x @ p['w'] + 1, {'w': np.ones((3, 2))},
  ...   np.ones((1, 3)))
  >>> [node.op for node in graph.nodes], graph.parameters
  (['dot', 'add'], ('w',))
  """
  dense = jax.eval_shape(tree.decode, params)
  one, other = (_traced(apply, dense, inputs, count) for count in COUNTS)
  graph = pruned(folded(_merged(one, other)))
  _expect_known(graph)
  return graph


def _expect_known(graph: Graph) -> None:
  """Raise ValueError if a node is no operator of graphs."""
  for node in graph.nodes:
    if node.op == UNKNOWN:
      raise ValueError(
        f'graph: expected an operator that files can hold, got '
        f'{node.attrs["message"]}'
      )
    if 'body' in node.attrs:
      _expect_known(node.attrs['body'])


def _traced(
  apply: Callable[..., Any], params: Any, inputs: Sequence[Any], count: int
) -> Graph:
  """Return the graph for one number of examples."""

  def sized(x: Any) -> jax.ShapeDtypeStruct:
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    return jax.ShapeDtypeStruct((count, *x.shape[1:]), dtype)

  few = jax.tree.map(sized, tuple(inputs))
  try:
    closed = jax.make_jaxpr(apply)(params, *few)
  except (TypeError, ValueError) as e:
    raise ValueError(
      f'graph: expected a function of any number of examples, got {e!s:.160} '
      f'for {count}.'
    ) from e
  names = [*tree.paths(params)]
  leaves = jax.tree.leaves(few)
  refs: list[Ref] = [*names, *map(input_name, range(len(leaves)))]
  builder = Builder()
  avals: list[Any] = closed.in_avals
  args = [
    Value(ref, tuple(x.shape)) for ref, x in zip(refs, avals, strict=True)
  ]
  outs = walk(builder, *opened(closed), args)
  ends = [
    builder.whole(x, v) for x, v in zip(outs, closed.out_avals, strict=True)
  ]
  taken = tuple(Input(x.shape[1:], x.dtype.name) for x in leaves)
  return windowed(Graph(tuple(builder.nodes), tuple(ends), taken))


def _merged(one: Graph, other: Graph) -> Graph:
  """Return a graph for any number of examples."""
  if len(one.nodes) != len(other.nodes) or not _same(
    one.outputs, other.outputs
  ):
    raise _odd('other operations')
  nodes = map(_merged_node, one.nodes, other.nodes)
  return one._replace(nodes=tuple(nodes))


def _merged_node(a: Node, b: Node) -> Node:
  where = a.attrs.get('where', '')
  if a.op != b.op or not _same(a.inputs, b.inputs):
    raise _odd(f'{a.op} of other values{where}')
  if a.op == 'reshape':
    pairs = zip(a.attrs['groups'], b.attrs['groups'], strict=True)
    groups = tuple(_inferred(where, *pair) for pair in pairs)
    return Node(a.op, a.inputs, {'groups': groups})
  attrs = {
    key: _merged_attr(f'{a.op}{where}', x, b.attrs[key])
    for key, x in a.attrs.items()
    if key != 'where'
  }
  return Node(a.op, a.inputs, attrs)


def _merged_attr(where: str, a: Any, b: Any) -> Any:
  if isinstance(a, Graph):
    return _merged(a, b)
  if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
    return tuple(_merged_attr(where, x, y) for x, y in zip(a, b, strict=True))
  if a == b:
    return a
  if (a, b) != COUNTS:
    raise _odd(f'{where} with {a} and {b}')
  return BATCH


def _inferred(where: str, one: Any, other: Any) -> Any:
  """Return a group of a reshape with the size that follows from the others."""
  (axes, sizes), (_, others) = one, other
  differ = [i for i, n in enumerate(sizes) if others[i : i + 1] != (n,)]
  if one[0] != other[0] or len(differ) > 1 or len(sizes) != len(others):
    raise _odd(f'a reshape{where} with {sizes} and {others}')
  if not axes or not sizes:
    return axes, sizes
  at = (differ or [len(sizes) - 1])[0]
  return axes, (*sizes[:at], -1, *sizes[at + 1 :])


def _same(a: Sequence[Ref], b: Sequence[Ref]) -> bool:
  return len(a) == len(b) and all(map(_equal, a, b))


def _equal(a: Ref, b: Ref) -> bool:
  if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
    return a.dtype == b.dtype and np.array_equal(
      a, b, equal_nan=a.dtype.kind == 'f'
    )
  return type(a) is type(b) and a == b


def _odd(what: str) -> ValueError:
  one, other = COUNTS
  return ValueError(
    f'graph: expected the same function for any number of examples, got '
    f'{what} for {one} and {other}. Write sizes of the batch as -1 or x.shape.'
  )
