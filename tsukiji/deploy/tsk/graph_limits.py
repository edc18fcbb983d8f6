"""Limits of a graph in a file, computed before anything runs.

Shapes are inferred node by node, so that no array is larger than an example
may be, and JAX traces no more than the file pays for (`limits`).
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from compress import dataflow, tree
from tsukiji.deploy.tsk import limits
from tsukiji.deploy.tsk.header import check as expect_right
from tsukiji.deploy.tsk.header import damaged
from tsukiji.deploy.tsk.limits import Sizes
from tsukiji.graph import evaluate
from tsukiji.graph.nodes import Graph, Node, Ref, input_name

LENGTH = 2**16  # of a loop
COUNTS = ('consts', 'carry', 'length')
PREFIXES = ('params/', 'constants/')


def check(graph: Graph, sizes: Sizes, size: int) -> int:
  """Check that tracing and running a graph is within the limits.

  Args:
    graph: The network.
    sizes: Of the arrays in the file.
    size: Bytes of the file.

  Returns:
    Upper bound of the bytes of an example.

  Raises:
    ValueError: If the graph does not fit its weights, or a limit is exceeded.
  """
  most = limits.OPERATIONS.of(sizes.bytes)
  limits.expect(size, '', _operations(graph), most, 'operations')
  expect_right(bool(graph.inputs), 'a graph with inputs', graph.inputs)
  params = {
    path.removeprefix(prefix): jax.ShapeDtypeStruct(shape, sizes.dtypes[path])
    for path, shape in sizes.shapes.items()
    for prefix in PREFIXES
    if path.startswith(prefix)
  }
  odd = sorted({*params} ^ {*graph.parameters})
  expect_right(not odd, 'the weights that the graph reads', odd[:1])
  inputs = evaluate.inputs_of(graph)
  results = _results(graph, params, inputs, size)
  _lower(graph, params, inputs)
  return 2 * sum(map(_bytes, (*inputs, *results)))


def _lower(graph: Graph, params: dict[str, Any], inputs: list[Any]) -> None:
  """Raise ValueError if XLA would not take settings that JAX takes."""

  def run(params: dict[str, Any], inputs: list[Any]) -> Any:
    return evaluate.run(graph, params, *inputs)

  try:
    jax.jit(run).lower(params, inputs)
  except Exception as e:  # whatever ill-matched settings make it raise
    raise damaged('a graph that XLA takes', repr(e)) from e


def check_inputs(graph: Graph, params: dict[str, Any]) -> None:
  """Check that nodes which transform the inputs of weights have inputs.

  Args:
    graph: The network.
    params: Its arrays and nodes, by path.

  Raises:
    ValueError: If a node transforms the input of a weight that is in no
      product, as a bias, or one that the node does not fit.
  """
  nodes = dataflow.transforming(params)
  if not nodes:
    return
  dense = jax.eval_shape(tree.decode, params)

  def network(dense: Any, *inputs: Any) -> Any:
    return evaluate.run(graph, dense, *inputs)

  def run(dense: Any, *inputs: Any) -> Any:
    return dataflow.transformed(network, dense, inputs, nodes)

  try:
    jax.eval_shape(run, dense, *evaluate.inputs_of(graph))
  except Exception as e:  # whatever ill-matched nodes make JAX raise
    raise damaged('weights whose inputs their nodes transform', e) from e


def _operations(graph: Graph) -> int:
  inside = (node.attrs.get('body') for node in graph.nodes)
  bodies = (body for body in inside if isinstance(body, Graph))
  return len(graph.nodes) + sum(map(_operations, bodies))


def _results(
  graph: Graph, params: dict[str, Any], inputs: Sequence[Any], size: int
) -> list[Any]:
  """Return the shapes of the results of all nodes, checked one by one."""
  found: list[Any] = []
  names = params | {input_name(i): x for i, x in enumerate(inputs)}
  every: list[Any] = []
  for node in graph.nodes:
    args = [_read(ref, found, names) for ref in node.inputs]
    if node.op == 'scan':
      every += _in_loop(node, args, params, size)
    found.append(_result(node, args, params))
    every += jax.tree.leaves(found[-1])
    largest = max(map(_bytes, every), default=0)
    limits.expect(
      size, 'examples that take', largest, limits.EXAMPLE_LIMIT, 'bytes'
    )
  for ref in graph.outputs:
    expect_right(hasattr(_read(ref, found, names), 'shape'), 'an output', ref)
  return every


def _read(ref: Ref, found: list[Any], names: dict[str, Any]) -> Any:
  """Return the shape of what a node reads."""
  if isinstance(ref, str):
    expect_right(ref in names, 'the name of a weight or an input', ref)
    return names[ref]
  return found[ref] if isinstance(ref, int) else ref


def _result(node: Node, args: list[Any], params: dict[str, Any]) -> Any:
  """Return the shape of the result of a node."""

  def run(args: list[Any], params: dict[str, Any]) -> Any:
    return evaluate.value(node, args, params, count=1)

  try:
    return jax.eval_shape(run, args, params)
  except Exception as e:  # whatever ill-matched settings make JAX raise
    raise damaged(f'a node {node.op} that fits', repr(e)) from e


def _in_loop(
  node: Node, args: list[Any], params: dict[str, Any], size: int
) -> list[Any]:
  """Return the shapes of the results in the body of a loop."""
  attrs = node.attrs
  body, counts = attrs.get('body'), [attrs.get(k) for k in COUNTS]
  right = isinstance(body, Graph) and all(type(n) is int for n in counts)
  expect_right(right, 'a body and sizes of a loop', sorted(attrs))
  limits.expect(size, 'a loop of', attrs['length'], LENGTH, 'steps')
  whole = attrs['consts'] + attrs['carry']
  cut = (jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in args[whole:])
  return _results(attrs['body'], params, [*args[:whole], *cut], size)


def _bytes(x: Any) -> int:
  return math.prod(x.shape) * np.dtype(x.dtype).itemsize
