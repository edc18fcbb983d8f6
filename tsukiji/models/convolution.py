"""Convolution whose gradients are fast in XLA on a CPU.

The mathematics is that of `jax.lax`; only the formulation differs (measured in
`benchmarks/train_step.py`). Everything is `custom_jvp` over public operations,
so both modes of differentiation, `vmap` and derivatives of derivatives work as
ever.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from tsukiji import taps

Array = jax.Array

_CHUNK = 16  # images: their patches stay in a 2 MB L2 cache
_MAX_CHUNKS = 8  # bounds compilation, which grows with every chunk
_PADDED = 1.1  # width in / out: columns gain at 16 / 14, lose at 32 / 30
_TAPS = 900  # weights of few channels that XLA's fused loop multiplies faster


def conv_general_dilated(
  lhs: Array,
  rhs: Array,
  window_strides: Sequence[int],
  padding: str | Sequence[tuple[int, int]],
  lhs_dilation: Sequence[int] | None = None,
  rhs_dilation: Sequence[int] | None = None,
  dimension_numbers: Any = None,
  **others: Any,
) -> Array:
  """Convolve as `lax.conv_general_dilated`, with gradients made for a CPU.

  Reformulated are 2-D NHWC convolutions in float32

  - of a filter a channel, or of few channels and stride 1: on a CPU they are
    sums of shifted images times weights, one fused loop;
  - of stride 1, ungrouped: few filters by columns of the window, on a CPU
    (`taps`), and gradients as in `_conv_jvp`, on a single CPU device, since
    chunks would reshard a sharded batch.

  All others are `lax.conv_general_dilated` itself. For `flax.linen.Conv(...,
  conv_general_dilated=conv_general_dilated)`.

  Args:
    lhs: Images, [batch, height, width, channels] to be fast.
    rhs: Kernel, [height, width, channels, filters] to be fast.
    window_strides: See `lax.conv_general_dilated`, as for all that follow.
    padding: As there.
    lhs_dilation: As there.
    rhs_dilation: As there.
    dimension_numbers: As there.
    **others: As there: groups, precision, element type and sharding.

  Returns:
    Array [batch, out height, out width, filters].
  """
  spec = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
  groups = others.get('feature_group_count', 1)
  more = [v for key, v in others.items() if key != 'feature_group_count']
  usual = (
    lhs.ndim == 4
    and spec == lax.conv_dimension_numbers(lhs.shape, rhs.shape, taps.NHWC)
    and not any(v not in (None, 1) for v in more)
    and all(set(d or (1,)) == {1} for d in (lhs_dilation, rhs_dilation))
  )
  if usual:
    if isinstance(padding, str):
      padding = lax.padtype_to_pads(
        lhs.shape[1:3], rhs.shape[:2], window_strides, padding
      )
    form = taps.Form(tuple(window_strides), tuple(padding), groups)
    is_plain = form.strides == (1, 1) and groups == 1
    is_wide = lhs.dtype == rhs.dtype == jnp.float32
    is_depthwise = taps.is_depthwise(lhs, rhs, form)
    is_thin = taps.is_thin(lhs, rhs, form, filters=_TAPS, most=_TAPS)
    if is_wide and (is_depthwise or is_thin):
      return _conv_by_taps(lhs, rhs, form)
    alone = jax.default_backend() == 'cpu' and jax.device_count() == 1
    if is_wide and is_plain and alone:
      return _conv(lhs, rhs, form)
  return lax.conv_general_dilated(
    lhs,
    rhs,
    window_strides,
    padding,
    lhs_dilation,
    rhs_dilation,
    dimension_numbers,
    **others,
  )


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _conv_by_taps(x: Array, w: Array, form: taps.Form) -> Array:
  return taps.convolved(x, w, form)


@functools.partial(_conv_by_taps.defjvp, symbolic_zeros=True)
def _conv_by_taps_jvp(
  form: taps.Form, primals: tuple, tangents: tuple
) -> tuple[Array, Array]:
  (x, w), (dx, dw) = primals, tangents
  # The gradients of few channels that are not grouped are faster in XLA.
  product = taps.convolved if form.groups > 1 else taps.plain
  dy = [] if isinstance(dx, SymbolicZero) else [product(dx, w, form)]
  dy += [] if isinstance(dw, SymbolicZero) else [product(x, dw, form)]
  return _conv_by_taps(x, w, form), functools.reduce(jnp.add, dy)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _conv(x: Array, w: Array, form: taps.Form) -> Array:
  if taps.has_columns(x, w, form, w.shape[3]):
    return taps.convolved(x, w, form, taps.by_columns)
  return taps.plain(x, w, form)


@functools.partial(_conv.defjvp, symbolic_zeros=True)
def _conv_jvp(
  form: taps.Form, primals: tuple, tangents: tuple
) -> tuple[Array, Array]:
  """Differentiate so that the transpose, the gradient, is fast.

  The transpose of `_of_columns` is `taps.by_columns`, for few channels and
  where a VALID gradient would multiply the zeros by which its width is padded.
  That of chunks adds up weight gradients whose patches stay in the cache.
  """
  (x, w), (dx, dw) = primals, tangents
  dy: list[Array] = []
  if not isinstance(dx, SymbolicZero):
    narrow = taps.has_columns(x, w, form, x.shape[3])
    inside = not any(map(any, form.padding))
    padded = x.shape[2] > _PADDED * (x.shape[2] - w.shape[1] + 1)
    by_columns = narrow or (inside and padded)
    dy.append((_of_columns if by_columns else taps.plain)(dx, w, form))
  if not isinstance(dw, SymbolicZero):
    small = max(w.shape[2:]) <= taps.NARROW
    dy.append((taps.plain if small else _by_chunks)(x, dw, form))
  return _conv(x, w, form), functools.reduce(jnp.add, dy)


def _by_chunks(x: Array, w: Array, form: taps.Form) -> Array:
  """Convolve chunks of the batch, so that the weight gradient is their sum."""
  size = max(_CHUNK, -(-len(x) // _MAX_CHUNKS))
  parts = [taps.plain(x[i : i + size], w, form) for i in range(0, len(x), size)]
  return jnp.concatenate(parts)


def _of_columns(x: Array, w: Array, form: taps.Form) -> Array:
  """Convolve [kh, 1] windows over channels that hold the kw shifts of x."""
  kh, kw, c, f = w.shape
  high, wide = form.padding
  x = jnp.pad(x, ((0, 0), (0, 0), wide, (0, 0)))
  width = x.shape[2] - kw + 1
  shifts = [x[:, :, j : j + width] for j in range(kw)]
  columns = lax.optimization_barrier(jnp.concatenate(shifts, axis=-1))
  tall = taps.Form((1, 1), (high, (0, 0)))
  return taps.plain(columns, w.reshape(kh, 1, kw * c, f), tall)
