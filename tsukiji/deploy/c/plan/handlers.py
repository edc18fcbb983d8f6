"""From operators of graphs to steps, where numbers are joined or chosen."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tsukiji.deploy.c.kernels.nests import unsupported
from tsukiji.deploy.c.plan import views
from tsukiji.deploy.c.plan.contractions import conv, dot, reduced
from tsukiji.deploy.c.plan.loops import scan
from tsukiji.deploy.c.plan.planning import Handler, Planner, is_cheap
from tsukiji.deploy.c.plan.steps import Pool, Step, identity
from tsukiji.deploy.c.plan.values import (
  FLOAT,
  Const,
  Load,
  Value,
  moved,
  shape_of,
)
from tsukiji.graph.nodes import Node
from tsukiji.graph.operators import REDUCTIONS, WINDOWS, sized

JOINED = {
  'reduce_and': 'and',
  'reduce_max': 'max',
  'reduce_min': 'min',
  'reduce_or': 'or',
  'reduce_prod': 'mul',
  'reduce_sum': 'add',
}


def reduce(planner: Planner, i: int, node: Node) -> Value:
  """Return an extreme, a sum or a product over axes."""
  x = planner.taken(node.inputs[0])
  if not is_cheap(x):
    x = planner.stored(node.inputs[0])
  op, axes = JOINED[node.op], node.attrs['axes']
  return reduced(planner, x, op, axes, planner.kinds[i])


def window(planner: Planner, i: int, node: Node) -> Value:
  """Return an extreme or a sum over windows."""
  op, attrs = JOINED[WINDOWS[node.op]], node.attrs
  sizes, strides = attrs['sizes'], attrs['strides']
  spread, dilated = attrs['dilation']
  plain = {*spread, *dilated} == {1} and not any(map(any, attrs['padding']))
  if plain and sizes == strides and len(sizes) == 4:
    (first, height, width, last) = sizes
    found = first == last == 1 and planner.pooled(
      node.inputs[0], Pool(op, height, width)
    )
    if found:
      return found
  x: Load = planner.stored(node.inputs[0])
  if not plain:
    x = _bordered(planner, x, attrs, op)
  kind = planner.kinds[i]
  reach = [(n - 1) * d + 1 for n, d in zip(sizes, dilated, strict=True)]

  def every(a: np.ndarray) -> np.ndarray:
    a = np.lib.stride_tricks.sliding_window_view(a, reach)
    starts = tuple(slice(None, None, s) for s in strides)
    return a[(*starts, *(slice(None, None, d) for d in dilated))]

  axes = tuple(range(len(sizes), 2 * len(sizes)))
  return reduced(planner, moved(x, every), op, axes, kind)


def _bordered(planner: Planner, x: Load, attrs: Any, op: str) -> Load:
  """Return what windows read, with borders that do not change them."""
  widths = tuple(
    (a, b, n - 1)
    for (a, b), n in zip(attrs['padding'], attrs['dilation'][0], strict=True)
  )
  start = {'max': -math.inf, 'min': math.inf}.get(op, 0.0)
  if x.kind != FLOAT and op != 'add':
    start = -(2.0**31 - 1) * (1 if op == 'max' else -1)
  whole, places = views.spaced(x.places.shape, widths)
  buffer = planner.buffer(math.prod(whole), x.kind)
  planner.put(x, buffer, places, start)
  return identity(buffer, whole, x.kind)


def pad(planner: Planner, i: int, node: Node) -> Value:
  """Return an array with a constant around and between its entries."""
  value = planner.pending(node.inputs[1])
  if not isinstance(value, Const):
    raise unsupported('pad', 'a value that is computed')
  widths = node.attrs['widths']
  x = planner.taken(node.inputs[0])
  x = moved(x, lambda a: views.cropped(a, widths))
  more = tuple((max(a, 0), max(b, 0), c) for a, b, c in widths)
  whole, places = views.spaced(shape_of(x), more)
  buffer = planner.buffer(math.prod(whole), planner.kinds[i])
  planner.put(x, buffer, places, float(value.array))
  return identity(buffer, whole, x.kind)


def concat(planner: Planner, i: int, node: Node) -> Value:
  """Return arrays joined along an axis."""
  parts = [planner.taken(ref) for ref in node.inputs]
  axis = node.attrs['axis']
  known = [x.array for x in parts if isinstance(x, Const)]
  if len(known) == len(parts):
    return Const(np.concatenate(known, axis), planner.kinds[i])
  sizes = [shape_of(x)[axis] for x in parts]
  shape = [*shape_of(parts[0])]
  shape[axis] = sum(sizes)
  buffer = planner.buffer(math.prod(shape), planner.kinds[i])
  whole = identity(buffer, tuple(shape), planner.kinds[i])
  places = np.split(whole.places, np.cumsum(sizes)[:-1], axis)
  for part, at in zip(parts, places, strict=True):
    planner.put(part, buffer, at)
  return whole


def item(planner: Planner, i: int, node: Node) -> Value:
  """Return one of the results of a loop."""
  results: Any = planner.pending(node.inputs[0])
  found: Value = results[node.attrs['index']]
  return found


def iota(planner: Planner, i: int, node: Node) -> Value:
  """Return the places along an axis."""
  shape, axis = sized(node.attrs['shape'], 1), node.attrs['axis']
  line = np.arange(shape[axis]).reshape(
    [-1 if j == axis else 1 for j in range(len(shape))]
  )
  return Const(np.broadcast_to(line, shape), planner.kinds[i])


def along(planner: Planner, i: int, node: Node) -> Value:
  """Return what is found step by step along an axis."""
  x = planner.stored(node.inputs[0])
  shape, axis = shape_of(x), node.attrs['axis']
  if node.op.startswith('arg'):
    shape = shape[:axis] + shape[axis + 1 :]
  buffer = planner.buffer(math.prod(shape), planner.kinds[i])
  found = identity(buffer, shape, planner.kinds[i])
  attrs = {'op': node.op, **node.attrs}
  planner.add(Step('along', buffer, found.places, (x,), attrs))
  return found


def take(planner: Planner, i: int, node: Node) -> Value:
  """Return entries along an axis, at places that may be computed."""
  x, at = (planner.pending(ref) for ref in node.inputs)
  axis, mode = node.attrs['axis'], node.attrs['mode']
  if mode not in ('clip', 'fill', 'promise_in_bounds', 'wrap'):
    raise unsupported('take', f'mode {mode}')
  if isinstance(at, Const):
    n = shape_of(x)[axis]
    known = at.array % n if mode == 'wrap' else at.array
    inside = (known >= -n) & (known < n)
    if mode != 'fill' or np.all(inside):
      known = np.clip(known, -n if mode == 'fill' else 0, n - 1)
      ref = node.inputs[0]
      return moved(planner.taken(ref), lambda a: np.take(a, known, axis))
  source, index = (planner.stored(ref) for ref in node.inputs)
  shape = shape_of(source)
  shape = (*shape[:axis], *shape_of(index), *shape[axis + 1 :])
  buffer = planner.buffer(math.prod(shape), planner.kinds[i])
  found = identity(buffer, shape, planner.kinds[i])
  attrs = {'axis': axis, 'mode': mode}
  planner.add(Step('take', buffer, found.places, (source, index), attrs))
  return found


HANDLERS: Mapping[str, Handler] = {
  **dict.fromkeys(REDUCTIONS, reduce),
  **dict.fromkeys(WINDOWS, window),
  **dict.fromkeys(('argmax', 'argmin', 'cumprod', 'cumsum'), along),
  'concat': concat,
  'conv': conv,
  'dot': dot,
  'iota': iota,
  'item': item,
  'pad': pad,
  'scan': scan,
  'take': take,
}
