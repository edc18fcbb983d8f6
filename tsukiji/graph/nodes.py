"""A network as a value: nodes over a table of operators.

A graph has no shapes: operands broadcast as in NumPy, sizes follow from the
weights and from the number of examples. So channels are removed, or kernels
split in factors, by an edit of the weights alone.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

# The index of a node, the path of a parameter or name of an input ('@0'), or a
# constant.
Ref: TypeAlias = int | str | np.ndarray
Attrs: TypeAlias = Mapping[str, Any]
BATCH = None  # a size that is the number of examples


class Node(NamedTuple):
  """One operation.

  Attributes:
    op: Its name in `operators.OPERATORS`.
    inputs: What it reads.
    attrs: Its settings: numbers, texts, tuples of them, and graphs.
  """

  op: str
  inputs: tuple[Ref, ...]
  attrs: Attrs = {}


class Input(NamedTuple):
  """An input of a network.

  Attributes:
    shape: Of one example.
    dtype: Name of its type.
  """

  shape: tuple[int, ...]
  dtype: str = 'float32'


class Graph(NamedTuple):
  """A pure function of parameters and inputs.

  Attributes:
    nodes: In an order in which they can be evaluated.
    outputs: What it returns.
    inputs: What it takes; () for the body of a loop.
  """

  nodes: tuple[Node, ...]
  outputs: tuple[Ref, ...]
  inputs: tuple[Input, ...] = ()

  @property
  def parameters(self) -> tuple[str, ...]:
    """Paths of the parameters, in the order in which they are read."""
    found: dict[str, None] = {}
    for ref in references(self):
      if isinstance(ref, str) and not is_input(ref):
        found.setdefault(ref)
    return tuple(found)


def input_name(i: int) -> str:
  """Return the name of an input."""
  return f'@{i}'


def is_input(ref: Ref) -> bool:
  """Return whether a reference is an input of the graph."""
  return isinstance(ref, str) and ref.startswith('@')


def references(graph: Graph) -> Iterator[Ref]:
  """Yield all that the nodes and the end of a graph read, also in loops."""
  for node in graph.nodes:
    yield from node.inputs
    if isinstance(node.attrs.get('body'), Graph):
      yield from references(node.attrs['body'])
  yield from graph.outputs


def users(graph: Graph) -> list[list[int]]:
  """Return who reads each node: nodes, and their number for the outputs.

  >>> users(Graph((Node('tanh', ('@0',)), Node('neg', (0,))), (1, 0)))
  [[1, 2], [2]]
  """
  found: list[list[int]] = [[] for _ in graph.nodes]
  for i, node in enumerate(graph.nodes):
    for ref in node.inputs:
      if type(ref) is int:
        found[ref].append(i)
  for ref in graph.outputs:
    if type(ref) is int:
      found[ref].append(len(graph.nodes))
  return found


def reads(graph: Graph) -> Counter[str]:
  """Return how often each parameter or input is read, also in loops."""
  return Counter(ref for ref in references(graph) if isinstance(ref, str))


def replaced(graph: Graph, read: Callable[[Ref], Ref]) -> Graph:
  """Return a graph that reads other things, also in loops.

  Args:
    graph: The graph.
    read: What is read -> what is read instead; a node stays itself.
  """
  nodes = []
  for node in graph.nodes:
    attrs = node.attrs
    if isinstance(attrs.get('body'), Graph):
      attrs = {**attrs, 'body': replaced(attrs['body'], read)}
    nodes.append(Node(node.op, tuple(map(read, node.inputs)), attrs))
  return graph._replace(
    nodes=tuple(nodes), outputs=tuple(map(read, graph.outputs))
  )


def bound(graph: Graph, values: Mapping[str, Any]) -> Graph:
  """Return a graph in which some parameters are constants."""

  def read(ref: Ref) -> Ref:
    known = isinstance(ref, str) and ref in values
    return np.asarray(values[str(ref)]) if known else ref

  return replaced(graph, read)


def expanded(
  graph: Graph, rule: Callable[[int, Node, int], list[Node]]
) -> Graph:
  """Return a graph with several nodes in the place of some.

  Args:
    graph: The graph.
    rule: (index, node, place) -> nodes, of which the last has the value. Those
      before it are at `place` and behind. The node reads what is new.
  """
  nodes, ends = list[Node](), list[int]()

  def moved(ref: Ref) -> Ref:
    return ends[ref] if type(ref) is int else ref

  for i, node in enumerate(graph.nodes):
    node = node._replace(inputs=tuple(map(moved, node.inputs)))
    nodes += rule(i, node, len(nodes))
    ends.append(len(nodes) - 1)
  return graph._replace(
    nodes=tuple(nodes), outputs=tuple(map(moved, graph.outputs))
  )


def pruned(graph: Graph) -> Graph:
  """Return a graph without nodes that nothing reads, each node once.

  >>> once = Node('tanh', ('@0',))
  >>> pruned(Graph((once, once, once), (1,)))
  Graph(nodes=(Node(op='tanh', inputs=('@0',), attrs={}),), outputs=(0,), ...)
  """
  first: dict[Any, int] = {}
  same = [0] * len(graph.nodes)
  for i, node in enumerate(graph.nodes):
    inputs = tuple(same[r] if type(r) is int else r for r in node.inputs)
    same[i] = first.setdefault(_key(node._replace(inputs=inputs)), i)
  read, todo = set(), [same[r] for r in graph.outputs if type(r) is int]
  while todo:
    i = todo.pop()
    if i not in read:
      read.add(i)
      todo += [same[r] for r in graph.nodes[i].inputs if type(r) is int]
  places = {i: place for place, i in enumerate(sorted(read))}

  def moved(ref: Ref) -> Ref:
    return places[same[ref]] if type(ref) is int else ref

  nodes = (
    graph.nodes[i]._replace(inputs=tuple(map(moved, graph.nodes[i].inputs)))
    for i in sorted(read)
  )
  return graph._replace(
    nodes=tuple(nodes), outputs=tuple(map(moved, graph.outputs))
  )


def _key(x: Any) -> Any:
  """Return a value that is equal for equal nodes."""
  if isinstance(x, np.ndarray):
    return x.dtype.str, x.shape, x.tobytes()
  if isinstance(x, Mapping):
    return tuple((k, _key(v)) for k, v in sorted(x.items()))
  if isinstance(x, tuple):
    return (type(x).__name__, *map(_key, x))
  return type(x).__name__, x
