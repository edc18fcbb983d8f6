"""Clips: how much of its range a grid should span.

Few levels are better spent where most values are. Every rule takes columns of
values that share a grid and returns the share of their range, in (0, 1], that
costs least; what is beyond it goes to the ends of the grid.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from compress.quantize import affine
from compress.tree import Array

Clip: TypeAlias = str | float  # a name of `RULES`, or the share of values kept
# Values `[size, ...]`, bits, whether the grid is symmetric -> shares `[...]`.
Rule: TypeAlias = Callable[[Array, int, bool], Array]

TRIED = 64  # shares that are tried
BINS = 1024  # of the histograms
PERCENTILE = 0.999


def share(clip: Clip, values: Array, bits: int, symmetric: bool) -> Array:
  """Return the part of its range that the grid of each column should span.

  Args:
    clip: One of `RULES`, or the share of the magnitudes that stay inside.
    values: `[size, ...]`: a grid for each entry behind the first axis.
    bits: Width of the grid.
    symmetric: Whether the grid is, about 0; else it is `grid.affine`.

  Returns:
    Shares in (0, 1], `[...]`; 1 for values that are all 0.
  """
  if isinstance(clip, str):
    return RULES[clip](values, bits, symmetric)
  return quantile(values, clip)


def expect(where: str, clip: Clip) -> None:
  """Check a rule.

  Raises:
    ValueError: If it is neither a name of `RULES` nor a share.
  """
  known = clip in RULES if isinstance(clip, str) else type(clip) is float
  if not known or (not isinstance(clip, str) and not 0 < clip <= 1):
    raise ValueError(
      f'{where}: expected a clip of {", ".join(RULES)}, or the share of values '
      f'inside as 0.999, got {clip!r}.'
    )


def absmax(values: Array, bits: int, symmetric: bool) -> Array:
  """Clip nothing."""
  del bits, symmetric
  return jnp.ones(values.shape[1:], values.dtype)


def quantile(values: Array, inside: float) -> Array:
  """Clip the largest magnitudes, so that a share of the values stays inside.

  >>> float(quantile(jnp.array([1.0, -2.0, 3.0, 4.0, -8.0]), 0.75))
  0.5
  """
  size = jnp.abs(values)
  return _part(jnp.quantile(size, inside, axis=0), jnp.max(size, axis=0))


def percentile(values: Array, bits: int, symmetric: bool) -> Array:
  """Clip all but `PERCENTILE` of the values (as TensorRT's calibrator does)."""
  del bits, symmetric
  return quantile(values, PERCENTILE)


def mse(values: Array, bits: int, symmetric: bool) -> Array:
  r"""Clip where the squared error is least.

  $\arg\min_r \sum_i (Q_r(x_i) - x_i)^2$ over `TRIED` shares r (Banner+ 2019,
  arXiv 1810.05723, section 3.1, with the values themselves in place of a fitted
  density).
  """
  low, high = jnp.min(values, axis=0), jnp.max(values, axis=0)
  most = jnp.max(jnp.abs(values), axis=0)

  def error(part: Array) -> Array:
    if symmetric:
      top = 2 ** (bits - 1) - 1
      scale = _positive(part * most / top)
      found = scale * jnp.clip(jnp.round(values / scale), -top, top)
    else:
      found = affine.affine(values, part * low, part * high, bits)
    return jnp.sum((found - values) ** 2, axis=0)

  parts = _tried(values.dtype)
  # Of equals the largest, so that nothing is clipped without a gain.
  errors = jax.lax.map(error, parts)[::-1]
  return parts[::-1][jnp.argmin(errors, axis=0)]


def kl(values: Array, bits: int, symmetric: bool) -> Array:
  r"""Clip where the histogram loses the least information.

  $\arg\min_r D(P_r \| Q_r)$, P the histogram of magnitudes with what is clipped
  added to its last bin, Q the same merged to the levels of the grid (Migacz
  2017, '8-bit inference with TensorRT', GTC; no clip from `BINS` levels on).
  It is made for 8 bits: how large what is clipped was counts for nothing, and
  at 4 bits it clips most of what layers take in.
  """
  positive = jnp.all(values >= 0, axis=0) & (not symmetric)
  flat = jnp.abs(values).reshape(len(values), -1).T
  levels = [2 ** (bits - 1), 2**bits]
  found = [
    jax.lax.map(lambda column, n=n: _least_kl(column, n), flat) for n in levels
  ]
  shape = values.shape[1:]
  return jnp.where(positive, found[1].reshape(shape), found[0].reshape(shape))


def ternary(values: Array, bits: int, symmetric: bool) -> Array:
  r"""Clip at the best step of a ternary grid, in closed form.

  With the k largest magnitudes at $\pm\alpha$, $\alpha$ their mean, the squared
  error is least where $(\sum_{i \le k} |w_i|)^2 / k$ is most (Li+ 2016, arXiv
  1605.04711, equations 5 and 6, solved exactly). Rounding to the nearest of
  $-\alpha, 0, \alpha$ gives those k.

  >>> float(ternary(jnp.array([4.0, -2.0, 0.5, 0.0]), 2, True))
  0.75
  """
  del bits, symmetric
  size = jnp.sort(jnp.abs(values), axis=0)[::-1]
  sums = jnp.cumsum(size, axis=0)
  count = jnp.arange(1, len(values) + 1, dtype=values.dtype)
  means = sums / count.reshape(-1, *[1] * (values.ndim - 1))
  best = jnp.argmax(sums * means, axis=0)
  alpha = jnp.take_along_axis(means, best[None], axis=0)[0]
  return _part(alpha, size[0])


RULES: dict[str, Rule] = {
  'absmax': absmax,
  'kl': kl,
  'mse': mse,
  'percentile': percentile,
  'ternary': ternary,
}


def _least_kl(size: Array, levels: int) -> Array:
  """Return the share of the magnitudes `[size]` of least divergence."""
  if levels >= BINS:
    return jnp.ones((), size.dtype)
  most = jnp.max(size)
  place = jnp.floor(size / _positive(most) * BINS).astype(jnp.int32)
  counts = jnp.zeros(BINS, size.dtype).at[jnp.minimum(place, BINS - 1)].add(1.0)
  counts = counts.at[0].set(0.0)  # exact zeros are exact on every grid
  bins = jnp.arange(BINS)

  def divergence(stop: Array) -> Array:
    inside = jnp.where(bins < stop, counts, 0.0)
    beyond = jnp.sum(counts) - jnp.sum(inside)
    p = inside.at[stop - 1].add(beyond)
    level = jnp.minimum(bins * levels // stop, levels - 1)
    used = jnp.where(p > 0, jnp.where(bins < stop, 1.0, 0.0), 0.0)
    merged, filled = (
      jnp.zeros(levels, size.dtype).at[level].add(x) for x in (inside, used)
    )
    q = used * (merged / jnp.maximum(filled, 1.0))[level]
    p, q = p / _positive(jnp.sum(p)), q / _positive(jnp.sum(q))
    small = jnp.finfo(size.dtype).tiny
    ratio = jnp.log(jnp.maximum(p, small)) - jnp.log(jnp.maximum(q, small))
    return jnp.sum(jnp.where(p > 0, p * ratio, 0.0))

  stops = jnp.linspace(levels, BINS, TRIED).astype(jnp.int32)[::-1]
  best = stops[jnp.argmin(jax.lax.map(divergence, stops))]
  return best.astype(size.dtype) / BINS


def _tried(dtype: jnp.dtype) -> Array:
  return jnp.arange(1, TRIED + 1, dtype=dtype) / TRIED


def _part(x: Array, whole: Array) -> Array:
  """Return `x / whole` in (0, 1], 1 where the whole or the part is 0."""
  right = (whole > 0) & (x > 0)
  return jnp.where(right, x / _positive(whole), 1.0)


def _positive(x: Array) -> Array:
  return jnp.where(x > 0, x, 1.0)
