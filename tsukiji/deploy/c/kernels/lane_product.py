"""Products in lists, of 8 neighboring windows or 8 examples at once.

The step is that of one example, or of 8 (`plan.lanes`). All zeros of weights
are skipped; a matrix of floats with few zeros shares its places among outputs.
"""

import math
from typing import NamedTuple

import numpy as np

from tsukiji.deploy.c.indices import Affine, formula
from tsukiji.deploy.c.kernels import lane_lists
from tsukiji.deploy.c.kernels.chunks import words
from tsukiji.deploy.c.kernels.lane_lists import LANES, Inner
from tsukiji.deploy.c.kernels.nests import indented
from tsukiji.deploy.c.kernels.tails import Tile, spread, tail
from tsukiji.deploy.c.kernels.weight_lists import Placed, placed
from tsukiji.deploy.c.plan import fours
from tsukiji.deploy.c.plan.steps import Pool, Step, Tail, identity
from tsukiji.deploy.c.plan.values import CODE, Load, moved
from tsukiji.deploy.c.tables import Tables, index_kind

Lines = list[str]
MOST = 12  # vectors of sums, of 16 registers
FOURS = 8  # likewise with sums of 16 bits beside them
READ = 2  # vectors whose work a place and its weights take
BLOCK = 4  # outputs that are stored together


class Block(NamedTuple):
  """What is summed before it is stored.

  Attributes:
    rows: Of windows.
    wide: Vectors of a row that are summed at once.
    held: Outputs.
    every: Rows of windows of the product, in whole pools.
    deep: Rows of a pool.
    inner: Rows and columns whose maximum the inner loop finds.
  """

  rows: int
  wide: int
  held: int
  every: int
  deep: int
  inner: tuple[int, int] = (1, 1)


def product(step: Step, tables: Tables) -> Lines:
  """Write a product, output by output, rows of windows at once."""
  assert step.tail is not None
  found, examples = placed(step), step.attrs['examples']
  block = _block(step, found)
  deep, broad = block.inner
  _, columns, outputs = step.tail.shape
  columns //= broad
  groups = outputs // block.held
  calls = _summed(step, tables, found, block)
  tile = Tile(
    block.rows // deep,
    columns,
    block.held,
    'sums[{2}][{0}][{1}]' + ('[{3}]' if examples > 1 else ''),
    'r' if block.every > block.rows else '',
    group='o' if groups > 1 else '0',
    lanes=examples,
  )
  sizes = f'[{block.held}][{block.rows // deep}][{columns}]'
  sizes += f'[{examples}]' if examples > 1 else ''
  head = [f'{step.tail.sums.kind} sums{sizes};']
  step = _grouped(_less(step, block.inner), block.held)
  if step.buffer.kind == CODE and block.held == BLOCK:
    own, tile = _held(step, tile)
    head += own
    calls += [*tail(step, tables, tile), *spread(step, tables, tile)]
  else:
    calls += tail(step, tables, tile)
  if block.every > block.rows:
    calls = [
      f'for (int y = 0; y < {block.every}; y += {block.rows}) {{',
      f'  const int r = y / {block.deep};',
      *indented(calls),
      '}',
    ]
  if groups > 1:
    calls = [f'for (int o = 0; o < {groups}; ++o) {{', *indented(calls), '}']
  return [*head, *calls]


def _less(step: Step, inner: tuple[int, int]) -> Step:
  """Return a step without the part of its pool that is inside its sums."""
  end = step.tail
  assert end is not None
  if end.pool is None or end.pooled is None or inner == (1, 1):
    return step
  rows, columns, outputs = end.shape
  (op, height, width), (deep, broad) = end.pool, inner
  shape = (rows // deep, columns // broad, outputs)
  pool = Pool(op, height // deep, width // broad)
  if pool[1:] != (1, 1):
    return step._replace(tail=end._replace(shape=shape, pool=pool))
  whole = step.places.shape[:2]
  after = end.after
  if after is None:
    lanes = (step.attrs['examples'],) * (step.attrs['examples'] > 1)
    after = identity(end.pooled, (*whole, outputs, *lanes), end.before.kind)
  return step._replace(tail=Tail(end.pooled, shape, after))


def _held(step: Step, tile: Tile) -> tuple[Lines, Tile]:
  """Return a tile whose results are held, so that they are made as vectors."""
  assert step.tail is not None
  pool = step.tail.pool
  height, width = (pool.height, pool.width) if pool else (1, 1)
  sizes = f'[{tile.channels}][{tile.rows // height}][{tile.columns // width}]'
  name = 'held[{2}][{0}][{1}]'
  if tile.lanes > 1:
    sizes, name = f'{sizes}[{tile.lanes}]', f'{name}[{{3}}]'
  return [f'int32_t held{sizes};'], tile._replace(held=name)


def _summed(step: Step, tables: Tables, found: Placed, block: Block) -> Lines:
  """Return the loops that sum a block."""
  (x,), lists, examples = step.reads, found.lists, step.attrs['examples']
  assert isinstance(x, Load) and step.tail is not None
  _, columns, outputs = step.tail.shape
  columns -= columns % block.inner[1]
  loop = _loop(step, found, block)
  share = lists.outputs
  wide = block.wide * (LANES if examples == 1 else 1)
  last = columns - wide
  at = ('j' if columns % wide == 0 else 'at') if last > 0 else ''
  y = 'y' if block.every > block.rows else ''
  spots = (loop.unit * n for n in (found.base, found.down, found.right))
  base, *strides = spots
  place = formula(Affine(base, (*strides,)), (y, at))
  first = x.buffer.name if place == '0' else f'{x.buffer.name} + {place}'
  group = 'o' if outputs > block.held else ''
  k = 'k' if block.held > share else ''
  number = formula(Affine(0, (block.held // share, 1)), (group, k))
  more = '[0]' if examples > 1 else ''
  spot = f'{at} / {block.inner[1]}' if at and block.inner[1] > 1 else at or 0
  line = (
    f'{loop.name}({first}, {_list(step, tables, found, number)}, '
    f'&sums[{k or 0}][0][{spot}]{more});'
  )
  lines = [line]
  if last > 0:
    lines = [
      f'for (int j = 0; j < {columns}; j += {wide}) {{',
      *([f'  const int at = j < {last} ? j : {last};'] if at == 'at' else []),
      f'  {line}',
      '}',
    ]
  if k:
    top = f'for (int k = 0; k < {block.held}; ++k) {{'
    lines = [top, *indented(lines), '}']
  return lines


def _list(step: Step, tables: Tables, found: Placed, number: str) -> str:
  """Return the arguments of an inner loop that are the list of some number."""
  lists, weights = found.lists, found.lists.weights
  starts = np.concatenate([[0], np.cumsum(lists.counts)])
  ends = tables.indices(starts, f'{step.path}: ends of lists')
  places = tables.indices(lists.places, f'{step.path}: places')
  if step.attrs['fours']:
    table = tables.add(words(weights), 'int32_t', step.path)
    one = each = lists.length
  else:
    assert step.tail is not None
    table = tables.add(weights, step.tail.sums.kind, step.path)
    one, each = 1, lists.outputs
  begin, jump = (
    (f'{n} * ' if n > 1 else '') + f'{ends}[{number}]' for n in (one, each)
  )
  count = f'{ends}[{number} + 1] - {ends}[{number}]'
  return f'{places} + {begin}, {table} + {jump}, {count}'


def _loop(step: Step, found: Placed, block: Block) -> Inner:
  """Return the inner loop."""
  assert step.tail is not None
  examples, is_four = step.attrs['examples'], bool(step.attrs['fours'])
  unit = (fours.SIZE if is_four else 1) * examples
  right = found.right * (LANES if examples == 1 else 1)
  return Inner(
    CODE if is_four else step.tail.sums.kind,
    block.rows,
    block.wide,
    unit,
    unit * found.down if block.rows > 1 else 0,
    unit * right if block.wide > 1 else 0,
    step.tail.shape[1] // block.inner[1] * examples,
    found.lists.outputs,
    found.lists.length,
    *block.inner,
    lane_lists.SHORT[index_kind(found.lists.places)],
  )


def _block(step: Step, found: Placed) -> Block:
  """Return what is summed at once."""
  assert step.tail is not None
  rows, columns, outputs = step.tail.shape
  deep = step.tail.pool.height if step.tail.pool else 1
  rows -= rows % deep
  columns //= LANES if step.attrs['examples'] == 1 else 1
  share, most = found.lists.outputs, FOURS
  if not step.attrs['fours']:
    most = MOST // (share * found.lists.length)
  held = share if share > 1 else BLOCK if outputs % BLOCK == 0 else 1
  inner = _inner(step)
  columns -= columns % inner[1]
  down, wide = cut((rows, columns, deep), max(1, most), inner[1])
  return Block(down, wide, held, rows, deep, inner)


def _inner(step: Step) -> tuple[int, int]:
  """Return the part of a pool that the inner loop can do."""
  assert step.tail is not None
  pool, is_plain = step.tail.pool, isinstance(step.tail.before, Load)
  if not (pool and step.attrs['fours'] and is_plain and pool.op == 'max'):
    return (1, 1)
  wide = pool.width if step.attrs['examples'] > 1 else 1
  small = pool.height * wide <= FOURS
  return (pool.height, wide) if small else (1, 1)


def cut(
  shape: tuple[int, int, int], most: int, near: int = 1
) -> tuple[int, int]:
  """Return the rows and vectors of a row that are summed at once.

  Args:
    shape: Rows, vectors of a row, and rows that belong together.
    most: Vectors.
    near: Vectors of a row that belong together.

  >>> cut((24, 24, 2), 12), cut((8, 1, 2), 6), cut((1, 1, 1), 6)
  ((2, 6), (4, 1), (1, 1))
  """
  rows, columns, deep = shape

  def cost(one: tuple[int, int]) -> float:
    down, wide = one
    return math.ceil(columns / wide) * rows / down * (down * wide + READ)

  found = [
    (down, wide)
    for down in range(deep, rows + 1, deep)
    for wide in range(near, columns + 1, near)
    if rows % down == 0 and down * wide <= most
  ]
  return min(found, key=cost, default=(deep, near))


def _grouped(step: Step, held: int) -> Step:
  """Return a step whose channels are groups of those stored together."""
  end = step.tail
  assert end is not None

  def move(a: np.ndarray) -> np.ndarray:
    return a.reshape(*a.shape[:2], -1, held, *a.shape[3:])

  after = None if end.after is None else moved(end.after, move)
  end = end._replace(before=moved(end.before, move), after=after)
  return step._replace(tail=end, places=move(step.places))
