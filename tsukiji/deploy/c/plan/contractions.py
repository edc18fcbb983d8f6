"""Products of a graph as windows over rows, columns and channels."""

import math
from typing import Any, NamedTuple

import numpy as np

from tsukiji.deploy.c.indices import affine
from tsukiji.deploy.c.kernels import sparse_product
from tsukiji.deploy.c.kernels.nests import unsupported
from tsukiji.deploy.c.plan import codes, signs, views
from tsukiji.deploy.c.plan.fours import Fours, fours, is_row
from tsukiji.deploy.c.plan.planning import FIRST, Planner
from tsukiji.deploy.c.plan.steps import Step, Tail, Window, identity
from tsukiji.deploy.c.plan.values import (
  CODE,
  FLOAT,
  Buffer,
  Const,
  Expr,
  Load,
  Value,
  loads,
  moved,
  shape_of,
)
from tsukiji.graph.nodes import Node, Ref


class Entry(NamedTuple):
  """The input of a product, as its kernel takes it.

  Attributes:
    load: The input.
    grid: Its codes, None where it is not stored as codes.
    is_sparse: Whether zeros of the weights are skipped.
    fours: How the codes lie in fours, None where they do not.
    is_binary: Whether it and the weights are signs, and it is stored as bits.
    border: Zeros before and after rows and columns, which are not stored.
  """

  load: Load
  grid: codes.Grid | None = None
  is_sparse: bool = False
  fours: Fours | None = None
  is_binary: bool = False
  border: tuple[tuple[int, int], ...] = ((0, 0), (0, 0))


def conv(
  planner: Planner,
  i: int,
  node: Node,
) -> Value:
  """Return a convolution with a constant kernel."""
  lhs, rhs, out = node.attrs['dims']
  kernel = planner.pending(node.inputs[1])
  sides = len(lhs) - 2
  if not isinstance(kernel, Const) or sides > 2:
    raise unsupported('conv', 'a kernel that is computed or has 3 sides')
  weights = kernel.array.transpose(*rhs[2:], rhs[1], rhs[0])
  more = (1,) * (2 - sides)
  weights = weights.reshape(*more, *weights.shape)
  spread, dilated = node.attrs['dilation']
  window = Window(
    weights,
    (*more, *node.attrs['strides']),
    (*more, *dilated),
    shape_of(planner.pending(node.inputs[0]))[lhs[1]] // weights.shape[2],
  )

  def turned(x: np.ndarray) -> np.ndarray:
    x = x.transpose(lhs[0], *lhs[2:], lhs[1])
    return x.reshape(*more, *x.shape[1:])

  edges = [(0, 0, 0)] * (2 - sides)
  edges += [
    (a, b, n - 1)
    for (a, b), n in zip(node.attrs['padding'], spread, strict=True)
  ]
  if shape_of(planner.pending(node.inputs[0]))[lhs[0]] != 1:
    raise unsupported('conv', 'several images an example')
  x = entered(planner, (i, node.inputs[0]), turned, (*edges, (0, 0, 0)), window)
  found = product(planner, i, x, window, _path(planner, kernel))

  def back(a: np.ndarray) -> np.ndarray:
    a = a.reshape(1, *a.shape[2 - sides :])
    return a.transpose(np.argsort([out[0], *out[2:], out[1]]))

  return moved(found, back)


def _path(planner: Planner, kernel: Const) -> str:
  return planner.paths.get(id(kernel.array), '')


def entered(
  planner: Planner,
  where: tuple[int, Ref],
  turned: Any,
  edges: Any,
  window: Window,
) -> Entry:
  """Return the input of a product in memory, with zeros around it.

  Args:
    planner: The planner.
    where: The product, and what it reads.
    turned: Array -> array of rows, columns and channels.
    edges: Entries before, after and between along these.
    window: The product.

  Returns:
    The input, as the kernel of the product takes it.
  """
  node, ref = where
  x = moved(planner.taken(ref), turned)
  x = moved(x, lambda a: views.cropped(a, edges))
  widths = tuple((max(a, 0), max(b, 0), c) for a, b, c in edges)
  whole, places = views.spaced(shape_of(x), widths)
  count = math.prod(whole)
  bordered = places.size < count
  grid = codes.grid(x, window)
  if grid is not None and _is_in_fours(planner, window, whole):
    return _in_fours(planner, x, grid, (whole, places))
  if grid is not None:
    # Kernels read groups of taps, perhaps beyond the last one.
    buffer = planner.buffer(count + codes.GROUP, CODE)
    border = -grid.low if bordered else None
    planner.put(codes.coded(x, grid.low), buffer, places, border)
    return Entry(identity(buffer, whole, CODE), grid)
  bits = signs.positive(x, window)
  if bits is not None and (not bordered or signs.may_border(window, widths)):
    sides = tuple((a, b) for a, b, _ in widths[:2])
    return Entry(signs.packed(planner, bits), is_binary=True, border=sides)
  after = window.after(whole)
  near = node in planner.planar
  is_sparse = x.kind == FLOAT and (
    sparse_product.pays(window, after, near)
    if planner.lists is None
    else planner.lists
  )
  columns = after[1]
  planar = is_sparse and columns > 1 and whole[2] > 1
  spots = np.arange(count, dtype=np.int32).reshape(whole)
  if planar:
    spots, places = _planar(whole, places)
  moves = isinstance(x, Load) and affine(x.places) is None
  if not moves and not planar and not any(map(any, widths)):
    return Entry(planner.in_memory(x), None, is_sparse)
  buffer = planner.buffer(count, x.kind)
  planner.put(x, buffer, places, 0.0 if bordered else None)
  return Entry(Load(buffer, spots, x.kind), None, is_sparse)


def _is_in_fours(
  planner: Planner, window: Window, shape: tuple[int, ...]
) -> bool:
  if planner.mode == FIRST:
    return is_row(window, window.after(shape)[1])
  return planner.mode != ''


def _in_fours(
  planner: Planner,
  x: Value,
  grid: codes.Grid,
  where: tuple[tuple[int, ...], np.ndarray],
) -> Entry:
  """Return codes in fours, each code as often as there are fours of it."""
  whole, places = where
  form = fours(whole)
  buffer = planner.buffer(form.bytes, CODE)
  border = -grid.low if places.size < math.prod(whole) else None
  copies = form.copies.reshape(-1, form.copies.shape[-1])[places]
  value = codes.coded(x, grid.low)
  if form.across == 1:
    copies = copies[..., 0]
  else:
    value = moved(value, lambda a: np.broadcast_to(a[..., None], copies.shape))
  planner.put(value, buffer, copies, border)
  return Entry(Load(buffer, form.places, CODE), grid, False, form)


def _planar(
  shape: tuple[int, ...], places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Return places of channels one after the other: of all, and of an array."""
  rows, columns, channels = shape
  flat = np.arange(math.prod(shape), dtype=np.int32)
  whole = flat.reshape(channels, rows, columns).transpose(1, 2, 0)
  return whole, whole.reshape(-1)[places]


def product(
  planner: Planner, node: int, entry: Entry, window: Window, path: str
) -> Load:
  """Append a product, open for what follows it, and return its result.

  Args:
    planner: The planner.
    node: The product.
    entry: As `entered` gives it.
    window: Its window.
    path: Of the weights.
  """
  kind = planner.kinds[node]
  x, grid, is_sparse, form, is_binary, border = entry
  sides = zip(x.places.shape, border, strict=False)
  shape = window.after((*(n + a + b for n, (a, b) in sides),))
  buffer = planner.buffer(math.prod(shape), kind)
  found = identity(buffer, shape, kind)
  sums = Buffer('sum', kind, buffer.size)
  before: Value = identity(sums, shape, kind)
  if grid is not None:
    before = codes.corrected(before, grid.low, window)
  tail = Tail(sums, shape, before)
  attrs = {
    'window': window,
    'grid': grid,
    'is_sparse': is_sparse,
    'node': node,
    'fours': form,
    'is_binary': is_binary,
    'border': border,
    'examples': 1,
    'is_small': not planner.mode,
  }
  step = Step('product', buffer, found.places, (x,), attrs, path, tail)
  planner.add(step, is_open=True)
  return found


def dot(planner: Planner, i: int, node: Node) -> Value:
  """Return a product of matrices, of which one may be constant."""
  (a_sum, b_sum), (a_batch, b_batch) = node.attrs['dims']
  a, b = map(planner.pending, node.inputs)
  if isinstance(b, Const) and not a_batch:
    return _dense(planner, i, node.inputs[0], b, (a_sum, b_sum))
  if isinstance(a, Const) and not a_batch:
    found = _dense(planner, i, node.inputs[1], a, (b_sum, a_sum))
    rows = len(shape_of(b)) - len(b_sum)
    return moved(found, lambda x: _turned(x, rows))
  both = [planner.stored(ref) for ref in node.inputs]
  shapes = [shape_of(x) for x in both]
  free = [
    [j for j in range(len(shape)) if j not in (*summed, *batch)]
    for shape, summed, batch in zip(
      shapes, (a_sum, b_sum), (a_batch, b_batch), strict=True
    )
  ]
  n, m = map(len, free)
  left = moved(
    both[0],
    lambda x: np.expand_dims(
      x.transpose(*a_batch, *free[0], *a_sum),
      tuple(range(len(a_batch) + n, len(a_batch) + n + m)),
    ),
  )
  right = moved(
    both[1],
    lambda x: np.expand_dims(
      x.transpose(*b_batch, *free[1], *b_sum),
      tuple(range(len(a_batch), len(a_batch) + n)),
    ),
  )
  shape = np.broadcast_shapes(shape_of(left), shape_of(right))
  kind = planner.kinds[i]
  wide = [moved(x, lambda a: np.broadcast_to(a, shape)) for x in (left, right)]
  every = Expr('mul', (*wide,), kind)
  axes = tuple(range(len(shape) - len(a_sum), len(shape)))
  return reduced(planner, every, 'add', axes, kind)


def _turned(x: np.ndarray, rows: int) -> np.ndarray:
  """Return an array whose first axes are behind the others."""
  axes = (*range(rows, x.ndim), *range(rows))
  return x.transpose(axes)


def _dense(
  planner: Planner, i: int, ref: Ref, matrix: Const, summed: Any
) -> Value:
  """Return the product of rows with a constant matrix."""
  ours, theirs = summed
  free = [j for j in range(matrix.array.ndim) if j not in theirs]
  own = shape_of(planner.pending(ref))
  rows = [j for j in range(len(own)) if j not in ours]
  k = math.prod(own[j] for j in ours)
  weights = matrix.array.transpose(*theirs, *free).reshape(1, 1, k, -1)

  def turned(x: np.ndarray) -> np.ndarray:
    return x.transpose(*rows, *ours).reshape(1, -1, k)

  window = Window(weights)
  x = entered(planner, (i, ref), turned, ((0, 0, 0),) * 3, window)
  path = _path(planner, matrix)
  found = product(planner, i, x, window, path)
  ends = tuple(own[j] for j in rows)
  ends += tuple(matrix.array.shape[j] for j in free)
  return moved(found, lambda a: a.reshape(ends))


def reduced(
  planner: Planner, x: Value, op: str, axes: tuple[int, ...], kind: str
) -> Load:
  """Append a reduction and return its result.

  Args:
    planner: The planner.
    x: What is reduced.
    op: 'add', 'mul', 'max', 'min', 'and' or 'or'.
    axes: Over which.
    kind: Type of the result.
  """
  for load in [*loads(x)]:
    planner.in_memory(load)
  shape = shape_of(x)
  left = tuple(n for j, n in enumerate(shape) if j not in axes)
  buffer = planner.buffer(math.prod(left), kind)
  found = identity(buffer, left, kind)
  attrs = {'op': op, 'axes': axes}
  planner.add(Step('reduce', buffer, found.places, (x,), attrs))
  return found
