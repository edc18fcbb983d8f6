"""Products of graphs as ONNX nodes."""

import math
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from tsukiji.deploy.onnx import quantized
from tsukiji.deploy.onnx.axes import Order, Sizes, Tensor, known
from tsukiji.deploy.onnx.fusing import is_dense
from tsukiji.deploy.onnx.quantized import Served
from tsukiji.deploy.onnx.rounding import entered, sizes
from tsukiji.deploy.onnx.writer import Writer, unsupported


def dot(
  w: Writer, xs: list[Tensor], y: Tensor, dims: Any, **attrs: Any
) -> Tensor:
  """Write `jax.lax.dot_general`: a product of matrices, or a sum by letters."""
  a, b = xs
  (a_sum, b_sum), (a_batch, b_batch) = dims
  # The first operand of one matrix may have any axes before its last.
  rows = not b_batch and a_sum == (len(a.shape) - 1,)
  if rows and b.value is not None and len(b.shape) == 2 and is_dense(dims):
    return _dense(w, a, b.value, y, b_sum, **attrs)
  a, b = w.divided(a), w.divided(b)
  a_free = _left(a, a_sum, a_batch)
  b_free = _left(b, b_sum, b_batch)
  # Without shared axes, the free ones of the first operand may stay apart.
  rows_of = [(i,) for i in a_free] if not a_batch else [a_free]
  shared = [(i,) for i in a_batch], [(i,) for i in b_batch]
  left, right = (*shared[0], *rows_of, a_sum), (*shared[1], b_sum, b_free)
  shapes = _joined(a, left), _joined(b, right), y.shape
  if any(shape.count(None) > 1 for shape in shapes):
    names = w.plain(a).name, w.plain(b).name
    name = w.add('Einsum', *names, equation=_equation(a, b, dims))
    return y._replace(name=name)
  name = w.add('MatMul', _matrices(w, a, left), _matrices(w, b, right))
  if len(rows_of) != len(a_free) or len(b_free) != 1:
    name = w.add('Reshape', name, w.inferred(y.shape))
  return y._replace(name=name)


def _joined(x: Tensor, groups: Sequence[Order]) -> Sizes:
  """Return a shape in which axes are joined."""
  sizes = [[x.shape[i] for i in group] for group in groups]
  return tuple(
    None if None in found else math.prod(n or 0 for n in found)
    for found in sizes
  )


def _matrices(w: Writer, x: Tensor, groups: Sequence[Order]) -> str:
  """Return a tensor whose axes are joined."""
  order, shape = tuple(i for g in groups for i in g), _joined(x, groups)
  if x.value is not None:
    return w.array(
      x.value, lambda a: a.transpose(order).reshape(shape), ('joined', groups)
    )
  moved = w.moved(x, order).name
  if shape == tuple(x.shape[i] for i in order):
    return moved
  return w.add('Reshape', moved, w.inferred(shape))


def _dense(
  w: Writer,
  x: Tensor,
  matrix: np.ndarray,
  y: Tensor,
  summed: Order,
  *,
  bias: Any = None,
  kernel: Any = None,
  **attrs: Any,
) -> Tensor:
  """Write a product with a matrix, whose rows stand as the input lies."""
  del attrs  # types and precisions: everything is float32
  if x.places is None:
    x = w.moved(x, range(len(x.shape)))

  def turned(a: np.ndarray) -> np.ndarray:
    a = a.transpose(*summed, 1 - summed[0])
    return a if x.places is None else a[x.places]

  places = None if x.places is None else x.places.tobytes()
  given = entered(w, x, kernel, axis=len(x.shape) - 1)
  if isinstance(kernel, Served):
    weights = _served(w, kernel, turned, axis=1)
  else:
    weights = [w.array(matrix, turned, ('rows', summed, places))]
    weights += [] if bias is None else [w.array(bias, np.asarray, 'bias')]
  plain = bias is None and not isinstance(kernel, Served)
  op = 'MatMul' if plain or len(x.shape) != 2 else 'Gemm'
  name = w.add(op, given.name, *weights)
  gain = sizes(w, x, kernel, axis=len(x.shape) - 1)
  return y._replace(name=w.add('Mul', name, gain) if gain else name)


def _served(w: Writer, kernel: Served, turned: Any, axis: int) -> list[str]:
  """Append integer weights and return the names of the dequantized ones."""
  codes = turned(kernel.codes)
  found = [quantized.dequantized(w.builder, codes, kernel.scale, axis)]
  if kernel.bias is not None:
    bias, unit = kernel.bias, kernel.unit
    found.append(quantized.dequantized(w.builder, bias, unit, 0))
  return found


def _left(x: Tensor, summed: Any, batch: Any) -> tuple[int, ...]:
  """Return the axes that are neither summed over nor shared."""
  return tuple(i for i in range(len(x.shape)) if i not in (*summed, *batch))


def _equation(a: Tensor, b: Tensor, dims: Any) -> str:
  """Return a product by letters, as `ij,jk->ik`."""
  (a_sum, b_sum), (a_batch, b_batch) = dims
  letters = iter(string.ascii_letters)
  left = [next(letters) for _ in a.shape]
  right = [next(letters) for _ in b.shape]
  for i, j in zip((*a_sum, *a_batch), (*b_sum, *b_batch), strict=True):
    right[j] = left[i]
  out = [left[i] for i in (*a_batch, *_left(a, a_sum, a_batch))]
  out += [right[i] for i in _left(b, b_sum, b_batch)]
  return f'{"".join(left)},{"".join(right)}->{"".join(out)}'


def conv(
  w: Writer,
  xs: list[Tensor],
  y: Tensor,
  *,
  dims: Any,
  bias: Any = None,
  kernel: Any = None,
  **attrs: Any,
) -> Tensor:
  """Write a convolution with channels first, or a transposed one."""
  lhs, rhs, out = dims
  x, weight = w.moved(xs[0], lhs), xs[1]
  window = _window(x, weight, dims, **attrs)
  given = entered(w, x, kernel, axis=1)
  if isinstance(kernel, Served):
    weights = _served(w, kernel, lambda a: a.transpose(rhs), axis=0)
  else:
    weights = [w.moved(w.divided(weight), rhs).name]
    weights += [] if bias is None else [w.array(bias, np.asarray, 'bias')]
  if window:
    name = w.add('Conv', given.name, *weights, **window)
  else:
    name = _transposed(w, given, weights, weight, rhs, attrs)
  gain = sizes(w, x, kernel, axis=1, window=window)
  name = w.add('Mul', name, gain) if gain else name
  return y._replace(name=name, order=known(out))


def _window(
  x: Tensor,
  kernel: Tensor,
  dims: Any,
  strides: Any,
  padding: Any,
  dilation: Any,
  **attrs: Any,
) -> dict[str, Any]:
  """Return the settings of a convolution, none of a transposed one."""
  del attrs
  lhs, rhs, _ = dims
  spread, dilated = dilation
  if {*spread} != {1}:
    return {}
  if min(min(p) for p in padding) < 0:
    raise unsupported('conv', f'padding {padding}')
  return {
    'kernel_shape': [kernel.shape[i] for i in rhs[2:]],
    'strides': [*strides],
    'pads': [p[side] for side in (0, 1) for p in padding],
    'dilations': [*dilated],
    'group': (x.shape[lhs[1]] or 1) // (kernel.shape[rhs[1]] or 1),
  }


def _transposed(
  w: Writer,
  x: Tensor,
  weights: list[str],
  kernel: Tensor,
  rhs: Any,
  attrs: Any,
) -> str:
  r"""Write a convolution of spread inputs.

  $y_o = \sum_k x_{(o + kd - a) / s} w_k$ is the transposed convolution with the
  flipped kernel, of which (K - 1) d - a entries are cut at the begin.
  """
  (spread, dilated), padding = attrs['dilation'], attrs['padding']
  sides = [kernel.shape[i] or 1 for i in rhs[2:]]
  cuts = [
    ((n - 1) * d - before, (n - 1) * d - after)
    for n, d, (before, after) in zip(sides, dilated, padding, strict=True)
  ]
  extra = [max(0, -after) for _, after in cuts]
  groups = (x.shape[x.axes[1]] or 1) // (kernel.shape[rhs[1]] or 1)
  odd = min(before for before, _ in cuts) < 0 or groups > 1
  less = all(e < s for e, s in zip(extra, spread, strict=True))
  if odd or {*attrs['strides']} != {1} or not less:
    raise unsupported('conv', f'spread {spread} with padding {padding}')
  n = len(sides)
  axes = range(2, 2 + n)
  tables = ([-1] * n, [-(2**31)] * n, axes, [-1] * n)
  order = (1, 0, *axes)
  flipped = w.add('Transpose', weights[0], perm=[*order])
  flipped = w.add('Slice', flipped, *(w.integers(*t) for t in tables))
  return w.add(
    'ConvTranspose',
    x.name,
    flipped,
    *weights[1:],
    strides=[*spread],
    dilations=[*dilated],
    pads=[max(0, cut[side]) for side in (0, 1) for cut in cuts],
    output_padding=extra,
  )
