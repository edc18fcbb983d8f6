"""Loops of a fixed number of steps: LSTM, GRU and others written as `scan`.

The steps of a body lie between two that begin and end it. What a turn takes of
a sequence, and gives to one, is a part of a buffer that moves with the turn.
What is carried is written beside what the body reads, and copied at its end.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from tsukiji.deploy.c.kernels.nests import unsupported
from tsukiji.deploy.c.plan.planning import Planner
from tsukiji.deploy.c.plan.steps import Step, identity
from tsukiji.deploy.c.plan.values import (
  FLOAT,
  Buffer,
  Const,
  Load,
  Value,
  kind_of,
  shape_of,
)
from tsukiji.graph import evaluate
from tsukiji.graph.nodes import Graph, Node

BEGIN, END = 'begin', 'end'
DTYPES = {FLOAT: 'float32', 'uint8_t': 'bool'}


class Slice(NamedTuple):
  """A part of a buffer.

  Attributes:
    buffer: The whole.
    step: Entries from one turn to the next.
    first: Entries before that of turn 0.
  """

  buffer: Buffer
  step: int
  first: int


class Loop(NamedTuple):
  """A loop.

  Attributes:
    name: Of its variable.
    length: Turns.
    slices: Parts of buffers, by the buffers that stand for them in the body.
    carried: What is read in a turn, and what is written for the next one.
  """

  name: str
  length: int
  slices: dict[Buffer, Slice]
  carried: list[tuple[Buffer, Buffer]]


def scan(planner: Planner, i: int, node: Node) -> Any:
  """Append the steps of a loop and return its results, one after the other.

  Raises:
    ValueError: If the body has an operator without a kernel.
  """
  body: Graph = node.attrs['body']
  consts, carry = node.attrs['consts'], node.attrs['carry']
  refs, turns = node.inputs, node.attrs['length']
  if turns < 1:
    raise unsupported('scan', 'no turns')
  fixed: list[Value] = [_known(planner, ref) for ref in refs[:consts]]
  state = [_begun(planner, ref) for ref in refs[consts : consts + carry]]
  loop = Loop(f't{len(planner.steps)}', turns, {}, [])
  back = node.attrs['reverse']
  parts = [_part(planner, loop, ref, back) for ref in refs[consts + carry :]]
  inputs = [*fixed, *state, *parts]
  outside = tuple(x for x in (*fixed, *state) if isinstance(x, Load)) + tuple(
    _whole(x.buffer) for x in loop.slices.values()
  )
  planner.close()
  kinds, ends = _types(body, inputs)
  inner = planner.nested(body, kinds, inputs)
  nothing = Buffer(f'{loop.name}_begin', 'uint8_t', 0)
  stacked = [
    planner.buffer(turns * math.prod(shape), kind)
    for shape, kind in ends[carry:]
  ]
  kept = outside + tuple(_whole(x) for x in stacked)
  spot = np.zeros(1, np.int32)
  attrs = {'loop': loop}
  planner.add(Step(BEGIN, nothing, spot, kept, attrs))
  given = [planner.buffer(math.prod(s), kind) for s, kind in ends]
  for whole, own in zip(stacked, given[carry:], strict=True):
    size, last = own.size, (turns - 1) * own.size
    loop.slices[own] = Slice(whole, -size if back else size, last * back)
  pairs = zip([x.buffer for x in state], given, strict=False)
  loop.carried.extend(pairs)
  inner.run(planner.handlers, given)
  planner.close()
  after = kept + tuple(_whole(x) for _, x in loop.carried)
  end = Buffer(f'{loop.name}_end', 'uint8_t', 0)
  planner.add(Step(END, end, spot, after, attrs))
  results = [
    identity(whole, (turns, *shape), whole.kind)
    for whole, (shape, _) in zip(stacked, ends[carry:], strict=True)
  ]
  return [*state, *results]


def _whole(buffer: Buffer) -> Load:
  return identity(buffer, (buffer.size,), buffer.kind)


def _known(planner: Planner, ref: Any) -> Value:
  """Return what every turn reads."""
  x = planner.pending(ref)
  return x if isinstance(x, Const) else planner.stored(ref)


def _begun(planner: Planner, ref: Any) -> Load:
  """Return a buffer of its own for what is carried."""
  x = planner.pending(ref)
  if not isinstance(x, Const):
    x = planner.stored(ref)
  buffer = planner.buffer(math.prod(shape_of(x)), x.kind)
  return planner.put(x, buffer, identity(buffer, shape_of(x), x.kind).places)


def _part(planner: Planner, loop: Loop, ref: Any, back: bool) -> Load:
  """Return what a turn reads of a sequence."""
  x = planner.pending(ref)
  if not isinstance(x, Const):
    x = planner.stored(ref)
  places = identity(Buffer('', x.kind, 0), shape_of(x), x.kind).places
  if not isinstance(x, Load) or _uneven(x.places):
    buffer = planner.buffer(places.size, x.kind)
    x = planner.put(x, buffer, places)
  step = (
    int(x.places.flat[x.places[0].size] - x.places.flat[0])
    if (loop.length > 1)
    else 0
  )
  own = planner.buffer(x.buffer.size, x.kind)
  last = (loop.length - 1) * step
  loop.slices[own] = Slice(x.buffer, -step if back else step, last * back)
  return Load(own, x.places[0], x.kind)


def _uneven(places: np.ndarray) -> bool:
  """Return whether turns are not equally far from each other."""
  steps = np.diff(places, axis=0)
  return places[0].size == 0 or np.unique(steps).size > 1


def _types(
  body: Graph, inputs: list[Value]
) -> tuple[list[str], list[tuple[tuple[int, ...], str]]]:
  """Return the types of the nodes of a body; shapes and types of its ends."""
  given = [
    np.zeros(shape_of(x), DTYPES.get(x.kind) or x.kind.removesuffix('_t'))
    for x in inputs
  ]
  found = evaluate.shapes(body, {}, given, 1)
  kinds = [kind_of(getattr(x, 'dtype', np.float32)) for x in found]
  ends = []
  for ref in body.outputs:
    if isinstance(ref, int):
      ends.append((tuple(found[ref].shape), kinds[ref]))
    elif isinstance(ref, str):
      x = inputs[int(ref[1:])]
      ends.append((shape_of(x), x.kind))
    else:
      ends.append((ref.shape, kind_of(ref.dtype)))
  return kinds, ends
