"""What follows a product: activations, pools, rescaling, as C."""

from typing import NamedTuple

from tsukiji.deploy.c.kernels.nests import Loops, Scope, cast, opened
from tsukiji.deploy.c.kernels.simple_steps import JOIN, start
from tsukiji.deploy.c.plan.steps import Step
from tsukiji.deploy.c.plan.values import SIZES, Load
from tsukiji.deploy.c.tables import Tables

Lines = list[str]
FEW = 9  # numbers of a window that are written one by one
ROW = 8  # channels that are worth a loop of their own


class Tile(NamedTuple):
  """Results of a product that are complete, before what follows them.

  Attributes:
    rows: Of them, a multiple of the height of windows.
    columns: Of them, from the first column.
    channels: Of them.
    sum: C of a result, with row, column and channel in the tile as `{0}`,
      `{1}`, `{2}`, and the example as `{3}`.
    row: Variable with the first row behind windows, '' if that is 0.
    channel: Variable with the first channel, '' if that is 0.
    group: Index of channels that have an axis of their own before those of the
      tile, '' if there is none.
    lanes: Examples, the last axis; 1 if there is none.
    held: C of where a result is held before `spread` stores it, likewise; ''
      if it is stored at once.
  """

  rows: int
  columns: int
  channels: int
  sum: str
  row: str = ''
  channel: str = ''
  group: str = ''
  lanes: int = 1
  held: str = ''


def tail(step: Step, tables: Tables, tile: Tile) -> Lines:
  """Return loops over a tile that store what follows a product."""
  end = step.tail
  assert end is not None
  pool = end.pool
  height, width = (pool.height, pool.width) if pool else (1, 1)
  rows, columns = tile.rows // height, tile.columns // width
  loops = _loops(tile, rows, columns)
  names = _names(tile, rows, columns)
  if pool:
    return _finished(step, tile, _pooled(step, tables, tile, names))
  row, _, *last = _inside(loops)
  scope = Scope(tables, names, {end.sums.name: 't0'})
  scope.named(end.sums.kind, tile.sum.format(row, names[1], *last))
  text = scope.text(end.before)
  return _finished(step, tile, (scope, [], text))


def spread(step: Step, tables: Tables, tile: Tile) -> Lines:
  """Return loops that store what is held, channel beside channel."""
  assert step.tail is not None
  pool = step.tail.pool
  height, width = (pool.height, pool.width) if pool else (1, 1)
  rows, columns = tile.rows // height, tile.columns // width
  loops = _loops(tile, rows, columns)
  scope = Scope(tables, _names(tile, rows, columns))
  place, own = scope.place(step.places), tile.held.format(*_inside(loops))
  line = f'{step.buffer.name}[{place}] = ({step.buffer.kind}){own};'
  return opened(_turned(loops, (0, 1, 3, 2)), [line])


def _finished(
  step: Step, tile: Tile, result: tuple[Scope, Lines, str]
) -> Lines:
  """Return loops that compute a result and store it.

  With AVX-512, bytes are stored by a loop of their own, from a row (`writing`):
  GCC chooses vectors for the smallest type of a loop, and those of 16 bytes are
  4 numbers of 32 bits.
  """
  scope, before, text = result
  end, buffer = step.tail, step.buffer
  assert end is not None
  pool = end.pool
  height, width = (pool.height, pool.width) if pool else (1, 1)
  loops = _loops(tile, tile.rows // height, tile.columns // width)
  lines = [*before, *scope.lines]
  if tile.held:
    own = tile.held.format(*_inside(loops))
    turned = _turned(loops, (2, 0, 1, 3))
    return opened(turned, [*lines, f'{own} = {text};'])
  last = end.after if end.after is not None else end.before
  own = f'{buffer.name}[{scope.place(step.places)}]'
  is_narrowed = SIZES[last.kind] > SIZES[buffer.kind]
  if not is_narrowed or tile.channels < ROW or tile.lanes > 1:
    line = f'{own} = {cast(buffer, last)}{text};'
    return opened(loops, [*lines, line])
  outer, inner = _turned(loops, (0, 1)), _turned(loops, (2,))
  store = f'{own} = ({buffer.kind})row[k];'
  inside = [
    f'ROW({last.kind} row[{tile.channels}];, )',
    *opened(inner, [*lines, f'ROW(row[k], {own}) = {text};']),
    f'ROW(for (int k = 0; k < {tile.channels}; ++k) {store}, )',
  ]
  return opened(outer, inside)


def _turned(loops: Loops, order: tuple[int, ...]) -> Loops:
  shape = tuple(loops.shape[i] for i in order)
  return Loops(shape, tuple(loops.names[i] for i in order))


def _loops(tile: Tile, rows: int, columns: int) -> Loops:
  sizes = (rows, columns, tile.channels, tile.lanes)
  return Loops(sizes, ('i', 'j', 'k', 'l'))


def _names(tile: Tile, rows: int, columns: int) -> tuple[str, ...]:
  """Return the index of a result along each axis."""
  own = 'k' if tile.channels > 1 else ''
  channels = (
    (tile.group, own or '0') if tile.group else (_index(tile.channel, own),)
  )
  row = _index(tile.row, 'i' if rows > 1 else '')
  lane = ('l',) if tile.lanes > 1 else ()
  return (row, 'j' if columns > 1 else '0', *channels, *lane)


def _index(first: str, name: str) -> str:
  """Return the sum of two variables, of which some are 0."""
  found = ' + '.join(x for x in (first, name) if x) or '0'
  return f'({found})' if '+' in found else found


def _inside(loops: Loops) -> tuple[str, ...]:
  """Return the variables of loops, 0 where there is no loop."""
  return tuple(
    name if n > 1 else '0'
    for n, name in zip(loops.shape, loops.names, strict=True)
  )


def _pooled(
  step: Step, tables: Tables, tile: Tile, names: tuple[str, ...]
) -> tuple[Scope, Lines, str]:
  end = step.tail
  assert end is not None and end.pool is not None
  _, height, width = end.pool
  loops = _loops(tile, tile.rows // height, tile.columns // width)
  row, column, *last = _inside(loops)
  scope = Scope(tables, names)
  kind, op = end.before.kind, end.pool.op
  if isinstance(end.before, Load) and height * width <= FEW:
    read = [
      tile.sum.format(_at(height, row, y), _at(width, column, x), *last)
      for y in range(height)
      for x in range(width)
    ]
    lines = [f'{kind} all = {read[0]};']
    lines += [JOIN[op].format('all', text) for text in read[1:]]
  else:
    row, column = _at(height, row, 'y'), _at(width, column, 'x')
    own = (_at(height, names[0], 'y'), column, *names[2:])
    inner = Scope(tables, own, {end.sums.name: 't0'})
    inner.named(end.sums.kind, tile.sum.format(row, column, *last))
    text = inner.text(end.before)
    window = Loops((height, width), ('y', 'x'))
    lines = [
      f'{kind} all = {start(op, kind)};',
      *opened(window, [*inner.lines, JOIN[op].format('all', text)]),
    ]
  result = 'all'
  if end.after is not None and end.pooled is not None:
    scope.given = {end.pooled.name: 'all'}
    result = scope.text(end.after)
  return scope, lines, result


def _at(step: int, first: str, more: int | str) -> str:
  """Return `step * first + more` as C."""
  if first == '0':
    return str(more)
  return f'{step} * {first}' if more == 0 else f'({step} * {first} + {more})'
