"""A network as one C99 file and its header."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tsukiji.deploy.c import functions as parts
from tsukiji.deploy.c.batches import Batch, batch
from tsukiji.deploy.c.functions import MARKS, Functions, identifier
from tsukiji.deploy.c.memory import memory, room
from tsukiji.deploy.c.plan import reading
from tsukiji.deploy.c.plan.handlers import HANDLERS
from tsukiji.deploy.c.plan.planning import FIRST, MANY, Planner
from tsukiji.deploy.c.plan.steps import Ends, Step, identity
from tsukiji.deploy.c.plan.values import SIZES, Buffer, kind_of
from tsukiji.deploy.c.tables import Tables
from tsukiji.deploy.c.workload import Work, works
from tsukiji.deploy.c.writing import Program, file_text, header_text
from tsukiji.graph.nodes import Graph, Input

LARGEST = 2**24  # bytes of constants beside which there is room for others


class Source(NamedTuple):
  """A network in C.

  Attributes:
    name: Of its functions.
    file: Name of its files.
    code: The file `FILE.c`.
    header: The file `FILE.h`.
    inputs: Shapes and types of one example.
    outputs: Likewise.
    scratch_bytes: Memory that `NAME_run` needs.
    weight_bytes: Constants.
    stack_bytes: Of the sums of a step, at most, on processors without vectors.
    ends_bytes: The inputs and outputs of an example.
    layers: The steps: names, and bytes of their constants and results.
    program: The code without constants: what is alike runs alike.
    is_whole: Whether it is computed in integers.
    fast_bytes: Memory that both functions need on processors with vectors.
    work: What each step does for one example, by its name.
  """

  name: str
  file: str
  code: str
  header: str
  inputs: tuple[Input, ...]
  outputs: tuple[Input, ...]
  scratch_bytes: int
  weight_bytes: int
  stack_bytes: int
  ends_bytes: int
  layers: tuple[tuple[str, int, int], ...]
  program: str
  is_whole: bool
  fast_bytes: int = 0
  work: tuple[tuple[str, Work], ...] = ()


def source(
  graph: Graph,
  variables: Mapping[str, Any],
  name: str = 'network',
  is_whole: bool = True,
) -> Source:
  """Return a network as C.

  Args:
    graph: The network.
    variables: `{'params': ...}` by path: arrays and nodes.
    name: Of its files and functions; what C does not take becomes `_`.
    is_whole: Whether it is computed in integers if it can be.

  Returns:
    The files.

  Raises:
    ValueError: If an operator has no kernel.
  """
  return generated(reading.read(graph, variables, is_whole), name)


def generated(read: reading.Read, name: str) -> Source:
  """Return a network of constants as C; see `source`."""
  file, name = re.sub(r'[^\w. -]', '_', name), identifier(name)
  ends = Ends(_ends('input', read.graph.inputs), _ends('output', read.outputs))
  tables = Tables('table')
  functions, layers = Functions(tables), []
  steps = _planned(read, ends)
  for step, label in zip(steps, parts.names(steps), strict=True):
    before = tables.bytes
    functions.add(step, label)
    layers.append((label, tables.bytes - before, room(step.buffer)))
  done = works(steps, [constants for _, constants, _ in layers])
  kept = [step.kind not in MARKS for step in steps]
  size = tables.bytes
  small = _program(steps, ends, functions)
  stack = max(map(parts.stack, functions.texts.values()), default=0)
  fast, many = small, None
  if 4 * size <= LARGEST:
    fast, many = _fast(read, ends, functions, small)
  most = max(small.bytes, fast.bytes, many.bytes if many else 0)
  sizes = {
    **{f'{x.name.upper()}_SIZE': x.size for x in ends.all},
    'SCRATCH_BYTES': small.bytes,
    'WEIGHT_BYTES': size,
  }
  header = header_text(name, ends, sizes, most)
  code = file_text((name, file), functions, (small, fast, many), ends)
  return Source(
    name,
    file,
    code,
    header,
    read.graph.inputs,
    read.outputs,
    small.bytes,
    size,
    stack,
    sum(x.size * SIZES[x.kind] for x in ends.all),
    tuple(itertools.compress(layers, kept)),
    '\n'.join((*functions.texts.values(), *small.calls)),
    read.is_whole,
    most,
    tuple(itertools.compress(zip(parts.names(steps), done, strict=True), kept)),
  )


def _ends(name: str, shapes: Sequence[Input]) -> tuple[Buffer, ...]:
  """Return what the caller gives: `input`, `input_1`, ...

  >>> [x.name for x in _ends('input', (Input(()), Input((3,))))]
  ['input', 'input_1']
  """
  return tuple(
    Buffer(f'{name}_{i}' if i else name, kind_of(x.dtype), math.prod(x.shape))
    for i, x in enumerate(shapes)
  )


def _program(
  steps: Sequence[Step], ends: Ends, functions: Functions
) -> Program:
  """Return the calls for one example."""
  places = memory(steps, ends.all)
  pairs = zip(steps, parts.names(steps), strict=True)
  names = [functions.add(*x) for x in pairs]
  return Program(parts.calls(steps, names, places.offsets, {}), places.bytes)


def _fast(
  read: reading.Read,
  ends: Ends,
  functions: Functions,
  small: Program,
) -> tuple[Program, Batch | None]:
  """Return the calls on processors with vectors: for one example, and many."""
  steps = _planned(read, ends, FIRST)
  # Kernels of floats are for any processor.
  differs = read.is_whole or any(x.attrs.get('is_binary') for x in steps)
  first = _program(steps, ends, functions) if differs else small
  later = _planned(read, ends, MANY)
  return first, batch(later, ends, functions, read.many)


def _planned(read: reading.Read, ends: Ends, mode: str = '') -> list[Step]:
  """Return the steps of a network.

  What follows a product says how its result lies, which the choice of its
  kernel depends on: the choices of a first plan are known to the second.
  """
  first = [
    identity(buffer, (1, *x.shape), buffer.kind)
    for buffer, x in zip(ends.inputs, read.graph.inputs, strict=True)
  ]
  planar, steps = frozenset[int](), list[Step]()
  for _ in range(2):
    planner = Planner(
      read.graph, read.kinds, first, read.paths, planar, read.lists, mode
    )
    planner.run(HANDLERS, ends.outputs)
    steps = [*planner.steps.values()]
    planar = frozenset(map(_planar_node, steps)) - {-1}
  return steps


def _planar_node(step: Step) -> int:
  """Return the node of a product whose rows are stored without gaps, or -1."""
  if step.tail is None or step.places.shape[1] == 1:
    return -1
  near = bool(np.all(np.diff(step.places, axis=1) == 1))
  return int(step.attrs['node']) if near else -1
