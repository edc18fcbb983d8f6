"""Steps that loop over single numbers, as C."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from tsukiji.deploy.c import indices
from tsukiji.deploy.c.indices import Affine
from tsukiji.deploy.c.kernels import nests
from tsukiji.deploy.c.kernels.nests import Loops, Scope, opened
from tsukiji.deploy.c.plan.steps import Step
from tsukiji.deploy.c.plan.values import (
  FLOAT,
  Load,
  Value,
  loads,
  moved,
  shape_of,
)
from tsukiji.deploy.c.tables import Tables

Lines = list[str]
LEAST = {FLOAT: '-INFINITY', 'uint8_t': '0'}
MOST = {FLOAT: 'INFINITY', 'uint8_t': '1'}


def start(op: str, kind: str) -> str:
  """Return the number that changes nothing in a reduction."""
  if op in ('max', 'min'):
    ends = LEAST if op == 'max' else MOST
    sign = '-' if op == 'max' else ''
    return ends.get(kind, f'{sign}INT32_MAX')
  number = {'add': '0', 'mul': '1', 'and': '1', 'or': '0'}[op]
  return f'{number}.0f' if kind == FLOAT else number


JOIN = {
  'add': '{0} += {1};',
  'and': '{0} &= {1};',
  'max': '{0} = {1} > {0} ? {1} : {0};',
  'min': '{0} = {1} < {0} ? {1} : {0};',
  'mul': '{0} *= {1};',
  'or': '{0} |= {1};',
}


def store(step: Step, tables: Tables) -> Lines:
  """Write a function of single numbers."""
  return nests.stored(tables, step.reads[0], step.buffer, step.places)


def reduce(step: Step, tables: Tables) -> Lines:
  """Write a reduction: its outer loops, and inside those over its axes."""
  (x,), axes, op = step.reads, step.attrs['axes'], step.attrs['op']
  shape = shape_of(x)
  left = [j for j in range(len(shape)) if j not in axes]
  x = moved(x, lambda a: a.transpose(*left, *axes))
  places = step.places.reshape(*step.places.shape, *(1,) * len(axes))
  value, spots, names, loops = _joined(x, places, len(left))
  scope = Scope(tables, names)
  text = scope.text(value)
  kind = x.kind
  body = [
    f'{kind} all = {start(op, kind)};',
    *opened(loops[1], [*scope.lines, JOIN[op].format('all', text)]),
    f'{step.buffer.name}[{scope.place(spots)}] = all;',
  ]
  return opened(loops[0], body)


def _joined(
  x: Value, places: np.ndarray, outer: int
) -> tuple[Value, np.ndarray, list[str], tuple[Loops, Loops]]:
  """Return a value over few loops, of which the first ones are outer."""
  shape = shape_of(x)
  whole = np.broadcast_to(places, shape)
  found = [indices.affine(a.places) for a in loads(x)]
  strides = [a.strides for a in found if a is not None]
  strides += [indices.packed(shape)] * (len(strides) < len(found))
  strides += [indices.packed(a.shape) for a in nests.constants(x)]
  result = indices.packed(places.shape)
  parts = [
    indices.joint(shape[:outer], [s[:outer] for s in (*strides, result)]),
    indices.joint(shape[outer:], [s[outer:] for s in strides]),
  ]
  sizes = [
    tuple(math.prod(side[j] for j in group) for group in part)
    for side, part in zip((shape[:outer], shape[outer:]), parts, strict=True)
  ]
  names = [*nests.LETTERS[: len(sizes[0]) + len(sizes[1])]]
  ends = names[: len(sizes[0])], names[len(sizes[0]) :]
  loops = tuple(
    Loops(side, tuple(end)) for side, end in zip(sizes, ends, strict=True)
  )
  both = (*sizes[0], *sizes[1])
  value = moved(x, lambda a: a.reshape(both))
  return value, whole.reshape(both), names, (loops[0], loops[1])


def along(step: Step, tables: Tables) -> Lines:
  """Write sums or products so far, or the place of an extreme."""
  (x,), axis, op = step.reads, step.attrs['axis'], step.attrs['op']
  shape = shape_of(x)
  n = shape[axis]
  names = [*nests.LETTERS[: len(shape)]]
  outer = Loops(
    tuple(1 if j == axis else size for j, size in enumerate(shape)),
    tuple(names),
  )
  assert isinstance(x, Load)
  scope = Scope(tables, names)
  steps = Loops((n,), (names[axis],))
  read = f'{x.buffer.name}[{scope.place(x.places)}]'
  if op.startswith('arg'):
    sign = '>' if op == 'argmax' else '<'
    spots = np.broadcast_to(np.expand_dims(step.places, axis), shape)
    first = f'{x.buffer.name}[{_at_first(scope, x.places, axis)}]'
    update = f'if ({read} {sign} best) {{ best = {read}; at = {names[axis]}; }}'
    body = [
      f'{x.kind} best = {first};',
      'int at = 0;',
      *opened(steps, [update]),
      f'{step.buffer.name}[{scope.place(spots)}] = at;',
    ]
    return opened(outer, body)
  join = JOIN['add' if op == 'cumsum' else 'mul']
  places, spots = x.places, step.places
  if step.attrs['reverse']:
    places, spots = np.flip(places, axis), np.flip(spots, axis)
  read = f'{x.buffer.name}[{scope.place(places)}]'
  body = [
    f'{x.kind} all = {start("add" if op == "cumsum" else "mul", x.kind)};',
    *opened(
      steps,
      [
        join.format('all', read),
        f'{step.buffer.name}[{scope.place(spots)}] = all;',
      ],
    ),
  ]
  return opened(outer, body)


def _at_first(scope: Scope, places: np.ndarray, axis: int) -> str:
  first = np.broadcast_to(places.take([0], axis), places.shape)
  return scope.place(first)


def take(step: Step, tables: Tables) -> Lines:
  """Write entries along an axis, at places that are computed."""
  source, index = step.reads
  assert isinstance(source, Load) and isinstance(index, Load)
  axis, mode = step.attrs['axis'], step.attrs['mode']
  shape, rank = shape_of(source), len(shape_of(index))
  n = shape[axis]
  names = [*nests.LETTERS[: step.places.ndim]]
  loops = Loops(step.places.shape, tuple(names))
  inner = Scope(tables, names[axis : axis + rank])
  own = Scope(tables, [*names[:axis], 'at', *names[axis + rank :]])
  found = indices.affine(source.places)
  if found is None:
    raise nests.unsupported('take', 'an array that is not laid out evenly')
  place = indices.formula(Affine(found.base, found.strides), own.names)
  read = f'{source.buffer.name}[{place}]'
  whole = Scope(tables, names)
  target = f'{step.buffer.name}[{whole.place(step.places)}]'
  lines = [f'int at = (int){index.buffer.name}[{inner.place(index.places)}];']
  if mode == 'wrap':
    lines.append(f'at = (at % {n} + {n}) % {n};')
  elif mode == 'fill':
    lines.append(f'at += at < 0 ? {n} : 0;')
    outside = 'NAN' if source.kind == FLOAT else 'INT32_MIN'
    read = f'at < 0 || at >= {n} ? {outside} : {read}'
  else:
    lines.append(f'at = at < 0 ? 0 : at >= {n} ? {n - 1} : at;')
  return opened(loops, [*lines, f'{target} = {read};'])


SIMPLE: Mapping[str, Callable[[Step, Tables], Lines]] = {
  'along': along,
  'reduce': reduce,
  'store': store,
  'take': take,
}
