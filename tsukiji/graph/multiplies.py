"""Multiply-accumulates of a graph, by the parameter that is multiplied."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from tsukiji.graph import evaluate
from tsukiji.graph.nodes import Graph, Node, Ref, input_name, is_input

LAYOUT = ('cast', 'concat', 'expand', 'reshape', 'rev', 'slice', 'transpose')


class Multiply(NamedTuple):
  """A product in a graph, for one example.

  Attributes:
    path: Of the parameter that is multiplied; '' for two activations.
    op: 'dot' or 'conv'.
    before: Shape of the other operand, without the examples.
    after: Shape of the result.
    macs: Multiply-accumulates.
  """

  path: str
  op: str
  before: tuple[int, ...]
  after: tuple[int, ...]
  macs: int

  @property
  def layer(self) -> str:
    """Name of the layer of the parameter."""
    return layer_of(self.path)


def layer_of(path: str) -> str:
  """Return the name of the layer of a weight.

  >>> layer_of('block/conv1/kernel'), layer_of('w')
  ('block/conv1', 'w')
  """
  return path.removesuffix('/kernel')


def multiplies(graph: Graph, params: Mapping[str, Any]) -> tuple[Multiply, ...]:
  """Return the products of a network in the order in which they are computed.

  Args:
    graph: The network.
    params: Arrays or their shapes, by path.

  >>> import jax.numpy as jnp
  >>> from tsukiji.graph.capture import capture
  >>> weights, x = {'w': jnp.ones((4, 3))}, jnp.ones((1, 5, 4))
  >>> multiplies(capture(lambda p, x: x @ p['w'], weights, x), weights)
  (Multiply(path='w', op='dot', before=(5, 4), after=(5, 3), macs=60),)
  """
  shapes = evaluate.abstract(params)
  inputs = evaluate.inputs_of(graph)
  origins = {input_name(i): '' for i in range(len(inputs))}
  return tuple(_found(graph, shapes, inputs, origins, 1))


def _found(
  graph: Graph,
  params: dict[str, Any],
  inputs: Sequence[Any],
  origins: dict[str, str],
  times: int,
) -> list[Multiply]:
  """Return the products of a graph that is evaluated several times."""
  values = evaluate.shapes(graph, params, inputs, 1)
  names = {input_name(i): x for i, x in enumerate(inputs)}
  paths: list[str] = []
  found: list[Multiply] = []

  def shape(ref: Ref) -> Any:
    if isinstance(ref, str):
      return names[ref] if ref in names else params[ref]
    return values[ref] if isinstance(ref, int) else ref

  def origin(ref: Ref) -> str:
    if isinstance(ref, str):
      return origins[ref] if is_input(ref) else ref
    return paths[ref] if isinstance(ref, int) else ''

  for node, value in zip(graph.nodes, values, strict=True):
    sources = [origin(ref) for ref in node.inputs]
    paths.append(sources[0] if node.op in LAYOUT and sources else '')
    args = [shape(ref) for ref in node.inputs]
    if node.op in ('dot', 'conv'):
      found.append(_product(node, args, sources, value, times))
    if node.op == 'scan':
      body, whole = (
        node.attrs['body'],
        node.attrs['consts'] + node.attrs['carry'],
      )
      rows = (jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in args[whole:])
      inside = {input_name(i): path for i, path in enumerate(sources)}
      count = times * node.attrs['length']
      found += _found(body, params, [*args[:whole], *rows], inside, count)
  return found


def _product(
  node: Node, args: list[Any], sources: list[str], value: Any, times: int
) -> Multiply:
  side = 1 if sources[1] else 0
  other = args[1 - side] if any(sources) else args[0]
  return Multiply(
    sources[side],
    node.op,
    tuple(other.shape[1:]),
    tuple(value.shape[1:]),
    times * _macs(node, args, value),
  )


def _macs(node: Node, args: list[Any], value: Any) -> int:
  if node.op == 'dot':
    (summed, _), _ = node.attrs['dims']
    each = math.prod(args[0].shape[i] for i in summed)
    return each * math.prod(value.shape)
  before, _, after = node.attrs['dims']
  apart, _ = node.attrs['dilation']
  # Each input of a transposed convolution meets the kernel once: what lies
  # between them are zeros.
  is_transposed = math.prod(apart) > 1
  x, axis = (args[0], before[1]) if is_transposed else (value, after[1])
  places = math.prod(x.shape) // max(1, x.shape[axis])
  return places * math.prod(args[1].shape)
