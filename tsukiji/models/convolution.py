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

  Reformulated are 2-D NHWC convolutions in float32 that

  - have a filter a channel, or few channels and stride 1: on a CPU they are
    sums of shifted images times weights, one fused loop;
  - are VALID, ungrouped and of stride 1, on a single CPU device (chunks would
    reshard a sharded batch): see `_conv`.

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
    if is_plain and alone and not any(map(any, padding)):
      return _conv(lhs, rhs)
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


def _valid(x: Array, w: Array) -> Array:
  return lax.conv_general_dilated(
    x, w, (1, 1), 'VALID', dimension_numbers=taps.NHWC
  )


@jax.custom_jvp
def _conv(x: Array, w: Array) -> Array:
  return _valid(x, w)


@functools.partial(_conv.defjvp, symbolic_zeros=True)
def _conv_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
  (x, w), (dx, dw) = primals, tangents
  dy: list[Array] = []
  if not isinstance(dx, SymbolicZero):
    padded = x.shape[2] > _PADDED * (x.shape[2] - w.shape[1] + 1)
    dy.append((_by_columns if padded else _valid)(dx, w))
  if not isinstance(dw, SymbolicZero):
    dy.append(_by_chunks(x, dw))
  return _conv(x, w), functools.reduce(jnp.add, dy)


def _by_chunks(x: Array, w: Array) -> Array:
  """Convolve chunks of the batch, so that the weight gradient is their sum."""
  size = max(_CHUNK, -(-len(x) // _MAX_CHUNKS))
  parts = [_valid(x[i : i + size], w) for i in range(0, len(x), size)]
  return jnp.concatenate(parts)


def _by_columns(x: Array, w: Array) -> Array:
  """Convolve [kh, 1] windows over channels that hold the kw shifts of x.

  The gradient in x then convolves height only and adds kw shifted arrays: the
  zeros by which a VALID gradient pads its width are never multiplied.
  """
  kh, kw, c, f = w.shape
  width = x.shape[2] - kw + 1
  shifts = [x[:, :, j : j + width] for j in range(kw)]
  columns = lax.optimization_barrier(jnp.concatenate(shifts, axis=-1))
  return _valid(columns, w.reshape(kh, 1, kw * c, f))
