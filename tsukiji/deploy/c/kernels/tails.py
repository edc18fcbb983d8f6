"""What follows a product: activations, pools, rescaling, as C."""

from typing import NamedTuple

import numpy as np

from tsukiji.deploy.c.kernels.nests import Loops, Scope, cast, opened
from tsukiji.deploy.c.kernels.simple_steps import JOIN, start
from tsukiji.deploy.c.plan.steps import Step
from tsukiji.deploy.c.plan.values import Load
from tsukiji.deploy.c.tables import Tables

Lines = list[str]
FEW = 9  # numbers of a window that are written one by one


class Tile(NamedTuple):
  """Results of a product that are complete, before what follows them.

  Attributes:
    rows: Of them, a multiple of the height of windows.
    columns: Of them, from the first column.
    channels: Of them.
    sum: C of a result, with row, column and channel in the tile as `{0}`,
      `{1}`, `{2}`.
    row: Variable with the first row behind windows, '' if that is 0.
    channel: Variable with the first channel, '' if that is 0.
  """

  rows: int
  columns: int
  channels: int
  sum: str
  row: str = ''
  channel: str = ''


def tail(step: Step, tables: Tables, tile: Tile) -> Lines:
  """Return loops over a tile that store what follows a product."""
  end = step.tail
  assert end is not None
  pool = end.pool
  height, width = (pool.height, pool.width) if pool else (1, 1)
  rows, columns = tile.rows // height, tile.columns // width
  loops = Loops((rows, columns, tile.channels), ('i', 'j', 'k'))
  names = (
    _index(tile.row, 'i' if rows > 1 else ''),
    'j' if columns > 1 else '0',
    _index(tile.channel, 'k' if tile.channels > 1 else ''),
  )
  if pool:
    return opened(loops, _pooled(step, tables, tile, names))
  row, _, channel = _inside(loops)
  scope = Scope(tables, names, {end.sums.name: 't0'})
  scope.named(end.sums.kind, tile.sum.format(row, names[1], channel))
  text = scope.text(end.before)
  line = _stored(step, scope, step.places, text)
  return opened(loops, [*scope.lines, line])


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
) -> Lines:
  end = step.tail
  assert end is not None and end.pool is not None
  _, height, width = end.pool
  shape = (tile.rows // height, tile.columns // width, tile.channels)
  row, column, channel = _inside(Loops(shape, ('i', 'j', 'k')))
  scope = Scope(tables, names)
  kind, op = end.before.kind, end.pool.op
  if isinstance(end.before, Load) and height * width <= FEW:
    read = [
      tile.sum.format(_at(height, row, y), _at(width, column, x), channel)
      for y in range(height)
      for x in range(width)
    ]
    lines = [f'{kind} all = {read[0]};']
    lines += [JOIN[op].format('all', text) for text in read[1:]]
  else:
    row, column = _at(height, row, 'y'), _at(width, column, 'x')
    own = (_at(height, names[0], 'y'), column, names[2])
    inner = Scope(tables, own, {end.sums.name: 't0'})
    inner.named(end.sums.kind, tile.sum.format(row, column, channel))
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
  return [*lines, *scope.lines, _stored(step, scope, step.places, result)]


def _at(step: int, first: str, more: int | str) -> str:
  """Return `step * first + more` as C."""
  if first == '0':
    return str(more)
  return f'{step} * {first}' if more == 0 else f'({step} * {first} + {more})'


def _stored(step: Step, scope: Scope, places: np.ndarray, text: str) -> str:
  end = step.tail
  assert end is not None
  last = end.after if end.after is not None else end.before
  narrow = cast(step.buffer, last)
  return f'{step.buffer.name}[{scope.place(places)}] = {narrow}{text};'
