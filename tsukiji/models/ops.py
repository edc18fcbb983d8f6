"""Pooling whose gradients are fast in XLA on a CPU.

The mathematics is that of `flax.linen`; only the formulation of the derivative
differs (measured in `benchmarks/train_step.py`), in `custom_jvp` over public
operations, so that both modes of differentiation and `vmap` work as ever.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from tsukiji import taps

Array = jax.Array


def max_pool(x: Array, window: Sequence[int], strides: Sequence[int]) -> Array:
  """Take the maximum over windows: y[b,i,j,c] = max_uv x[b,si+u,tj+v,c].

  Equal maxima of a window share its gradient equally, so that it sums to the
  incoming one; `flax.linen.max_pool` gives all of it to the first of them.

  Args:
    x: Array [batch, height, width, channels].
    window: Height and width of the windows, in pixels.
    strides: Distance between windows along height and width, in pixels.

  Returns:
    Array [batch, (height - window) // stride + 1, ..., channels].

  Raises:
    ValueError: If x, window or strides do not describe such windows.

  >>> max_pool(jnp.arange(4.0).reshape(1, 2, 2, 1), (2, 2), (2, 2)).item()
  3.0
  """
  _check('max_pool', x, window, strides)
  return _max_pool(x, tuple(window), tuple(strides))


def mean_pool(x: Array, window: Sequence[int], strides: Sequence[int]) -> Array:
  """Average over windows: y[b,i,j,c] = mean_uv x[b,si+u,tj+v,c].

  Args, Returns and Raises are those of `max_pool`.

  >>> mean_pool(jnp.arange(4.0).reshape(1, 2, 2, 1), (2, 2), (2, 2)).item()
  1.5
  """
  _check('mean_pool', x, window, strides)
  if _tiles(x, window, strides):
    return _blocks(x, window).mean((2, 4))
  total = functools.reduce(jnp.add, taps.shifts(x, window, strides))
  return total / math.prod(window)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _max_pool(x: Array, window: tuple, strides: tuple) -> Array:
  return functools.reduce(jnp.maximum, taps.shifts(x, window, strides))


@_max_pool.defjvp
def _max_pool_jvp(
  window: tuple, strides: tuple, primals: tuple, tangents: tuple
) -> tuple[Array, Array]:
  (x,), (dx,) = primals, tangents
  y = _max_pool(x, window, strides)
  ties = sum((s == y).astype(x.dtype) for s in taps.shifts(x, window, strides))
  if _tiles(x, window, strides):
    top = _blocks(x, window) == y[:, :, None, :, None]
    dy = jnp.where(top, _blocks(dx, window), 0).sum((2, 4))
  else:
    pairs = zip(
      taps.shifts(x, window, strides),
      taps.shifts(dx, window, strides),
      strict=True,
    )
    dy = functools.reduce(
      jnp.add, [jnp.where(s == y, ds, 0) for s, ds in pairs]
    )
  return y, dy / ties


def _check(
  where: str, x: Array, window: Sequence[int], strides: Sequence[int]
) -> None:
  if (x.ndim, len(window), len(strides)) != (4, 2, 2) or not all(
    1 <= k <= n and s >= 1
    for k, n, s in zip(window, x.shape[1:3], strides, strict=True)
  ):
    raise ValueError(
      f'{where}: expected x [batch, height, width, channels], windows inside '
      f'it and strides from 1, got {x.shape}, {window!r} and {strides!r}. '
      'Pool less, or add the missing axes.'
    )


def _tiles(x: Array, window: Sequence, strides: Sequence) -> bool:
  """Return whether the windows cover x without overlap or remainder."""
  rest = (n % k for n, k in zip(x.shape[1:3], window, strict=True))
  return tuple(window) == tuple(strides) and not any(rest)


def _blocks(x: Array, window: Sequence) -> Array:
  """Reshape to [batch, out height, u, out width, v, channels]."""
  (b, h, w, c), (u, v) = x.shape, window
  return x.reshape(b, h // u, u, w // v, v, c)
