"""Pools that are written as operations on slices or on split axes.

XLA on a CPU is faster with a maximum of slices, or a sum over axes that a
reshape has split, than with windows. Engines are faster with windows, and these
hold no sizes of the input.
"""

import itertools
from collections.abc import Sequence
from typing import Any

from tsukiji.graph.nodes import Attrs, Graph, Node, users

MERGED = {'max': 'reduce_window_max', 'add': 'reduce_window_sum'}


def windowed(graph: Graph) -> Graph:
  """Return a graph whose pools are windows; what they no longer read remains.

  Args:
    graph: Of a function for one number of examples.

  >>> first = {'begin': (0, 0), 'end': (None, 5), 'strides': (1, 2)}
  >>> second = {'begin': (0, 1), 'end': (None, None), 'strides': (1, 2)}
  >>> pool = Graph((Node('slice', ('@0',), first),
  ...   Node('slice', ('@0',), second), Node('max', (0, 1))), (2,))
  >>> windowed(pool).nodes[2].op, windowed(pool).nodes[2].attrs['sizes']
  ('reduce_window_max', (1, 2))
  """
  once = [len(read) == 1 for read in users(graph)]

  def visit(node: Node) -> Node:
    if node.op in MERGED:
      return _of_slices(graph.nodes, once, node) or node
    return _of_blocks(graph.nodes, node) or node

  return graph._replace(nodes=tuple(map(visit, graph.nodes)))


def _of_slices(
  nodes: Sequence[Node], once: Sequence[bool], root: Node
) -> Node | None:
  """Return the window that a tree of slices is; None if it is none."""
  slices = _slices(nodes, once, root)
  if len(slices) < 2 or len({node.inputs for node in slices}) > 1:
    return None
  parts = [node.attrs for node in slices]
  begins = [part['begin'] for part in parts]
  sizes = tuple(1 + max(places) for places in zip(*begins, strict=True))
  every = itertools.product(*map(range, sizes))
  if sorted(begins) != [*every] or len({x['strides'] for x in parts}) > 1:
    return None
  first = parts[begins.index((0,) * len(sizes))]
  if not all(_fits(part, first, sizes) for part in parts):
    return None
  return _window(MERGED[root.op], slices[0], sizes, first['strides'])


def _slices(
  nodes: Sequence[Node], once: Sequence[bool], root: Node
) -> list[Node]:
  """Return the slices that one operator joins; [] if it joins others."""
  found, todo = [], [*root.inputs]
  while todo:
    ref = todo.pop()
    if type(ref) is not int:
      return []
    node = nodes[ref]
    if node.op == 'slice' and isinstance(node.inputs[0], int | str):
      found.append(node)
    elif node.op == root.op and once[ref]:
      todo += node.inputs
    else:
      return []
  return found


def _fits(part: Attrs, first: Attrs, sizes: Sequence[int]) -> bool:
  """Return whether a slice ends where windows need it to."""
  ends = zip(part['begin'], part['end'], first['end'], sizes, strict=True)
  return all(
    end is None if at == n - 1 else end == least + at
    for at, end, least, n in ends
  )


def _of_blocks(nodes: Sequence[Node], node: Node) -> Node | None:
  """Return the window of a sum over axes that a reshape has split."""
  ref = node.inputs[0] if node.inputs else None
  if node.op != 'reduce_sum' or type(ref) is not int:
    return None
  before = nodes[ref]
  if before.op != 'reshape':
    return None
  groups = before.attrs['groups']
  plain = all(
    axes == (i,) and len(sizes) in (1, 2)
    for i, (axes, sizes) in enumerate(groups)
  )
  ends = itertools.accumulate(len(sizes) for _, sizes in groups)
  split = [len(sizes) == 2 for _, sizes in groups]
  inner = tuple(end - 1 for end, two in zip(ends, split, strict=True) if two)
  if not plain or not inner or inner != node.attrs['axes']:
    return None
  parts = zip(groups, split, strict=True)
  sizes = tuple(sizes[1] if two else 1 for (_, sizes), two in parts)
  return _window('reduce_window_sum', before, sizes, sizes)


def _window(op: str, reader: Node, sizes: Any, strides: Any) -> Node:
  """Return a window over what a node reads."""
  rank = len(sizes)
  attrs = {
    'sizes': sizes,
    'strides': strides,
    'padding': ((0, 0),) * rank,
    'dilation': ((1,) * rank, (1,) * rank),
  }
  return Node(op, reader.inputs, attrs)
