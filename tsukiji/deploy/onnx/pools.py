"""Pools and reductions of graphs as ONNX nodes."""

import math
from typing import Any

import numpy as np

from tsukiji.deploy.onnx.axes import Order, Tensor, known
from tsukiji.deploy.onnx.writer import Writer, unsupported


def window(
  kind: str,
  w: Writer,
  xs: list[Tensor],
  y: Tensor,
  *,
  sizes: Any,
  strides: Any,
  padding: Any,
  dilation: Any,
  mean: bool = False,
) -> Tensor:
  """Write a pool over the axes that have windows, two others before them."""
  x, (between, dilated) = w.divided(xs[0]), dilation
  moving = zip(sizes, strides, padding, strict=True)
  moved = [
    i for i, (n, s, p) in enumerate(moving) if (n, s, *p) != (1, 1, 0, 0)
  ]
  if {*between} != {1} or (kind == 'sum' and {*dilated} != {1}):
    raise unsupported('reduce_window', 'with spread windows')
  order = _order(x, moved)
  still = min(2, len(order) - len(moved))
  space = order[still:]
  attrs = {
    'kernel_shape': [sizes[i] for i in space],
    'strides': [strides[i] for i in space],
    'pads': [padding[i][side] for side in (0, 1) for i in space],
  }
  name = w.moved(x, order).name
  for _ in range(2 - still):
    name = w.add('Unsqueeze', name, w.integers(0))
  name = _pooled(kind, w, name, attrs, [dilated[i] for i in space], mean)
  for _ in range(2 - still):
    name = w.add('Squeeze', name, w.integers(0))
  divisor = 1 / math.prod(sizes) if mean else None
  return y._replace(name=name, order=known(order), divisor=divisor)


def _order(x: Tensor, moved: list[int]) -> Order:
  """Return axes in the order of pools: examples, channels, sides."""
  if not {*x.axes[:2]} & {*moved}:
    return x.axes
  still = [i for i in range(len(x.shape)) if i not in moved]
  first = dict.fromkeys((*still[:1], *still[-1:]))
  return (*first, *(i for i in range(len(x.shape)) if i not in first))


def _pooled(
  kind: str,
  w: Writer,
  name: str,
  attrs: dict[str, Any],
  dilated: list[int],
  mean: bool,
) -> str:
  if kind == 'sum':
    found = w.add('AveragePool', name, count_include_pad=1, **attrs)
    if mean:
      return found
    count = w.constant(math.prod(attrs['kernel_shape']), np.float32)
    return w.add('Mul', found, count.name)
  if kind == 'max':
    return w.add('MaxPool', name, dilations=dilated, **attrs)
  most = w.add('MaxPool', w.add('Neg', name), dilations=dilated, **attrs)
  return w.add('Neg', most)


def reduced(
  op: str,
  w: Writer,
  xs: list[Tensor],
  y: Tensor,
  axes: Any,
  mean: bool = False,
) -> Tensor:
  """Write a reduction; a mean is that of its entries and not of the channels.

  Args:
    op: Name of the ONNX node.
    w: The writer.
    xs: What is reduced.
    y: The result.
    axes: Axes of the graph.
    mean: Whether a sum is only divided, or multiplied, by a number.
  """
  x = w.divided(xs[0])
  x = w.moved(x, x.axes)
  there = sorted(x.axes.index(i) for i in axes)
  left = [i for i in x.axes if i not in axes]
  order = known(np.argsort(np.argsort(left)))
  y = y._replace(order=order)
  count = math.prod(x.shape[i] or 0 for i in axes)
  if op == 'ReduceSum' and mean and count:
    return y._replace(name=_mean(w, x, there), divisor=1 / count)
  if op == 'ReduceSum':
    name = w.add(op, x.name, w.integers(*there), keepdims=0)
  else:
    name = w.add(op, x.name, axes=there, keepdims=0)
  return y._replace(name=name)


def _mean(w: Writer, x: Tensor, axes: list[int]) -> str:
  spatial = axes == [*range(2, len(x.shape))]
  if spatial and (x.order or len(axes) == 2):
    return w.add('Flatten', w.add('GlobalAveragePool', x.name))
  return w.add('ReduceMean', x.name, axes=axes, keepdims=0)
