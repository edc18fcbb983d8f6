"""Operators of graphs as ONNX nodes: the table."""

import functools
import math
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tsukiji.deploy.onnx import moves
from tsukiji.deploy.onnx.alignment import alike, plainly
from tsukiji.deploy.onnx.axes import Tensor, number
from tsukiji.deploy.onnx.dot_and_conv import conv, dot
from tsukiji.deploy.onnx.loops import scan
from tsukiji.deploy.onnx.pools import reduced, window
from tsukiji.deploy.onnx.writer import Emit, Writer, unsupported

# Operators whose ONNX node takes the same inputs.
SAME = {
  'abs': 'Abs',
  'add': 'Add',
  'atan': 'Atan',
  'ceil': 'Ceil',
  'cos': 'Cos',
  'cosh': 'Cosh',
  'eq': 'Equal',
  'erf': 'Erf',
  'exp': 'Exp',
  'floor': 'Floor',
  'ge': 'GreaterOrEqual',
  'gt': 'Greater',
  'le': 'LessOrEqual',
  'log': 'Log',
  'logistic': 'Sigmoid',
  'lt': 'Less',
  'min': 'Min',
  'neg': 'Neg',
  'pow': 'Pow',
  'sign': 'Sign',
  'sin': 'Sin',
  'sinh': 'Sinh',
  'sqrt': 'Sqrt',
  'sub': 'Sub',
  'tan': 'Tan',
  'tanh': 'Tanh',
}
LOGICAL = {'and': 'And', 'not': 'Not', 'or': 'Or', 'xor': 'Xor'}
Xs = list[Tensor]


def _same(op: str, w: Writer, xs: Xs, y: Tensor) -> str:
  return w.add(op, *(x.name for x in xs))


def _logical(op: str, w: Writer, xs: Xs, y: Tensor) -> str:
  if y.dtype != np.bool_:
    raise unsupported(op.lower(), f'of {y.dtype}')
  return w.add(op, *(x.name for x in xs))


def _max(w: Writer, xs: Xs, y: Tensor) -> Tensor:
  """Write ReLU by its name, which engines fuse with what is before it."""
  for x, other in (xs, xs[::-1]):
    if number(other) == 0 and x.shape == y.shape:
      return _relu(w, [x], y)
  return _most(w, xs, y)


def _div(w: Writer, xs: Xs, y: Tensor) -> Tensor:
  """Leave the division by a number to what is next."""
  x, by = xs[0], number(xs[1])
  if by and x.value is None and x.is_float and x.shape == y.shape:
    return moves.divide(w, x, y, by)
  return _quotient(w, xs, y)


def _mul(w: Writer, xs: Xs, y: Tensor) -> Tensor:
  """Write a product; of a mean, what is left of its factor."""
  for x, other in (xs, xs[::-1]):
    by = number(other)
    if x.divisor is not None and by and x.shape == y.shape:
      return moves.divide(w, x, y, 1 / by)
  return _product(w, xs, y)


def _number(w: Writer, value: float) -> str:
  return w.constant(value, np.float32).name


def _erfc(w: Writer, xs: Xs, y: Tensor) -> str:
  return w.add('Sub', _number(w, 1), w.add('Erf', xs[0].name))


def _exp2(w: Writer, xs: Xs, y: Tensor) -> str:
  return w.add('Exp', w.add('Mul', xs[0].name, _number(w, math.log(2))))


def _expm1(w: Writer, xs: Xs, y: Tensor) -> str:
  return w.add('Sub', w.add('Exp', xs[0].name), _number(w, 1))


def _log1p(w: Writer, xs: Xs, y: Tensor) -> str:
  return w.add('Log', w.add('Add', xs[0].name, _number(w, 1)))


def _rsqrt(w: Writer, xs: Xs, y: Tensor) -> str:
  return w.add('Reciprocal', w.add('Sqrt', xs[0].name))


def _is_finite(w: Writer, xs: Xs, y: Tensor) -> str:
  odd = w.add('Or', w.add('IsNaN', xs[0].name), w.add('IsInf', xs[0].name))
  return w.add('Not', odd)


def _ne(w: Writer, xs: Xs, y: Tensor) -> str:
  return w.add('Not', w.add('Equal', *(x.name for x in xs)))


def _rem(w: Writer, xs: Xs, y: Tensor) -> str:
  return w.add('Mod', *(x.name for x in xs), fmod=1)


def _power(w: Writer, xs: Xs, y: Tensor, power: int) -> str:
  x = xs[0]
  if power in (2, 3):
    square = w.add('Mul', x.name, x.name)
    return square if power == 2 else w.add('Mul', square, x.name)
  return w.add('Pow', x.name, w.constant(power, x.dtype).name)


def _select(w: Writer, xs: Xs, y: Tensor) -> str:
  which, off, on = xs
  if which.dtype != np.bool_:
    raise unsupported('select', which.dtype)
  return w.add('Where', which.name, on.name, off.name)


def _clip(w: Writer, xs: Xs, y: Tensor, low: float, high: float) -> str:
  return w.add('Clip', xs[0].name, _number(w, low), _number(w, high))


def _bent(op: str, w: Writer, xs: Xs, y: Tensor, alpha: float) -> str:
  return w.add(op, xs[0].name, alpha=alpha)


def _gelu(w: Writer, xs: Xs, y: Tensor) -> str:
  r"""Write $x (1 + \erf(x / \sqrt 2)) / 2$ as engines know it."""
  x = xs[0].name
  bent = w.add('Erf', w.add('Div', x, _number(w, math.sqrt(2))))
  whole = w.add('Mul', x, w.add('Add', bent, _number(w, 1)))
  return w.add('Mul', whole, _number(w, 0.5))


def _prelu(w: Writer, xs: Xs, y: Tensor) -> str:
  x, slope = (x.name for x in xs)
  if xs[0].shape == y.shape:
    return w.add('PRelu', x, slope)
  above = w.add('Greater', x, _number(w, 0))
  return w.add('Where', above, x, w.add('Mul', x, slope))


def _cast(w: Writer, xs: Xs, y: Tensor, dtype: str) -> str:
  del dtype
  return cast(w, xs[0], y)


def cast(w: Writer, x: Tensor, y: Tensor) -> str:
  """Return a tensor in the type of another."""
  if x.is_float and y.is_float:
    return x.name
  kind = np.float32 if y.is_float else y.dtype
  return w.add(
    'Cast', x.name, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind))
  )


def _round(w: Writer, xs: Xs, y: Tensor, even: bool) -> str:
  if even:
    return w.add('Round', xs[0].name)
  half = w.add('Add', w.add('Abs', xs[0].name), _number(w, 0.5))
  return w.add('Mul', w.add('Sign', xs[0].name), w.add('Floor', half))


def _logic(op: str, w: Writer, xs: Xs, y: Tensor, axes: Any) -> str:
  numbers = w.add('Cast', xs[0].name, to=TensorProto.INT32)
  found = w.add(op, numbers, axes=[*axes], keepdims=0)
  return w.add('Cast', found, to=TensorProto.BOOL)


def _argument(
  op: str, w: Writer, xs: Xs, y: Tensor, axis: int, dtype: str
) -> str:
  del dtype
  found = w.add(op, xs[0].name, axis=axis, keepdims=0)
  return cast(w, Tensor(found, (), np.dtype(np.int64)), y)


def _cumsum(w: Writer, xs: Xs, y: Tensor, axis: int, reverse: bool) -> str:
  at = w.constant(axis, np.int64).name
  return w.add('CumSum', xs[0].name, at, reverse=int(reverse))


def _dynamic_slice(w: Writer, xs: Xs, y: Tensor, sizes: Any) -> str:
  x, *begin = xs
  axes = [i for i, n in enumerate(sizes) if n != x.shape[i]]
  if any(sizes[i] is None for i in axes):
    raise unsupported('dynamic_slice', 'of the examples')
  if not axes:
    return x.name
  starts = []
  for i in axes:  # moved so that the part is inside
    at = w.add('Cast', begin[i].name, to=TensorProto.INT64)
    last = w.constant((x.shape[i] or 0) - sizes[i], np.int64).name
    inside = w.add('Max', w.add('Min', at, last), w.constant(0, np.int64).name)
    starts.append(w.add('Unsqueeze', inside, w.integers(0)))
  first = w.add('Concat', *starts, axis=0)
  ends = w.add('Add', first, w.integers(*(sizes[i] for i in axes)))
  return w.add('Slice', x.name, first, ends, w.integers(*axes))


def _rev(w: Writer, xs: Xs, y: Tensor, axes: Any) -> str:
  n = len(axes)
  tables = ([-1] * n, [-(2**31)] * n, axes, [-1] * n)
  return w.add('Slice', xs[0].name, *(w.integers(*t) for t in tables))


def _take(w: Writer, xs: Xs, y: Tensor, axis: int, mode: str) -> str:
  del mode  # ONNX knows no places outside
  return w.add('Gather', xs[0].name, xs[1].name, axis=axis)


def _softmax(w: Writer, xs: Xs, y: Tensor, axis: int) -> Tensor:
  x = w.moved(w.divided(xs[0]), xs[0].axes)
  name = w.add('Softmax', x.name, axis=x.axes.index(axis))
  return y._replace(name=name, order=x.order)


def _layer_norm(
  w: Writer, xs: Xs, y: Tensor, scale: Any, bias: Any, epsilon: float
) -> Tensor:
  """Write a norm over the last axis, whose other axes may lie as they do."""
  last = len(y.shape) - 1
  order = (*(i for i in xs[0].axes if i != last), last)
  x = w.moved(w.divided(xs[0]), order)
  given = [w.constant(a).name for a in (scale, bias) if a is not None]
  name = w.add('LayerNormalization', x.name, *given, axis=-1, epsilon=epsilon)
  return y._replace(name=name, order=x.order)


def _broadcast(w: Writer, xs: Xs, y: Tensor, shape: Any) -> str:
  del shape
  return w.add('Expand', xs[0].name, w.sizes(y.shape))


_most, _product, _quotient, _relu = (
  alike(functools.partial(_same, op)) for op in ('Max', 'Mul', 'Div', 'Relu')
)
REDUCED = {
  'reduce_max': 'ReduceMax',
  'reduce_min': 'ReduceMin',
  'reduce_prod': 'ReduceProd',
  'reduce_sum': 'ReduceSum',
}
ENTRIES: dict[str, Emit] = {
  **{op: functools.partial(_same, name) for op, name in SAME.items()},
  **{op: functools.partial(_logical, name) for op, name in LOGICAL.items()},
  'cast': _cast,
  'clip': _clip,
  'elu': functools.partial(_bent, 'Elu'),
  'erfc': _erfc,
  'exp2': _exp2,
  'expm1': _expm1,
  'gelu': _gelu,
  'ipow': _power,
  'is_finite': _is_finite,
  'leaky_relu': functools.partial(_bent, 'LeakyRelu'),
  'log1p': _log1p,
  'ne': _ne,
  'prelu': _prelu,
  'rem': _rem,
  'round': _round,
  'rsqrt': _rsqrt,
  'select': _select,
}
PLAIN: dict[str, Emit] = {
  'argmax': functools.partial(_argument, 'ArgMax'),
  'argmin': functools.partial(_argument, 'ArgMin'),
  'broadcast': _broadcast,
  'cumsum': _cumsum,
  'dynamic_slice': _dynamic_slice,
  'reduce_and': functools.partial(_logic, 'ReduceMin'),
  'reduce_or': functools.partial(_logic, 'ReduceMax'),
  'rev': _rev,
  'take': _take,
}
EMITTERS: dict[str, Emit] = {
  **{op: alike(emit) for op, emit in ENTRIES.items()},
  **{op: plainly(emit) for op, emit in PLAIN.items()},
  **{op: functools.partial(reduced, name) for op, name in REDUCED.items()},
  **{
    f'reduce_window_{kind}': functools.partial(window, kind)
    for kind in ('max', 'min', 'sum')
  },
  'concat': moves.concat,
  'conv': conv,
  'div': _div,
  'dot': dot,
  'expand': moves.expand,
  'layer_norm': _layer_norm,
  'max': _max,
  'mul': _mul,
  'pad': moves.pad,
  'reshape': moves.reshape,
  'scan': scan,
  'slice': moves.slice_,
  'softmax': _softmax,
  'transpose': moves.transpose,
}
