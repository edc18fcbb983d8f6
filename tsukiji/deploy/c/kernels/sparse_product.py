"""Products that skip the zeros of their weights, by lists of the others.

Each output has a list of places of its inputs and of weights. Windows that are
neighbors in a row are one vector, and several rows are summed at once, so that
a place and a weight are read once for many sums. The input lies channel by
channel, so that neighbors are neighbors in memory.
"""

from typing import NamedTuple

import numpy as np

from tsukiji.deploy.c.kernels import sparse_kernels
from tsukiji.deploy.c.kernels.plain_product import strides_of
from tsukiji.deploy.c.kernels.tails import Tile, tail
from tsukiji.deploy.c.plan.steps import Step, Window
from tsukiji.deploy.c.plan.values import FLOAT, Load
from tsukiji.deploy.c.tables import Tables, index_kind

Lines = list[str]
FEWEST, LEAST = 8, 4  # outputs; columns
# Multiplications a nanosecond of one core (AVX2, 3.4 GHz), as measured by
# `benchmarks.c_kernels`: lists of windows and of matrices, blocks of windows of
# many and of few taps, and of matrices; and nanoseconds to store a result
# among other channels, and beside its neighbors.
LISTED, CHOSEN, BLOCKED, SHORT, STREAMED = 30, 3, 50, 27, 17
STORED, NEAR, FEW = 0.6, 0.1, 64


class Lists(NamedTuple):
  """The weights of each output that are not 0.

  Attributes:
    ends: Where the list of each output ends, and the first begins.
    places: Of inputs, behind the first one of a window.
    weights: Likewise.
  """

  ends: np.ndarray
  places: np.ndarray
  weights: np.ndarray


def pays(window: Window, shape: tuple[int, ...], is_near: bool) -> bool:
  """Return whether lists are expected to be faster than blocks.

  Args:
    window: The product, of floats.
    shape: Of its result: rows, columns, outputs.
    is_near: Whether the result is stored channel by channel.
  """
  rows, columns, outputs = shape
  odd = window.groups > 1 or window.strides[1] > 1 or outputs < FEWEST
  if odd or 1 < columns < LEAST:
    return False
  taps = window.weights[..., 0].size
  dense = rows * columns * taps * outputs
  listed = rows * columns * np.count_nonzero(window.weights)
  if rows == columns == 1:
    return bool(listed / CHOSEN < dense / STREAMED)
  if columns == 1:
    return False
  vectors = len(sparse_kernels.spans(columns)) * sparse_kernels.LANES
  stored = (NEAR if is_near else STORED) * rows * columns * outputs
  lists = listed / LISTED * vectors / columns + stored
  return bool(lists < dense / (BLOCKED if taps > FEW else SHORT))


def product(step: Step, tables: Tables) -> Lines:
  """Write a product, output by output."""
  (x,), window = step.reads, step.attrs['window']
  assert isinstance(x, Load) and step.tail is not None
  if step.tail.shape[:2] == (1, 1):
    return _matrix(step, tables)
  base, (row, column, channel) = strides_of(x)
  rows, columns, outputs = step.tail.shape
  pool = step.tail.pool
  deep = pool.height if pool else 1
  rows -= rows % deep
  count = sparse_kernels.rows_of(rows, columns, deep)
  lists = listed(window, (row, column, channel))
  ends = tables.indices(lists.ends, f'{step.path}: ends of lists')
  places = tables.indices(lists.places, f'{step.path}: places')
  weights = tables.add(lists.weights, FLOAT, step.path)
  kind = index_kind(lists.places)
  name = sparse_kernels.name(count, columns, kind)
  first = f'{x.buffer.name} + {base}' if base else x.buffer.name
  call = (
    f'{name}({first} + {row * window.strides[0]} * y, '
    f'{row * window.strides[0]}, {places} + {ends}[o], '
    f'{weights} + {ends}[o], {ends}[o + 1] - {ends}[o], sums[0]);'
  )
  tile = Tile(count, columns, 1, 'sums[{0}][{1}]', 'r', 'o')
  end = tail(step, tables, tile)
  if count == rows:
    end = tail(step, tables, tile._replace(row=''))
    call = call.replace(f' + {row * window.strides[0]} * y', '')
    body = [call, *end]
  else:
    body = [
      f'for (int y = 0; y < {rows}; y += {count}) {{',
      f'  {call}',
      f'  const int r = y / {deep};',
      *(f'  {line}' for line in end),
      '}',
    ]
  return [
    f'float sums[{count}][{columns}];',
    f'for (int o = 0; o < {outputs}; ++o) {{',
    *(f'  {line}' for line in body),
    '}',
  ]


def listed(window: Window, strides: tuple[int, ...]) -> Lists:
  """Return the weights that are not 0, output by output.

  Args:
    window: The product.
    strides: Of rows, columns and channels of the input.
  """
  weights = np.moveaxis(window.weights, 3, 0)
  found = np.nonzero(weights)
  steps = (
    strides[0] * window.dilation[0],
    strides[1] * window.dilation[1],
    strides[2],
  )
  places = sum(
    step * at for step, at in zip(steps, found[1:], strict=True)
  ) + np.zeros(len(found[0]), np.int64)
  order = np.lexsort((places, found[0]))
  counts = np.bincount(found[0], minlength=len(weights))
  ends = np.concatenate([[0], np.cumsum(counts)])
  return Lists(ends, places[order], weights[found][order])


def _matrix(step: Step, tables: Tables) -> Lines:
  """Write a product of one window: groups of outputs, each in its own lane.

  The lists of a group are as long as its longest; outputs are sorted by the
  lengths of their lists, so that few zeros are added.
  """
  (x,), window = step.reads, step.attrs['window']
  assert isinstance(x, Load) and step.tail is not None
  lists = listed(window, strides_of(x)[1])
  base = strides_of(x)[0]
  outputs, lanes = step.tail.shape[2], sparse_kernels.OUTPUTS
  lengths = np.diff(lists.ends)
  order = np.argsort(-lengths, kind='stable')
  groups = -(-outputs // lanes)
  most = [int(lengths[order[g * lanes]]) for g in range(groups)]
  starts = np.concatenate([[0], np.cumsum(most)])
  places = np.zeros((starts[-1], lanes), np.int64)
  weights = np.zeros((starts[-1], lanes), np.float32)
  for rank, output in enumerate(order):
    group, lane = divmod(rank, lanes)
    own = slice(lists.ends[output], lists.ends[output + 1])
    at = slice(starts[group], starts[group] + lengths[output])
    places[at, lane] = lists.places[own]
    weights[at, lane] = lists.weights[own]
  spots = np.zeros(groups * lanes, np.int64)
  spots[:outputs] = order
  back = np.argsort(order)
  ends = tables.indices(starts, f'{step.path}: ends of lists')
  rows = tables.indices(places, f'{step.path}: places')
  table = tables.add(weights, FLOAT, step.path)
  turn = tables.indices(back, f'{step.path}: order of outputs')
  first = f'{x.buffer.name} + {base}' if base else x.buffer.name
  name = sparse_kernels.matrix_name(index_kind(places))
  tile = Tile(1, 1, outputs, f'sums[{turn}[{{2}}]]')
  return [
    f'float sums[{groups * lanes}];',
    f'for (int g = 0; g < {groups}; ++g)',
    f'  {name}({first}, {rows} + {lanes} * {ends}[g], '
    f'{table} + {lanes} * {ends}[g], {ends}[g + 1] - {ends}[g], '
    f'sums + {lanes} * g);',
    *tail(step, tables, tile),
  ]
