"""Several examples at once: the last steps of a network on vectors of them.

A vector of a convolution holds neighboring windows of one example, which needs
less memory near the processor than one of 8 examples does. A matrix has no
neighbors: its vectors hold examples, and a weight is read once for all of them.
So the first steps go example by example, and from one step on all go together;
a model of the cost of both says from which.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tsukiji.deploy.c import functions as parts
from tsukiji.deploy.c.functions import Functions
from tsukiji.deploy.c.kernels import sparse_product
from tsukiji.deploy.c.kernels.nests import indented
from tsukiji.deploy.c.memory import memory
from tsukiji.deploy.c.plan import fours, lanes
from tsukiji.deploy.c.plan.lanes import EXAMPLES
from tsukiji.deploy.c.plan.steps import Step
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
  ends: tuple[Buffer, Buffer],
  functions: Functions,
  wanted: bool | None = None,
) -> Batch | None:
  """Return blocks of examples, None where one by one is as fast.

  Args:
    steps: For one example.
    ends: The input and the output.
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
  made = {step.buffer for step in alone} | {ends[0]}
  crossing = [
    buffer
    for buffer in dict.fromkeys(x for s in steps[cut:] for x in s.sources)
    if buffer in made
  ]
  one = memory([*alone, _reader(crossing)], ends)
  together = [lanes.lifted(step, coded) for step in steps[cut:]]
  later = [f'{name}_many' for name in names[cut:]]
  every = [functions.add(*x) for x in zip(together, later, strict=True)]
  entered = [
    Step('store', lanes.wide(x), np.zeros(0, np.int32)) for x in crossing
  ]
  last = _reader([lanes.wide(ends[1])])
  all_of = memory([*entered, *together, last], ())
  begin = -(-one.bytes // ALIGNED) * ALIGNED
  places = {name: begin + at for name, at in all_of.offsets.items()}
  here = {'input': f'input + (size_t)(i + l) * {ends[0].size}'}
  first = [
    line.replace('(input,', f'({here["input"]},')
    for line in parts.calls(alone, given, one.offsets)
  ]
  lines = [
    f'for (int l = 0; l < {EXAMPLES}; ++l) {{',
    *indented(
      [
        'if (l < count) {',
        *indented(first),
        '}',
      ]
      if first
      else []
    ),
    *indented(
      [
        line
        for x in crossing
        for line in _entered(x, one.offsets, places, x.name in coded)
      ]
    ),
    '}',
    *parts.calls(together, every, places),
    *_left(ends[1], places),
  ]
  return Batch(lines, begin + all_of.bytes)


def _reader(buffers: Sequence[Buffer]) -> Step:
  """Return a step behind all others that keeps buffers."""
  spot = np.zeros(1, np.int32)
  reads = tuple(lanes.Load(x, spot, x.kind) for x in buffers)
  return Step('store', Buffer('kept', 'uint8_t', 0), spot, reads)


def _entered(
  buffer: Buffer,
  one: Mapping[str, int],
  places: Mapping[str, int],
  is_four: bool,
) -> Lines:
  """Return what puts a buffer of example `l` among those of the others."""
  kind, size = buffer.kind, buffer.size
  to = f'{kind} *const to = ({kind} *)(memory + {places[buffer.name]});'
  start = (
    f'input + (size_t)(i + (l < count ? l : count - 1)) * {size}'
    if buffer.name == 'input'
    else parts.pointer(buffer, one, 'const ')
  )
  move = f'for (int k = 0; k < {size}; ++k) to[{EXAMPLES} * k + l] = from[k];'
  if is_four:
    n = fours.SIZE
    move = (
      f'for (int k = 0; k < {size // n}; ++k) '
      f'memcpy(to + {n * EXAMPLES} * k + {n} * l, from + {n} * k, {n});'
    )
  lines = [f'const {kind} *const from = {start};', to, move]
  return ['{', *indented(lines), '}']


def _left(output: Buffer, places: Mapping[str, int]) -> Lines:
  """Return what stores the outputs of the examples one after the other."""
  kind, size = output.kind, output.size
  return [
    f'const {kind} *const found = '
    f'(const {kind} *)(memory + {places[output.name]});',
    'for (int l = 0; l < count; ++l)',
    f'  for (int k = 0; k < {size}; ++k)',
    f'    output[(size_t)(i + l) * {size} + k] = found[{EXAMPLES} * k + l];',
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
  made = {x.buffer for x in steps[:cut]}
  reads = {x for s in steps[cut:] for x in s.sources}
  return sum(x.size for x in reads if x in made or x.name == 'input')


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
  if step.kind not in lanes.KINDS:
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
