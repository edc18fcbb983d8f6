"""The operators of graphs, as JAX functions.

Each takes the arrays of its inputs and its settings by name. What is a number
of examples is given by `evaluate`, so that settings hold no `BATCH`.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tsukiji import taps

Array = jax.Array
Sizes = tuple[int, ...]
Pads = Any  # before, after and, of pad, between, for each axis
# Axes of the input and sizes that they become, of which one is -1.
Groups = tuple[tuple[Sizes, Sizes], ...]

THIN = 16, 900  # filters and weights of few channels


def _broadcasting(
  fn: Callable[[Array, Array], Array],
) -> Callable[[Array, Array], Array]:
  """Return a function of arrays whose shapes may differ."""
  return lambda x, y: fn(*jnp.broadcast_arrays(x, y))


# Operators of one array and of two, whose shapes broadcast.
UNARY: dict[str, Callable[[Array], Array]] = {
  'abs': jnp.abs,
  'atan': jnp.arctan,
  'ceil': jnp.ceil,
  'cos': jnp.cos,
  'cosh': jnp.cosh,
  'erf': lax.erf,
  'erfc': lax.erfc,
  'exp': jnp.exp,
  'exp2': jnp.exp2,
  'expm1': jnp.expm1,
  'floor': jnp.floor,
  'is_finite': jnp.isfinite,
  'log': jnp.log,
  'log1p': jnp.log1p,
  'logistic': lax.logistic,
  'neg': jnp.negative,
  'not': jnp.invert,
  'rsqrt': lax.rsqrt,
  'sign': jnp.sign,
  'sin': jnp.sin,
  'sinh': jnp.sinh,
  'sqrt': jnp.sqrt,
  'tan': jnp.tan,
  'tanh': jnp.tanh,
}
BINARY: dict[str, Callable[[Array, Array], Array]] = {
  'add': jnp.add,
  'and': jnp.bitwise_and,
  'div': _broadcasting(lax.div),
  'eq': jnp.equal,
  'ge': jnp.greater_equal,
  'gt': jnp.greater,
  'le': jnp.less_equal,
  'lt': jnp.less,
  'max': jnp.maximum,
  'min': jnp.minimum,
  'mul': jnp.multiply,
  'ne': jnp.not_equal,
  'or': jnp.bitwise_or,
  'pow': jnp.power,
  'rem': _broadcasting(lax.rem),
  'shift_left': _broadcasting(lax.shift_left),
  'shift_right_arithmetic': _broadcasting(lax.shift_right_arithmetic),
  'shift_right_logical': _broadcasting(lax.shift_right_logical),
  'sub': jnp.subtract,
  'xor': jnp.bitwise_xor,
}
# A function of two and where it starts.
REDUCTIONS: dict[str, tuple[Callable[..., Array], Callable[[Any], Any]]] = {
  'reduce_and': (lax.bitwise_and, lambda dtype: True),
  'reduce_max': (lax.max, lambda dtype: _least(dtype)),
  'reduce_min': (lax.min, lambda dtype: -_least(dtype)),
  'reduce_or': (lax.bitwise_or, lambda dtype: False),
  'reduce_prod': (lax.mul, lambda dtype: 1),
  'reduce_sum': (lax.add, lambda dtype: 0),
}
JOINED: dict[str, Callable[[Array, Array], Array]] = {
  'reduce_window_max': jnp.maximum,
  'reduce_window_min': jnp.minimum,
  'reduce_window_sum': jnp.add,
}
SLICES = 16  # as many may replace a window
WINDOWS = {
  f'reduce_window_{name}': f'reduce_{name}' for name in ('max', 'min', 'sum')
}


def select(which: Array, *cases: Array) -> Array:
  """Return the second case where `which` is true, else the first."""
  return lax.select_n(*jnp.broadcast_arrays(which, *cases))


def integer_power(x: Array, power: int) -> Array:
  """Return an integer power."""
  return lax.integer_pow(x, power)


def cast(x: Array, dtype: str) -> Array:
  """Return an array of another type."""
  return x.astype(dtype)


def round_(x: Array, even: bool) -> Array:
  """Return the nearest integers; halves to even ones, or away from 0."""
  kinds = lax.RoundingMethod
  return lax.round(x, kinds.TO_NEAREST_EVEN if even else kinds.AWAY_FROM_ZERO)


def reshape(x: Array, groups: Groups) -> Array:
  """Return an array whose axes are joined and split, by groups."""
  shape: list[int] = []
  for axes, sizes in groups:
    known = -math.prod(sizes) if -1 in sizes else math.prod(sizes)
    rest = math.prod(x.shape[i] for i in axes) // max(1, known)
    shape += [rest if size == -1 else size for size in sizes]
  return x.reshape(shape)


def expand(x: Array, axes: Sizes) -> Array:
  """Return an array with more axes, of size 1."""
  return jnp.expand_dims(x, axes)


def concat(*xs: Array, axis: int) -> Array:
  """Return arrays joined along an axis."""
  return jnp.concatenate(xs, axis)


def slice_(x: Array, begin: Sizes, end: Any, strides: Sizes) -> Array:
  """Return a part of an array; an end that is None is the last."""
  parts = zip(begin, end, strides, strict=True)
  return x[tuple(slice(a, b, step) for a, b, step in parts)]


def dynamic_slice(x: Array, *begin: Array, sizes: Sizes) -> Array:
  """Return a part of an array of given sizes."""
  return lax.dynamic_slice(x, begin, sizes)


def pad(x: Array, value: Array, widths: Pads) -> Array:
  """Return an array with values around and between its entries."""
  return lax.pad(x, value.astype(x.dtype), widths)


def take(x: Array, index: Array, axis: int, mode: str) -> Array:
  """Return entries along an axis."""
  return jnp.take(x, index, axis, mode=mode)


def argument(
  fn: Callable[..., Array], x: Array, axis: int, dtype: str
) -> Array:
  """Return the place of an extreme along an axis."""
  return fn(x, axis).astype(dtype)


def cumulative(
  fn: Callable[..., Array], x: Array, axis: int, reverse: bool
) -> Array:
  """Return sums or products so far along an axis."""
  return fn(x, axis, reverse)


def window(
  name: str,
  x: Array,
  sizes: Sizes,
  strides: Sizes,
  padding: Pads,
  dilation: tuple[Sizes, Sizes],
) -> Array:
  """Return an extreme or a sum over windows.

  A CPU is faster with slices: 0.56 ms instead of 0.99 for the largest of 2x2
  numbers in 64 maps of 24x24x32.
  """
  ones = ((0, 0),) * len(sizes), ((1,) * len(sizes),) * 2
  if (padding, dilation) == ones and math.prod(sizes) <= SLICES:
    return functools.reduce(JOINED[name], _slices(x, sizes, strides))
  fn, start = REDUCTIONS[WINDOWS[name]]
  init = np.asarray(start(x.dtype), x.dtype)
  return lax.reduce_window(x, init, fn, sizes, strides, padding, *dilation)


def _slices(x: Array, sizes: Sizes, strides: Sizes) -> list[Array]:
  """Return an array at each place of windows inside it."""
  ends = [n - size for n, size in zip(x.shape, sizes, strict=True)]
  return [
    lax.slice(
      x, at, [a + n + 1 for a, n in zip(at, ends, strict=True)], strides
    )
    for at in itertools.product(*map(range, sizes))
  ]


def iota(shape: Sizes, axis: int, dtype: str) -> Array:
  """Return the places along an axis."""
  return lax.broadcasted_iota(jnp.dtype(dtype), shape, axis)


def dot(
  x: Array,
  y: Array,
  dims: Any,
  dtype: str | None = None,
  precision: str | None = None,
) -> Array:
  """Return products summed over axes (`jax.lax.dot_general`)."""
  return lax.dot_general(x, y, dims, precision, _dtype(dtype))


def conv(
  x: Array,
  w: Array,
  *bias: Array,
  dims: Any,
  strides: Sizes,
  padding: Pads,
  dilation: tuple[Sizes, Sizes],
  dtype: str | None = None,
  precision: str | None = None,
) -> Array:
  """Return a convolution (`jax.lax.conv_general_dilated`), plus a bias if any.

  The number of groups follows from the channels of input and kernel.
  """
  numbers = lax.ConvDimensionNumbers(*dims)
  groups = x.shape[numbers.lhs_spec[1]] // w.shape[numbers.rhs_spec[1]]
  if dtype is precision is None and _has_taps(x, w, numbers, dilation):
    form = taps.Form(tuple(strides), tuple(padding), groups)
    if taps.is_depthwise(x, w, form) or taps.is_thin(x, w, form, *THIN):
      return sum(bias, taps.convolved(x, w, form))
    if taps.has_columns(x, w, form, w.shape[3]):
      return sum(bias, taps.convolved(x, w, form, taps.by_columns))
  y = lax.conv_general_dilated(
    x,
    w,
    strides,
    padding,
    *dilation,
    numbers,
    groups,
    precision=precision,
    preferred_element_type=_dtype(dtype),
  )
  return sum(bias, y)


def _has_taps(x: Array, w: Array, numbers: Any, dilation: Any) -> bool:
  """Return whether a convolution is of images, in the layout of `taps`."""
  return (
    x.ndim == 4
    and numbers == lax.conv_dimension_numbers(x.shape, w.shape, taps.NHWC)
    and x.dtype == w.dtype == jnp.float32
    and {*dilation[0], *dilation[1]} == {1}
  )


def _dtype(name: str | None) -> Any:
  return None if name is None else jnp.dtype(name)


def reduce(name: str, x: Array, axes: Sizes) -> Array:
  """Return an extreme, sum or product over axes."""
  fn, start = REDUCTIONS[name]
  return lax.reduce(x, np.asarray(start(x.dtype), x.dtype), fn, axes)


def _least(dtype: Any) -> Any:
  if jnp.issubdtype(dtype, jnp.floating):
    return -math.inf
  return -int(jnp.iinfo(dtype).max)


OPERATORS: dict[str, Callable[..., Array]] = {
  **UNARY,
  **BINARY,
  **{name: functools.partial(reduce, name) for name in REDUCTIONS},
  **{name: functools.partial(window, name) for name in WINDOWS},
  'argmax': functools.partial(argument, jnp.argmax),
  'argmin': functools.partial(argument, jnp.argmin),
  'bitcast': lambda x, dtype: lax.bitcast_convert_type(x, jnp.dtype(dtype)),
  'broadcast': lambda x, shape: jnp.broadcast_to(x, shape),
  'cast': cast,
  'concat': concat,
  'conv': conv,
  'cumprod': functools.partial(cumulative, lambda *a: lax.cumprod(*a)),
  'cumsum': functools.partial(cumulative, lambda *a: lax.cumsum(*a)),
  'dot': dot,
  'dynamic_slice': dynamic_slice,
  'expand': expand,
  'ipow': integer_power,
  'iota': iota,
  'pad': pad,
  'reshape': reshape,
  'rev': lambda x, axes: lax.rev(x, axes),
  'round': round_,
  'select': select,
  'slice': slice_,
  'take': take,
  'transpose': lambda x, order: jnp.transpose(x, order),
}


def sized(attrs: Any, count: int) -> Any:
  """Return settings with the number of examples in place of `BATCH`."""
  if isinstance(attrs, Sequence) and not isinstance(attrs, str):
    return tuple(sized(x, count) for x in attrs)
  return count if attrs is None else attrs
