"""Networks as graphs of constants: in integers where they can be, or floats."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from compress import dataflow, tree
from tsukiji.deploy.c.formulas import SHRUNK
from tsukiji.deploy.c.plan.values import FLOAT, kind_of
from tsukiji.deploy.integer import compile as integers
from tsukiji.deploy.integer import reference
from tsukiji.deploy.onnx.preparing import explicit
from tsukiji.graph import evaluate
from tsukiji.graph.folding import folded
from tsukiji.graph.nodes import Graph, Input, Node, bound, pruned


class Read(NamedTuple):
  """A network of which all but the input is known.

  Attributes:
    graph: The network; its parameters are constants.
    kinds: C types of its nodes.
    paths: Of parameters, by the `id` of their arrays.
    outputs: Shapes and types of the outputs, of one example.
    is_whole: Whether it is computed in integers.
    lists: Whether products of floats go through lists of the weights that are
      not 0, or through blocks of all; None for what should be faster.
    many: Whether several examples are computed together where they can be;
      None where that should be faster.
  """

  graph: Graph
  kinds: list[str]
  paths: dict[int, str]
  outputs: tuple[Input, ...]
  is_whole: bool = False
  lists: bool | None = None
  many: bool | None = None


def read(
  graph: Graph, variables: Mapping[str, Any], is_whole: bool = True
) -> Read:
  """Return a network of constants.

  Args:
    graph: The network.
    variables: `{'params': ...}` by path: arrays and nodes.
    is_whole: Whether it is computed in integers if it can be.
  """
  whole = integer(graph, variables) if is_whole else None
  return _integers(whole) if whole else _floats(graph, variables)


def integer(
  graph: Graph, variables: Mapping[str, Any]
) -> reference.Integer | None:
  """Return a network in integers, None if it cannot be."""
  try:
    return integers.compiled(graph, variables)
  except ValueError:
    return None


def _integers(net: reference.Integer) -> Read:
  """Return a network in integers, whose outputs are floats."""
  paths = {
    id(net.graph.nodes[i].inputs[1]): path for path, i in net.products.items()
  }
  x = net.graph.inputs[0]
  values = reference.run(net.graph, np.zeros((1, *x.shape), x.dtype))
  (last,) = net.graph.outputs
  assert isinstance(last, int)
  count = len(net.graph.nodes)
  scale = np.asarray(net.scale, np.float32)
  nodes = (
    *map(shifted, net.graph.nodes),
    Node('cast', (last,), {'dtype': 'float32'}),
    Node('mul', (count, scale)),
  )
  kinds = [kind_of(x.dtype) for x in values]
  graph = net.graph._replace(nodes=nodes, outputs=(count + 1,))
  return Read(
    graph,
    [*kinds, FLOAT, FLOAT],
    paths,
    (Input(values[last].shape[1:], 'float32'),),
    True,
  )


def shifted(node: Node) -> Node:
  """Return a rescaling that shifts to the right alone as such."""
  if node.op != reference.RESCALED:
    return node
  x, by, shift = node.inputs
  if np.any(np.asarray(shift) > 0):
    return node
  right = np.minimum(-np.asarray(shift), 31).astype(np.int32)
  return Node(SHRUNK, (x, by, right), node.attrs)


def _floats(graph: Graph, variables: Mapping[str, Any]) -> Read:
  """Return a network in floats, whose grids of inputs are operators."""
  params = variables['params']
  frozen = tree.freeze({path: params[path] for path in graph.parameters})
  arrays = {path: np.asarray(x) for path, x in tree.decode(frozen).items()}
  nodes = dataflow.transforming(frozen)
  plain = explicit(graph, arrays, nodes)
  whole = pruned(folded(bound(plain, arrays)))
  shape = evaluate.shapes_of(whole, {})
  kinds = [
    kind_of(getattr(shape(i), 'dtype', np.float32))
    for i in range(len(whole.nodes))
  ]
  last = [shape(ref) for ref in whole.outputs]
  return Read(
    whole,
    kinds,
    {id(x): path for path, x in arrays.items()},
    tuple(Input(tuple(x.shape[1:]), _plain(x.dtype)) for x in last),
  )


def _plain(dtype: Any) -> str:
  """Return the name of a type that C has."""
  return 'float32' if kind_of(dtype) == FLOAT else np.dtype(dtype).name
