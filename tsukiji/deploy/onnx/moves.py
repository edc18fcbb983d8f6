"""Operators of graphs that move numbers, as ONNX nodes."""

import math
from typing import Any

from tsukiji.deploy.onnx.axes import Tensor, channels_first, known
from tsukiji.deploy.onnx.writer import Writer, unsupported

Xs = list[Tensor]


def transpose(w: Writer, xs: Xs, y: Tensor, order: Any) -> Tensor:
  """Return the same tensor, whose axes have other names in the graph."""
  x = xs[0]
  if x.value is not None or x.places is not None:
    x = w.moved(x, x.axes)
  axes = [order.index(i) for i in x.axes]
  return x._replace(shape=y.shape, order=known(axes))


def concat(w: Writer, xs: Xs, y: Tensor, axis: int) -> Tensor:
  """Join tensors in the order of the first that has its own."""
  orders = [x.order for x in xs if x.order]
  order = orders[0] if orders else (*range(len(y.shape)),)
  names = [w.moved(w.divided(x), order).name for x in xs]
  name = w.add('Concat', *names, axis=order.index(axis))
  return y._replace(name=name, order=known(order))


def slice_(
  w: Writer, xs: Xs, y: Tensor, begin: Any, end: Any, strides: Any
) -> Tensor:
  """Write a part of a tensor."""
  x = w.moved(w.divided(xs[0]), xs[0].axes)
  ends = [2**31 if e is None else e for e in end]
  moving = zip(begin, ends, strides, strict=True)
  cut = [i for i, part in enumerate(moving) if part != (0, 2**31, 1)]
  if not cut:
    return x
  axes = [x.axes.index(i) for i in cut]
  parts = ([table[i] for i in cut] for table in (begin, ends))
  tables = (*parts, axes, [strides[i] for i in cut])
  name = w.add('Slice', x.name, *(w.integers(*t) for t in tables))
  return y._replace(name=name, order=x.order)


def pad(w: Writer, xs: Xs, y: Tensor, widths: Any) -> Tensor:
  """Write entries around a tensor."""
  if any(between for _, _, between in widths):
    raise unsupported('pad', 'between entries')
  x, value = w.moved(w.divided(xs[0]), xs[0].axes), w.plain(xs[1])
  ends = [widths[i][side] for side in (0, 1) for i in x.axes]
  name = w.add('Pad', x.name, w.integers(*ends), value.name)
  return y._replace(name=name, order=x.order)


def expand(w: Writer, xs: Xs, y: Tensor, axes: Any) -> Tensor:
  """Write axes of size 1."""
  x = w.plain(xs[0])
  return y._replace(name=w.add('Unsqueeze', x.name, w.integers(*axes)))


def reshape(w: Writer, xs: Xs, y: Tensor, groups: Any) -> Tensor:
  """Write sizes, -1 for the one that depends on the number of examples.

  What becomes one axis an example stays as it lies. If ONNX Runtime has
  channels last, as for integers, a transpose to them moves nothing.
  """
  x = w.divided(xs[0])
  (first, *others) = groups or ((),)
  flat = len(others) == 1 and first == ((0,), (-1,)) and len(others[0][1]) == 1
  if x.order and flat and x.order[0] == 0 and x.places is None:
    if not x.is_integer:
      places = channels_first(x)
      return y._replace(name=w.add('Flatten', x.name), places=places)
    return y._replace(name=w.add('Flatten', w.plain(x).name))
  if y.shape.count(None) > 1:
    raise unsupported('reshape', y.shape)
  name = w.add('Reshape', w.plain(x).name, w.inferred(y.shape))
  return y._replace(name=name)


def divide(w: Writer, x: Tensor, y: Tensor, by: float) -> Tensor:
  """Return a tensor that has to be divided by a number yet."""
  divisor = (x.divisor or 1) * by
  left = None if math.isclose(divisor, 1, rel_tol=1e-6) else divisor
  return x._replace(shape=y.shape, dtype=y.dtype, divisor=left)
