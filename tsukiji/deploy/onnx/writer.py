"""The walk over a graph that writes ONNX nodes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tsukiji.deploy.onnx.axes import (
  Order,
  Sizes,
  Tensor,
  held,
  is_float,
  known,
  results_of,
)
from tsukiji.deploy.onnx.builder import Graph as Builder
from tsukiji.deploy.onnx.fusing import fused
from tsukiji.deploy.onnx.quantized import CODING, Coding, coded
from tsukiji.graph.nodes import Graph, Node, Ref, input_name

# Writer, inputs, result, settings -> the result, or the results of a loop.
Emit = Callable[..., Any]


class Writer:
  """What the emitters of operators need.

  Attributes:
    builder: The ONNX nodes.
    emitters: The table from operator to ONNX nodes.
    weights: Arrays by path.
    batch: Name of a tensor whose first axis is the examples.
  """

  def __init__(
    self,
    builder: Builder,
    emitters: Mapping[str, Emit],
    weights: Mapping[str, np.ndarray],
    batch: str,
  ) -> None:
    """Begin a model."""
    self.builder = builder
    self.emitters = emitters
    self.weights = weights
    self.batch = batch
    self._held: dict[Any, tuple[Any, str]] = {}
    self._made: dict[Any, Tensor] = {}

  def inside(self) -> 'Writer':
    """Return a writer for the body of a loop."""
    made = Writer(
      self.builder.inside(), self.emitters, self.weights, self.batch
    )
    made._held = self._held
    return made

  def add(self, op: str, *inputs: str, **attrs: Any) -> str:
    """Append a node and return the name of its result."""
    return self.builder.add(op, *inputs, **attrs)

  def constant(self, x: Any, dtype: Any = None) -> Tensor:
    """Append a constant, a float as float32."""
    array = np.asarray(x) if dtype is None else np.asarray(x, dtype)
    kind = np.float32 if is_float(array.dtype) else array.dtype
    name = self.builder.constant(array.astype(kind), kind)
    return Tensor(name, array.shape, array.dtype)

  def integers(self, *numbers: int) -> str:
    """Append int64 numbers, as ONNX takes axes and sizes."""
    return self.builder.constant([*numbers], np.int64)

  def count(self) -> str:
    """Append the number of examples, as int64 `[1]`."""
    shape = self.add('Shape', self.batch)
    return self.add('Slice', shape, self.integers(0), self.integers(1))

  def sizes(self, shape: Sizes) -> str:
    """Append a shape, whose `None` is the number of examples."""
    if None not in shape:
      return self.integers(*(n or 0 for n in shape))
    parts = [self.count() if n is None else self.integers(n) for n in shape]
    return self.add('Concat', *parts, axis=0)

  def inferred(self, shape: Sizes) -> str:
    """Append a shape, whose one None follows from the others."""
    return self.integers(*(-1 if n is None else n for n in shape))

  def plain(self, x: Tensor) -> Tensor:
    """Return a tensor as it is in the graph."""
    return self.moved(self.divided(x), range(len(x.shape)))

  def moved(self, x: Tensor, order: Any) -> Tensor:
    """Return a tensor whose axes in the model are these axes of the graph.

    It may have to be divided yet.
    """
    order = tuple(int(i) for i in order)
    if x.value is not None:
      name = self.array(x.value, lambda a: a.transpose(order), order)
      return x._replace(name=name, value=None, order=known(order))
    if x.places is not None:
      x = self._once(x, 'in order', _in_order)
    if x.axes == order:
      return x
    return self._once(x, order, lambda w, x: _transposed(w, x, order))

  def divided(self, x: Tensor) -> Tensor:
    """Return a tensor with its divisor applied."""
    return x if x.divisor is None else self._once(x, 'divided', _divided)

  def array(self, x: np.ndarray, change: Any, key: Any) -> str:
    """Append an array of the graph as the model needs it, once.

    Args:
      x: The array.
      change: Array -> array.
      key: What tells this change from others.

    Returns:
      Its name.
    """
    place = id(x), key
    if place not in self._held:
      self._held[place] = x, self.constant(change(x)).name
    return self._held[place][1]

  def _once(self, x: Tensor, key: Any, make: Any) -> Tensor:
    """Return what is made of a tensor, made once."""
    place = x.name, x.axes, x.divisor, key
    if place not in self._made:
      self._made[place] = make(self, x)
    return self._made[place]

  def graph(
    self, graph: Graph, inputs: Sequence[Tensor], fuse: Any = fused
  ) -> list[Tensor]:
    """Append the nodes of a graph and return its outputs.

    Args:
      graph: The graph.
      inputs: What it takes.
      fuse: Graph, results of its nodes -> the graph whose nodes are written,
        None for those that nothing reads, and orders of its inputs by name.

    Returns:
      The outputs, as they are in the graph.

    Raises:
      ValueError: If an operator is not supported.
    """
    results = results_of(graph, inputs, self.weights)
    nodes, orders = fuse(graph, results)
    given = {input_name(i): x for i, x in enumerate(inputs)}
    given |= {key: self.moved(given[key], x) for key, x in orders.items()}
    found: list[Any] = []

    def read(ref: Ref) -> Any:
      if isinstance(ref, str):
        return given[ref] if ref in given else held(self.weights[ref])
      return found[ref] if isinstance(ref, int) else held(ref)

    for node, result in zip(nodes, results, strict=True):
      made = node and self._written(node, [*map(read, node.inputs)], result)
      found.append(made)
    return [self.plain(read(ref)) for ref in graph.outputs]

  def _written(self, node: Node, xs: list[Any], result: Any) -> Any:
    if node.op == 'item':
      return xs[0][node.attrs['index']]
    if node.op not in self.emitters:
      raise unsupported(node.op, 'no such operator')
    attrs = {**node.attrs}
    coding = attrs.pop(CODING, None)
    if coding is not None:
      xs = [self._coded(xs[0], coding), *xs[1:]]
    return self.emitters[node.op](self, xs, result, **attrs)

  def _coded(self, x: Tensor, coding: Coding) -> Tensor:
    x = self.divided(x)
    name = coded(self.builder, coding, x.name)
    return x._replace(name=name, is_integer=True)


def _divided(w: Writer, x: Tensor) -> Tensor:
  name = w.add('Div', x.name, w.constant(x.divisor, np.float32).name)
  return x._replace(name=name, divisor=None)


def _in_order(w: Writer, x: Tensor) -> Tensor:
  """Return a tensor whose last axis is in the order of the graph."""
  places = w.constant(np.argsort(np.asarray(x.places)), np.int64)
  name = w.add('Gather', x.name, places.name, axis=len(x.shape) - 1)
  return x._replace(name=name, places=None)


def _transposed(w: Writer, x: Tensor, order: Order) -> Tensor:
  """Return a tensor in another order, by a reshape if only ones move."""
  after = tuple(x.shape[i] for i in order)
  rest = [i for i in order if x.shape[i] != 1]
  if rest == [i for i in x.axes if x.shape[i] != 1] and after.count(None) < 2:
    name = w.add('Reshape', x.name, w.inferred(after))
  else:
    name = w.add('Transpose', x.name, perm=[x.axes.index(i) for i in order])
  return x._replace(name=name, order=known(order))


def unsupported(op: str, got: Any) -> ValueError:
  """Return the error of an operator that is not supported."""
  return ValueError(
    f'onnx: expected an operator that ONNX can express, got {op} ({got}). Run '
    'it with the engine jax.'
  )
