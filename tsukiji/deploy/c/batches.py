"""Several examples at once: the last steps of a network on vectors of them.

A vector of a convolution holds neighboring windows of one example, which needs
less memory near the processor than one of 8 examples does. A matrix has no
neighbors: its vectors hold examples, and a weight is read once for all of them.
So the first steps go example by example, and from one step on all go together;
a model of the cost of both says from which.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tsukiji.deploy.c import functions as parts
from tsukiji.deploy.c.functions import Functions
from tsukiji.deploy.c.kernels import sparse_product
from tsukiji.deploy.c.kernels.nests import indented
from tsukiji.deploy.c.memory import memory
from tsukiji.deploy.c.plan import fours, lanes
from tsukiji.deploy.c.plan.lanes import EXAMPLES
from tsukiji.deploy.c.plan.steps import Ends, Step
from tsukiji.deploy.c.plan.values import FLOAT, Buffer

Lines = list[str]
FEWEST = 4  # examples that are worth a block
ALIGNED = 64  # bytes
# Multiplications a nanosecond (AVX2, 3.1 GHz): codes in fours, of windows and
# of examples, near and far; other integers; floats of 8 examples, near and far,
# and of matrices; nanoseconds to bring a number between both forms; and the
# bytes of an input that are near.
ROWS, CLOSE, APART, INTEGERS, NEAR, FAR, STREAMED = 80, 100, 60, 4, 30, 16, 30
MOVED, CACHE = 0.3, 40_000


class Batch(NamedTuple):
  """Blocks of examples.

  Attributes:
    lines: Of `NAME_run_batch`, for the `count` examples from `i` on.
    bytes: Of scratch memory.
  """

  lines: Lines
  bytes: int


def batch(
  steps: Sequence[Step],
  ends: Ends,
  functions: Functions,
  wanted: bool | None = None,
) -> Batch | None:
  """Return blocks of examples, None where one by one is as fast.

  Args:
    steps: For one example.
    ends: What the caller gives.
    functions: Where functions are added.
    wanted: Whether all steps that can be are for several examples; None for
      those that should be faster so.
  """
  cut = _cut(steps, wanted)
  if cut == len(steps):
    return None
  coded, names = lanes.in_fours(steps), parts.names(steps)
  alone = [*steps[:cut]]
  given = [functions.add(*x) for x in zip(alone, names, strict=False)]
  made = {x for s in alone for x in (*s.sources, s.buffer)} | {*ends.inputs}
  crossing = [
    buffer
    for buffer in dict.fromkeys(x for s in steps[cut:] for x in s.sources)
    if buffer in made
  ]
  one = memory([*alone, _reader(crossing)], ends.all)
  together = [lanes.lifted(step, coded) for step in steps[cut:]]
  later = [f'{name}_many' for name in names[cut:]]
  every = [functions.add(*x) for x in zip(together, later, strict=True)]
  entered = [
    Step('store', lanes.wide(x), np.zeros(0, np.int32)) for x in crossing
  ]
  written = {step.buffer for step in steps[cut:]}
  left = [x for x in ends.outputs if x in written]
  last = _reader([*map(lanes.wide, left)])
  all_of = memory([*entered, *together, last], ())
  begin = -(-one.bytes // ALIGNED) * ALIGNED
  places = {name: begin + at for name, at in all_of.offsets.items()}
  here = {x.name: f'{x.name} + {_example(x)}' for x in ends.all}
  first = parts.calls(alone, given, one.offsets, here)
  if first:
    first = ['if (l < count) {', *indented(first), '}']
  sources = {
    x.name: f'{x.name} + {_example(x, "(l < count ? l : count - 1)")}'
    for x in ends.inputs
  }
  moves = [
    line
    for x in crossing
    for line in _entered(
      x,
      parts.pointer(x, one.offsets, sources, 'const '),
      places[x.name],
      x.name in coded,
    )
  ]
  lines = [
    f'for (int l = 0; l < {EXAMPLES}; ++l) {{',
    *indented([*first, *moves]),
    '}',
    *parts.calls(together, every, places, {}),
    *(line for x in left for line in _left(x, places[x.name])),
  ]
  return Batch(lines, begin + all_of.bytes)


def _example(buffer: Buffer, lane: str = 'l') -> str:
  """Return where an example of what the caller gives begins."""
  return f'(size_t)(i + {lane}) * {buffer.size}'


def _reader(buffers: Sequence[Buffer]) -> Step:
  """Return a step behind all others that keeps buffers."""
  spot = np.zeros(1, np.int32)
  reads = tuple(lanes.Load(x, spot, x.kind) for x in buffers)
  return Step('store', Buffer('kept', 'uint8_t', 0), spot, reads)


def _entered(buffer: Buffer, start: str, at: int, is_four: bool) -> Lines:
  """Return what puts a buffer of example `l` among those of the others."""
  kind, size = buffer.kind, buffer.size
  move = f'for (int k = 0; k < {size}; ++k) to[{EXAMPLES} * k + l] = from[k];'
  if is_four:
    n = fours.SIZE
    move = (
      f'for (int k = 0; k < {size // n}; ++k) '
      f'memcpy(to + {n * EXAMPLES} * k + {n} * l, from + {n} * k, {n});'
    )
  lines = [
    f'const {kind} *const from = {start};',
    f'{kind} *const to = ({kind} *)(memory + {at});',
    move,
  ]
  return ['{', *indented(lines), '}']


def _left(output: Buffer, at: int) -> Lines:
  """Return what stores an output of the examples one after the other."""
  kind, size, name = output.kind, output.size, output.name
  return [
    'for (int l = 0; l < count; ++l)',
    f'  for (int k = 0; k < {size}; ++k)',
    f'    {name}[{_example(output)} + k] =',
    f'        ((const {kind} *)(memory + {at}))[{EXAMPLES} * k + l];',
  ]


def _cut(steps: Sequence[Step], wanted: bool | None) -> int:
  """Return the first step that is faster for examples together."""
  many = [_together(step) for step in steps]
  least = max((i + 1 for i, x in enumerate(many) if math.isinf(x)), default=0)
  if wanted is not None:
    return least if wanted else len(steps)
  one = [_alone(step) for step in steps]

  def cost(cut: int) -> float:
    moved = MOVED * _crossing(steps, cut) if cut < len(steps) else 0.0
    return sum(one[:cut]) + sum(many[cut:]) + moved

  return min(range(len(steps), least - 1, -1), key=cost)


def _crossing(steps: Sequence[Step], cut: int) -> int:
  made = {s.buffer for s in steps[cut:]}
  reads = {x for s in steps[cut:] for x in s.sources}
  return sum(x.size for x in reads - made)


def _products(step: Step) -> tuple[float, float]:
  """Return the multiplications of a step: all, and those by no zero."""
  assert step.tail is not None
  rows, columns, outputs = step.tail.shape
  weights = step.attrs['window'].weights
  places = rows * columns
  return (
    float(places * weights[..., 0].size * outputs),
    float(places * np.count_nonzero(weights)),
  )


def _alone(step: Step) -> float:
  """Return the nanoseconds of a step for one example."""
  if step.kind != 'product':
    return 0.0
  assert step.tail is not None
  (every, some), window = _products(step), step.attrs['window']
  rows, columns, _ = step.tail.shape
  is_matrix = rows == columns == 1
  if step.attrs['fours']:
    is_row = fours.is_row(window, columns)
    return every / ROWS if is_row else math.inf
  if step.tail.sums.kind != FLOAT:
    return every / INTEGERS
  if step.attrs['is_sparse']:
    rate = sparse_product.CHOSEN if is_matrix else sparse_product.LISTED
    return some / rate
  taps = window.weights[..., 0].size
  few = taps <= sparse_product.FEW
  rate = sparse_product.SHORT if few else sparse_product.BLOCKED
  return every / (sparse_product.STREAMED if is_matrix else rate)


def _together(step: Step) -> float:
  """Return the nanoseconds of a step for one of 8 examples."""
  if step.kind not in lanes.KINDS or step.attrs.get('is_binary'):
    return math.inf
  if step.kind != 'product':
    return 0.0
  assert step.tail is not None
  every, some = _products(step)
  size = EXAMPLES * step.reads[0].places.size  # type: ignore[union-attr]
  if step.attrs['fours']:
    return every / (CLOSE if size <= CACHE else APART)
  if step.tail.sums.kind != FLOAT:
    return some / INTEGERS
  if step.tail.shape[:2] == (1, 1):
    return min(every, 2 * some) / STREAMED
  return some / (NEAR if 4 * size <= CACHE else FAR)
