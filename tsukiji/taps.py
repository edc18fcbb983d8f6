"""Convolutions as sums of shifted images, for XLA on a CPU.

XLA's kernels on a CPU take 3 to 130 times as long where each channel has a
filter of its own, and 2 to 25 times where few channels of an image meet few
filters: there each weight of the window multiplies a shifted image in one fused
loop. Up to 16 filters leave most of its vectors empty; the columns of the
window are filters as well there, and shifted afterwards: 1.3 to 7 times as
fast.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array

NHWC = ('NHWC', 'HWIO', 'NHWC')
FEW = 3  # channels, as of images
NARROW = 16  # filters


class Form(NamedTuple):
  """Strides, padding and groups of a convolution."""

  strides: tuple[int, ...]
  padding: tuple[tuple[int, int], ...]
  groups: int = 1


def is_depthwise(x: Any, w: Any, form: Form) -> bool:
  """Return whether each channel has one filter of its own."""
  return form.groups > 1 and form.groups == x.shape[3] == w.shape[3]


def is_thin(x: Any, w: Any, form: Form, filters: int, most: int) -> bool:
  """Return whether few channels meet at most so many filters and weights."""
  plain = form.groups == 1 and set(form.strides) == {1}
  small = w.shape[3] <= filters and w.size <= most
  return bool(plain and x.shape[3] <= FEW and small)


def has_columns(x: Any, w: Any, form: Form, filters: int) -> bool:
  """Return whether to shift columns: for few filters, or a large window.

  XLA takes an image that is smaller than the window as the window, and then
  has no kernel for the order of the axes: 10 to 20 times as slow.
  """
  plain = form.groups == 1 and set(form.strides) == {1}
  large = 1 < math.prod(x.shape[1:3]) < math.prod(w.shape[:2])
  return bool(plain and w.shape[1] > 1 and (large or filters <= NARROW))


def plain(x: Array, w: Array, form: Form) -> Array:
  """Convolve as `lax.conv_general_dilated`."""
  return lax.conv_general_dilated(
    x,
    w,
    form.strides,
    form.padding,
    dimension_numbers=NHWC,
    feature_group_count=form.groups,
  )


def by_taps(x: Array, w: Array, form: Form) -> Array:
  """Convolve as a sum over the window, and over channels if not grouped.

  >>> x, w = jnp.arange(8.0).reshape(1, 2, 2, 2), jnp.ones((2, 2, 1, 2))
  >>> by_taps(x, w, Form((1, 1), ((0, 0), (0, 0)), groups=2)).ravel()
  Array([12., 16.], dtype=float32)
  """
  padded = jnp.pad(x, ((0, 0), *form.padding, (0, 0)))
  taps = w.reshape(-1, w.shape[2], 1, 1, 1, w.shape[3])
  parts = [
    (x if form.groups > 1 else x[..., i : i + 1]) * tap[i]
    for i in range(w.shape[2])  # 1 if grouped
    for x, tap in zip(
      shifts(padded, w.shape[:2], form.strides), taps, strict=True
    )
  ]
  return functools.reduce(jnp.add, parts)


def by_columns(x: Array, w: Array, form: Form) -> Array:
  """Convolve with every column of the window at once, shift and add.

  y[:, j] = sum_v z[:, j + v, v] of z = x * w[:, v], a filter a column v; for
  stride 1, not grouped.

  >>> x, w = jnp.arange(8.0).reshape(1, 2, 2, 2), jnp.ones((2, 2, 2, 1))
  >>> by_columns(x, w, Form((1, 1), ((0, 0), (0, 0)))).ravel()
  Array([28.], dtype=float32)
  """
  kh, kw, c, f = w.shape
  high, (before, after) = form.padding
  columns = w.transpose(0, 2, 1, 3).reshape(kh, 1, c, kw * f)
  z = plain(x, columns, Form((1, 1), (high, (0, 0))))
  parts = [
    lax.pad(
      z[..., v * f : (v + 1) * f],
      jnp.zeros((), z.dtype),
      [(0, 0, 0), (0, 0, 0), (before - v, after + v + 1 - kw, 0), (0, 0, 0)],
    )
    for v in range(kw)
  ]
  return functools.reduce(jnp.add, parts)


def convolved(
  x: Array, w: Array, form: Form, by: Callable[..., Array] = by_taps
) -> Array:
  """Convolve, by shifts on a CPU.

  What reads programs, as `compress.dataflow`, reads the default.

  Args:
    x: Images, [batch, height, width, channels].
    w: Kernel, [height, width, channels / groups, filters].
    form: For which `is_depthwise`, `is_thin` or `has_columns`.
    by: `by_taps` or `by_columns`.

  Returns:
    Array [batch, out height, out width, filters].
  """
  alone = lax.optimization_barrier  # else the sums are fused, and done again
  return lax.platform_dependent(
    x,
    w,
    cpu=lambda x, w: alone(by(alone(x), w, form)),
    default=lambda x, w: plain(x, w, form),
  )


def shifts(x: Array, window: Sequence, strides: Sequence) -> list[Array]:
  """Return x at each offset of the window, [batch, height, width, channels]."""
  (b, h, w, c), (s, t) = x.shape, strides
  h, w = h - window[0] + 1, w - window[1] + 1
  return [
    lax.slice(x, (0, u, v, 0), (b, u + h, v + w, c), (1, s, t, 1))
    for u, v in itertools.product(*map(range, window))
  ]
