"""Binary layers in integers: popcounts, and norms as thresholds.

A product of binary weights and inputs is a sum of signs (`popcount`). If
another one follows, everything in between (scale, bias, norm, activation) is
one comparison of that integer (`comparisons`).
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from compress import dataflow as grids
from compress import tree
from compress.binary.inputs import Signed
from compress.binary.weights import Binarized
from compress.tree import Array
from tsukiji.deploy.integer import popcount
from tsukiji.deploy.integer.comparisons import (
  Comparison,
  Source,
  Threshold,
  comparison,
)
from tsukiji.deploy.integer.settled import Settled, is_product, settled
from tsukiji.errors import expect
from tsukiji.graph import evaluate
from tsukiji.graph.multiplies import layer_of
from tsukiji.graph.nodes import (
  Graph,
  Input,
  Node,
  Ref,
  input_name,
  pruned,
  reads,
)

CALL = 'call'  # a node of functions that are no operators


class _Signs(NamedTuple):
  """A product of binary weights and inputs, channels last.

  Attributes:
    node: In the graph.
    weight: Its weight.
  """

  node: Node
  weight: Signed

  @property
  def path(self) -> str:
    """Of the weight."""
    return str(self.node.inputs[1])

  @property
  def window(self) -> tuple[Any, ...]:
    """Strides, padding and dilation of a convolution."""
    attrs = self.node.attrs
    return attrs['strides'], attrs['padding'], attrs['dilation'][1]

  @property
  def source(self) -> Source:
    """What comparisons start from."""
    *taps, channels = self.weight.shape
    return Source(self.value, math.prod(taps), channels)

  def sums(self, packed: popcount.Packed, x: Array) -> Array:
    """Return the sums, of floats or of signs as numbers above 0 or not."""
    floats = jnp.issubdtype(x.dtype, jnp.floating)
    signs = (self.weight.transform_input(x) if floats else x) > 0
    if self.node.op == 'dot':
      return popcount.dense(signs, packed)
    return popcount.conv(signs, packed, *self.window)

  def value(self, sums: Array) -> Array:
    """Return the product that has these sums."""
    scale = self.weight.w.scale
    x = sums.astype(jnp.float32)
    return x if scale is None else x * scale

  def sized(self, sums: Array, x: Array) -> Array:
    """Return the product scaled by the magnitude of its inputs."""
    around: tuple[Any, ...] = ()
    if self.node.op == 'conv':
      around = (self.weight.shape[:-2], *self.window)
    return self.value(sums) * grids.mean(jnp.abs(x), *around)


def layers(
  graph: Graph, variables: dict[str, Any]
) -> dict[str, tuple[Graph, dict[str, Any]]]:
  """Return the layers with binary weights and inputs, each as a network.

  Args:
    graph: The network.
    variables: `{'params': ...}` by path: arrays and nodes.

  Returns:
    Networks of one product and their variables, by the path of the weight
    without '/kernel'.
  """
  net = settled(graph, variables)
  found: dict[str, tuple[Graph, dict[str, Any]]] = {}
  for product in _products(net).values():
    x, path = product.node.inputs[0], product.path
    one = product.node._replace(inputs=(input_name(0), path))
    taken = (Input(net.shapes[x][1:]),)
    alone = Graph((one,), (0,), taken)
    found[layer_of(path)] = alone, {'params': {path: product.weight}}
  return found


def forward(
  graph: Graph,
  variables: dict[str, Any],
  counted: Collection[str] | None = None,
) -> Callable[..., Any]:
  """Return a network whose binary layers use popcounts.

  Sums of products of signs are exact integers; a norm between two binary layers
  becomes a threshold. Everything else is computed in float32, as by
  `artefact.forward`.

  Args:
    graph: The network.
    variables: `{'params': ...}` by path: arrays and nodes.
    counted: Names of the layers that use popcounts, of `layers`; None for all.

  Returns:
    Inputs to outputs, jitted; those of the float network to float error.

  Raises:
    ValueError: If a layer in `counted` is not binary.
  """
  net = settled(graph, variables)
  products = _products(net)
  can = dict.fromkeys(layer_of(x.path) for x in products.values())
  for name in counted or ():
    expect('binary.forward', name in can, f'a layer of {tuple(can)}', name)
  chosen = {
    at: product
    for at, product in products.items()
    if counted is None or layer_of(product.path) in counted
  }
  small = _counting(net, chosen)
  params = {path: net.params[path] for path in small.parameters}
  dense, nodes = tree.decode(params), grids.transforming(params)

  def run(dense: Any, *inputs: Array) -> Any:
    return _evaluated(small, dense, inputs)

  return jax.jit(lambda *inputs: grids.transformed(run, dense, inputs, nodes))


def _products(net: Settled) -> dict[int, _Signs]:
  """Return the products that popcounts can compute, by node."""
  found: dict[int, _Signs] = {}
  for i, node in enumerate(net.graph.nodes):
    weight: Any = is_product(node) and net.params[str(node.inputs[1])]
    signs = isinstance(weight, Signed) and isinstance(weight.w, Binarized)
    if signs and _is_plain(node, weight.shape, net.shapes[node.inputs[0]]):
      found[i] = _Signs(node, weight)
  uses = reads(net.graph)
  counts = Counter(x.path for x in found.values())
  return {i: x for i, x in found.items() if counts[x.path] == uses[x.path]}


def _is_plain(
  node: Node, weight: tuple[int, ...], before: tuple[int, ...]
) -> bool:
  """Return whether a product has its channels last, and no groups."""
  last, attrs = len(before) - 1, node.attrs
  if attrs.get('dtype', 'float32') != 'float32':
    return False
  if node.op == 'dot':
    return len(weight) == 2 and attrs['dims'] == (((last,), (0,)), ((), ()))
  sides = (*range(1, last),)
  data = (0, last, *sides)
  kernel = (last, last - 1, *range(last - 1))
  return (
    attrs['dims'] == (data, kernel, data)
    and {*attrs['dilation'][0]} <= {1}
    and weight[-2] == before[last]
  )


def _counting(net: Settled, products: dict[int, _Signs]) -> Graph:
  """Return the network with functions in place of some products."""
  writer = _Writer(net, products)
  for i, node in enumerate(net.graph.nodes):
    if i in products:
      writer.count(i)
    else:
      inputs = tuple(map(writer.read, node.inputs))
      writer.places[i] = writer.add(node._replace(inputs=inputs))
  outputs = tuple(map(writer.read, net.graph.outputs))
  nodes = tuple(writer.nodes)
  return pruned(net.graph._replace(nodes=nodes, outputs=outputs))


class _Writer:
  """Nodes of a network as they are found.

  Attributes:
    nodes: The nodes so far.
    places: Which of them has the result of each node of the network.
  """

  def __init__(self, net: Settled, products: dict[int, _Signs]) -> None:
    """Begin without nodes."""
    self.nodes: list[Node] = []
    self.places: dict[int, int] = {}
    self._net, self._products = net, products
    self._sums: dict[int, int] = {}
    self._sources = {
      i: x.source for i, x in products.items() if not x.weight.sized
    }

  def read(self, ref: Ref) -> Ref:
    """Return what has the value that the network reads."""
    return self.places[ref] if isinstance(ref, int) else ref

  def add(self, node: Node) -> int:
    """Append a node and return its index."""
    self.nodes.append(node)
    return len(self.nodes) - 1

  def count(self, i: int) -> None:
    """Append a product by popcounts."""
    product = self._products[i]
    weight, x = product.weight, product.node.inputs[0]
    found = None
    if not weight.sized:
      found = comparison(self._net, self._sources, x, weight.threshold)
    before = self.read(x) if found is None else self._compared(found)
    packed = popcount.packed(weight.w.signs)
    self._sums[i] = self._call(functools.partial(product.sums, packed), before)
    if weight.sized:  # the output also depends on the input
      self.places[i] = self._call(product.sized, self._sums[i], before)
    else:
      self.places[i] = self._call(product.value, self._sums[i])

  def _compared(self, found: Comparison) -> Ref:
    """Append the signs of a value and return them."""
    at: Ref = self._sums[found.source]
    for node in found.early:
      at = self.add(node._replace(inputs=(at,)))
    at = self._call(functools.partial(_signs, found.turns), at)
    for node in found.late:
      at = self.add(node._replace(inputs=(at,)))
    return at

  def _call(self, fn: Callable[..., Array], *inputs: Ref) -> int:
    return self.add(Node(CALL, inputs, {'fn': fn}))


def _signs(turns: Threshold, sums: Array) -> Array:
  """Return 1 for +1 and 0 for -1; int8 has a maximum, bool has none."""
  return turns(sums).astype(jnp.int8)


def _evaluated(graph: Graph, dense: dict[str, Array], inputs: Any) -> Any:
  """Return the outputs of a graph with functions among its nodes."""
  known = {**dense, **evaluate.named(graph, inputs)}
  values: list[Any] = []

  def read(ref: Ref) -> Any:
    if isinstance(ref, str):
      return known[ref]
    return values[ref] if isinstance(ref, int) else ref

  for node in graph.nodes:
    args = [*map(read, node.inputs)]
    values.append(
      node.attrs['fn'](*args)
      if node.op == CALL
      else evaluate.value(node, args, dense, len(inputs[0]))
    )
  found = tuple(map(read, graph.outputs))
  return found[0] if len(found) == 1 else found
