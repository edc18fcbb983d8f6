"""The walk over a graph that finds the steps of a C file."""

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tsukiji.deploy.c.formulas import COSTLY, ELEMENTWISE
from tsukiji.deploy.c.indices import least
from tsukiji.deploy.c.kernels.nests import unsupported
from tsukiji.deploy.c.plan import views
from tsukiji.deploy.c.plan.homes import VIEWS, homes
from tsukiji.deploy.c.plan.steps import Pool, Step, identity, order
from tsukiji.deploy.c.plan.values import (
  Buffer,
  Const,
  Expr,
  Load,
  Value,
  kind_of,
  loads,
  moved,
  replaced,
  shape_of,
  widened,
)
from tsukiji.graph.nodes import Graph, Node, Ref, users

FIRST, MANY = 'first', 'many'  # for vectors: one example, or several
ALONE = ELEMENTWISE | VIEWS
Handler = Callable[..., Value]


class Planner:
  """Finds the steps of a network.

  Attributes:
    graph: The network.
    kinds: C types of its nodes.
    paths: Of weights, by the `id` of their arrays.
    planar: Products whose results are known to lie channel by channel.
    lists: See `reading.Read`.
    mode: '' for any processor; of those with vectors, `FIRST` for one example
      and `MANY` for several at once.
    steps: The steps so far, by the names of the buffers that they write.
  """

  def __init__(
    self,
    graph: Graph,
    kinds: Sequence[str],
    inputs: Sequence[Value],
    paths: Mapping[int, str],
    planar: Collection[int] = (),
    lists: bool | None = None,
    mode: str = '',
  ) -> None:
    """Begin without steps."""
    self.graph, self.kinds, self.paths = graph, kinds, paths
    self.planar, self.lists, self.mode = planar, lists, mode
    self.steps: dict[str, Step] = {}
    self.homes = homes(graph, ALONE)
    self.readers = users(graph)
    self.values: list[Value] = []
    self.inputs = inputs
    self.handlers: Mapping[str, Handler] = {}
    self._open: set[str] = set()
    self._counter = itertools.count(1)

  def run(
    self, handlers: Mapping[str, Handler], outputs: Sequence[Buffer]
  ) -> None:
    """Find all steps.

    Args:
      handlers: By operator: planner, index of a node, node -> its value.
      outputs: Where the results go.

    Raises:
      ValueError: If an operator has no kernel.
    """
    self.handlers = handlers
    for i, node in enumerate(self.graph.nodes):
      self.values.append(self._visit(handlers, i, node))
    for ref, output in zip(self.graph.outputs, outputs, strict=True):
      value = self.taken(ref)
      shape = shape_of(value)
      places = np.arange(output.size, dtype=np.int32).reshape(shape)
      self.put(value, output, places)

  def nested(
    self, graph: Graph, kinds: Sequence[str], inputs: Sequence[Value]
  ) -> 'Planner':
    """Return a planner of the body of a loop, which appends to these steps.

    Args:
      graph: The body.
      kinds: C types of its nodes.
      inputs: What it reads.
    """
    inner = Planner(graph, kinds, inputs, self.paths, (), self.lists, self.mode)
    inner.steps, inner._open = self.steps, self._open
    inner._counter = self._counter
    return inner

  def close(self) -> None:
    """Let nothing that follows become a part of the steps so far."""
    self._open.clear()

  def _visit(
    self, handlers: Mapping[str, Handler], i: int, node: Node
  ) -> Value:
    if node.op in VIEWS:
      (x,) = (self._operand(i, ref) for ref in node.inputs)
      move = views.MOVES[node.op]
      return moved(x, lambda a: move(a, **node.attrs))
    if node.op in ELEMENTWISE:
      args = [self._operand(i, ref) for ref in node.inputs]
      shape = np.broadcast_shapes(*map(shape_of, args))
      wide = tuple(widened(x, shape) for x in args)
      return Expr(node.op, wide, self.kinds[i], self._attrs(node))
    if node.op not in handlers:
      raise unsupported(node.op, self.kinds[i])
    return handlers[node.op](self, i, node)

  def _attrs(self, node: Node) -> dict[str, Any]:
    attrs = dict(node.attrs)
    if node.op == 'not':
      ref = node.inputs[0]
      attrs['is_bool'] = (
        isinstance(ref, int) and self.kinds[ref] == 'uint8_t'
      ) or (isinstance(ref, np.ndarray) and ref.dtype == bool)
    return attrs

  def pending(self, ref: Ref) -> Value:
    """Return what a node reads, perhaps not computed yet."""
    if isinstance(ref, int):
      return self.values[ref]
    if isinstance(ref, str):
      return self.inputs[int(ref[1:])]
    return Const(ref, kind_of(ref.dtype))

  def _operand(self, i: int, ref: Ref) -> Value:
    """Return what an operator on single numbers reads."""
    if isinstance(ref, int) and self.homes[ref] == ref:
      return self.stored(ref)
    return self.pending(ref)

  def taken(self, ref: Ref) -> Value:
    """Return what a kernel reads: not computed yet if nothing else reads it."""
    if isinstance(ref, int) and len(self.readers[ref]) > 1:
      return self.stored(ref)
    return self.pending(ref)

  def stored(self, ref: Ref) -> Load:
    """Return what a node reads, in memory."""
    x = self.in_memory(self.pending(ref))
    if isinstance(ref, int):
      self.values[ref] = x
    return x

  def in_memory(self, x: Value) -> Load:
    """Return a value in memory, in any order."""
    if isinstance(x, Load):
      self._open.discard(x.buffer.name)
      return x
    shape = shape_of(x)
    buffer = self.buffer(math.prod(shape), x.kind)
    whole = identity(buffer, shape, x.kind)
    return self.put(x, buffer, whole.places)

  def buffer(self, size: int, kind: str) -> Buffer:
    """Return a new buffer."""
    return Buffer(f'v{next(self._counter)}', kind, size)

  def add(self, step: Step, is_open: bool = False) -> None:
    """Append a step; open ones may still get what follows them."""
    name = step.buffer.name
    while name in self.steps:  # parts of one buffer
      name += '+'
    self.steps[name] = step
    if is_open:
      self._open.add(name)

  def put(
    self,
    x: Value,
    buffer: Buffer,
    places: np.ndarray,
    border: float | None = None,
  ) -> Load:
    """Store a value, at the end of the step that gives it if there is one.

    Args:
      x: The value.
      buffer: Where to.
      places: There, of the shape of the value.
      border: What else the buffer holds, None if nothing.

    Returns:
      The value in memory.
    """
    made = self._fused(x, buffer, places)
    step = made or Step('store', buffer, places, (x,))
    self.add(step._replace(border=border))
    return Load(buffer, places, x.kind)

  def _fused(self, x: Value, buffer: Buffer, places: np.ndarray) -> Step | None:
    """Return the last open step that gives a value, now with its tail."""
    found = {load.buffer.name for load in loads(x)} & self._open
    for name in reversed([*self.steps]):
      if name in found:
        step = _ended(self.steps[name], x, buffer, places)
        if step is not None:
          del self.steps[name]
          self._open.discard(name)
          return step
    return None

  def pooled(self, ref: Ref, pool: Pool) -> Value | None:
    """Return windows of what a product gives; None if there is no product.

    Args:
      ref: What is read, of one example: rows, columns, channels.
      pool: The windows.
    """
    x = self.taken(ref)
    for name in {load.buffer.name for load in loads(x)} & self._open:
      step = self.steps[name]
      tail = step.tail
      if tail is None or (1, *tail.shape) != shape_of(x):
        continue
      rows, columns, channels = tail.shape
      after = (rows // pool.height, columns // pool.width, channels)
      made = _ended(step, x, step.buffer, np.broadcast_to(0, tail.shape))
      plain = _is_plain(x, step.buffer) and tail.pool is None
      if made is None or made.tail is None or 0 in after or not plain:
        continue
      buffer = self.buffer(math.prod(after), x.kind)
      found = identity(buffer, after, x.kind)
      value: Value = found
      before = made.tail.before
      if pool.op == 'max' and is_rising(before):
        value = _behind(before, tail.sums, found)
        before = identity(tail.sums, tail.shape, tail.sums.kind)
      tail = made.tail._replace(pool=pool, before=before, pooled=buffer)
      del self.steps[name]
      self._open.discard(name)
      made = made._replace(buffer=buffer, places=found.places, tail=tail)
      self.add(made, is_open=True)
      return moved(value, lambda a: a[None])
    return None


def _is_plain(x: Value, buffer: Buffer) -> bool:
  """Return whether a value reads a product in its own order."""
  places = np.arange(buffer.size)
  return all(
    np.array_equal(load.places.ravel(), places)
    for load in loads(x)
    if load.buffer == buffer
  )


def _ended(
  step: Step, x: Value, buffer: Buffer, places: np.ndarray
) -> Step | None:
  """Return a step that stores a function of its results; None if it cannot."""
  tail = step.tail
  if tail is None or tail.after is not None:
    return None
  own = [load for load in loads(x) if load.buffer == step.buffer]
  back = order(own[0], step.buffer.size)
  same = all(np.array_equal(load.places, own[0].places) for load in own)
  if back is None or not same:
    return None
  shape = step.places.shape

  def move(a: np.ndarray) -> np.ndarray:
    return a.reshape(-1)[back].reshape(shape)

  value = moved(x, move)
  if tail.pool is None:
    value = replaced(value, step.buffer, tail.before)
    tail = tail._replace(before=value)
  else:
    tail = tail._replace(after=value, pooled=step.buffer)
  return step._replace(buffer=buffer, places=move(places), tail=tail)


RISING = {'add', 'max', 'min', 'mul'}


def is_rising(x: Value) -> bool:
  """Return whether a function of one number never falls, one a channel.

  The maximum of its results is then its result for the maximum, to a bit.
  """
  if isinstance(x, Load):
    return True
  if not isinstance(x, Expr) or x.op not in RISING:
    return False
  numbers = [arg.array for arg in x.args if isinstance(arg, Const)]
  others = [arg for arg in x.args if not isinstance(arg, Const)]
  if len(others) != 1 or len(numbers) != 1:
    return False
  (number,) = numbers
  alike = least(number).shape[:2] == (1, 1)
  rising = x.op != 'mul' or bool(np.all(number > 0))
  return alike and rising and is_rising(others[0])


def _behind(x: Value, sums: Buffer, by: Load) -> Value:
  """Return a function of sums as one of their maxima."""
  rows, columns, _ = by.places.shape
  small = moved(x, lambda a: a[:rows, :columns])
  return replaced(small, sums, by)


def is_cheap(x: Value) -> bool:
  """Return whether a value may be computed several times."""
  if isinstance(x, Expr):
    return x.op not in COSTLY and all(map(is_cheap, x.args))
  return True
