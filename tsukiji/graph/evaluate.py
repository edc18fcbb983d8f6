"""Graphs as JAX functions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from tsukiji.graph.nodes import Graph, Input, Node, Ref, input_name
from tsukiji.graph.operators import OPERATORS, sized

Array = jax.Array
SIZED = {'broadcast': 'shape', 'dynamic_slice': 'sizes'}  # may hold BATCH


def run(graph: Graph, params: Mapping[str, Array], *inputs: Any) -> Any:
  """Return the outputs of a graph.

  Args:
    graph: The network.
    params: Arrays by path.
    *inputs: Arrays, examples first.

  Returns:
    The output, or a tuple of several.
  """
  found = evaluate(graph, params, inputs, count=jnp.shape(inputs[0])[0])[0]
  return found[0] if len(found) == 1 else found


def named(graph: Graph, inputs: Sequence[Any]) -> dict[str, Any]:
  """Return the inputs of a graph, or of the body of a loop, by name."""
  given = map(_typed, inputs, graph.inputs) if graph.inputs else inputs
  return {input_name(i): x for i, x in enumerate(given)}


def _typed(x: Any, like: Input) -> Any:
  """Return pixels that are integers as floats, if the network takes floats."""
  pixels = jnp.issubdtype(jnp.result_type(x), jnp.integer)
  floats = jnp.issubdtype(like.dtype, jnp.floating)
  return jnp.asarray(x, like.dtype) if pixels and floats else x


def inputs_of(graph: Graph, count: int = 1) -> list[jax.ShapeDtypeStruct]:
  """Return the shapes and types of the inputs for a number of examples."""
  return [
    jax.ShapeDtypeStruct((count, *x.shape), jnp.dtype(x.dtype))
    for x in graph.inputs
  ]


def abstract(params: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
  """Return the shapes and types of arrays by path."""
  return {
    path: jax.ShapeDtypeStruct(x.shape, x.dtype) for path, x in params.items()
  }


def shapes(
  graph: Graph, params: Mapping[str, Any], inputs: Sequence[Any], count: int
) -> list[Any]:
  """Return the shape and type of the result of each node."""

  def all_values(params: Any, inputs: Any) -> Any:
    return evaluate(graph, params, inputs, count)[1]

  return list(jax.eval_shape(all_values, dict(params), [*inputs]))


def shapes_of(
  graph: Graph, params: Mapping[str, Any], count: int = 1
) -> Callable[[Ref], Any]:
  """Return the function from what nodes read to its shape and type.

  Args:
    graph: The network.
    params: Arrays, nodes or shapes, by path; it may hold others too.
    count: Number of examples.
  """
  names = abstract({path: params[path] for path in graph.parameters})
  inputs = inputs_of(graph, count)
  values = shapes(graph, names, inputs, count)
  names |= {input_name(i): x for i, x in enumerate(inputs)}

  def read(ref: Ref) -> Any:
    if isinstance(ref, str):
      return names[ref]
    return values[ref] if isinstance(ref, int) else ref

  return read


def evaluate(
  graph: Graph, params: Mapping[str, Array], inputs: Sequence[Any], count: int
) -> tuple[tuple[Any, ...], list[Any]]:
  """Return the outputs and the results of all nodes.

  Args:
    graph: The network, or the body of a loop.
    params: Arrays by path.
    inputs: Arrays.
    count: Number of examples.
  """
  known = named(graph, inputs)
  values: list[Any] = []

  def read(ref: Ref) -> Any:
    if isinstance(ref, str):
      return known[ref] if ref in known else params[ref]
    return values[ref] if isinstance(ref, int) else ref

  for node in graph.nodes:
    values.append(value(node, [*map(read, node.inputs)], params, count))
  return tuple(map(read, graph.outputs)), values


def value(
  node: Node, args: Sequence[Any], params: Mapping[str, Array], count: int
) -> Any:
  """Return the result of a node for given inputs."""
  if node.op == 'scan':
    return _scan(args, params, count, **node.attrs)
  if node.op == 'item':
    return args[0][node.attrs['index']]
  attrs = dict(node.attrs)
  if node.op in SIZED:
    attrs[SIZED[node.op]] = sized(attrs[SIZED[node.op]], count)
  return OPERATORS[node.op](*map(jnp.asarray, args), **attrs)


def _scan(
  args: Sequence[Any],
  params: Mapping[str, Array],
  batch: int,
  body: Graph,
  consts: int,
  carry: int,
  length: int,
  reverse: bool,
) -> tuple[Any, ...]:
  """Return what a loop carries at its end, and what it stacks."""
  fixed, state = args[:consts], args[consts : consts + carry]

  def step(state: Any, xs: Any) -> Any:
    found = evaluate(body, params, [*fixed, *state, *xs], batch)[0]
    return found[:carry], found[carry:]

  state = tuple(map(jnp.asarray, state))
  xs = tuple(args[consts + carry :])
  end, stacked = jax.lax.scan(step, state, xs, length, reverse)
  return (*end, *stacked)
