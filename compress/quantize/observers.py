"""Clipping rules: the fraction of its range that a grid spans.

With few levels, a grid that clips outliers has a smaller error. Every rule
takes columns of values that share a grid and returns the fraction of their
range, in (0, 1], that the grid spans; values outside are clipped to its ends.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from compress.errors import meant, shorten
from compress.quantize import affine
from compress.tree import Array

# Values `[size, ...]`, bits, whether the grid is symmetric -> ratios `[...]`.
Rule: TypeAlias = Callable[[Array, int, bool], Array]
# A name in `RULES`, the fraction of the magnitudes not clipped, or a rule.
Clip: TypeAlias = str | float | Rule

CANDIDATES = 64  # clip ratios that a search evaluates
BINS = 1024  # of the histograms
PERCENTILE = 0.999


def clip_ratio(clip: Clip, values: Array, bits: int, symmetric: bool) -> Array:
  """Return the fraction of its range that the grid of each column spans.

  Args:
    clip: A name in `RULES`, the fraction of the magnitudes not clipped, or a
      rule.
    values: `[size, ...]`, with one grid for each index of the other axes.
    bits: Width of the grid.
    symmetric: Whether the grid is symmetric about 0; else it is that of
      `affine.fake_quantize`.

  Returns:
    Ratios in (0, 1], `[...]`; 1 for columns of zeros.
  """
  if isinstance(clip, str):
    return RULES[clip](values, bits, symmetric)
  if callable(clip):
    return clip(values, bits, symmetric)
  return quantile(values, clip)


def expect(where: str, clip: Clip) -> None:
  """Check a clipping rule.

  Raises:
    ValueError: If it is neither a name in `RULES` nor a fraction.
  """
  if callable(clip):
    return
  known = clip in RULES if isinstance(clip, str) else type(clip) is float
  if not known or (not isinstance(clip, str) and not 0 < clip <= 1):
    hint = f' {meant(clip, RULES)}' if isinstance(clip, str) else ''
    raise ValueError(
      f'{where}: expected a clip of {", ".join(RULES)}, or a fraction of the '
      f'values as 0.999, got {shorten(repr(clip), 60)}.{hint}'
    )


def absmax(values: Array, bits: int, symmetric: bool) -> Array:
  """Do not clip."""
  del bits, symmetric
  return jnp.ones(values.shape[1:], values.dtype)


def quantile(values: Array, inside: float) -> Array:
  """Clip the largest magnitudes, all but a fraction `inside`.

  >>> float(quantile(jnp.array([1.0, -2.0, 3.0, 4.0, -8.0]), 0.75))
  0.5
  """
  size = jnp.abs(values)
  return _ratio(jnp.quantile(size, inside, axis=0), jnp.max(size, axis=0))


def percentile(values: Array, bits: int, symmetric: bool) -> Array:
  """Clip all but `PERCENTILE` of the magnitudes, as TensorRT's calibrator."""
  del bits, symmetric
  return quantile(values, PERCENTILE)


def mse(values: Array, bits: int, symmetric: bool) -> Array:
  r"""Minimize the squared error.

  $\arg\min_r \sum_i (Q_r(x_i) - x_i)^2$ over `CANDIDATES` ratios r (Banner+
  2019, arXiv 1810.05723, section 3.1, with the values themselves in place of a
  fitted density).
  """
  low, high = jnp.min(values, axis=0), jnp.max(values, axis=0)
  largest = jnp.max(jnp.abs(values), axis=0)

  def error(ratio: Array) -> Array:
    if symmetric:
      top = 2 ** (bits - 1) - 1
      scale = _positive(ratio * largest / top)
      found = scale * jnp.clip(jnp.round(values / scale), -top, top)
    else:
      found = affine.fake_quantize(values, ratio * low, ratio * high, bits)
    return jnp.sum((found - values) ** 2, axis=0)

  ratios = _candidates(values.dtype)
  # The largest of equal ratios, so that nothing is clipped without a gain.
  errors = jax.lax.map(error, ratios)[::-1]
  return ratios[::-1][jnp.argmin(errors, axis=0)]


def kl(values: Array, bits: int, symmetric: bool) -> Array:
  r"""Minimize the Kullback-Leibler divergence of the histograms.

  $\arg\min_r D(P_r \| Q_r)$, where P is the histogram of magnitudes with the
  clipped values added to its last bin, and Q is P merged to the levels of the
  grid (Migacz 2017, '8-bit inference with TensorRT', GTC). Nothing is clipped
  from `BINS` levels on. The rule is designed for 8 bits: it disregards the size
  of clipped values, and at 4 bits it clips most activations.
  """
  positive = jnp.all(values >= 0, axis=0) & (not symmetric)
  flat = jnp.abs(values).reshape(len(values), -1).T
  levels = [2 ** (bits - 1), 2**bits]
  found = [
    jax.lax.map(lambda column, n=n: _minimize_kl(column, n), flat)
    for n in levels
  ]
  shape = values.shape[1:]
  return jnp.where(positive, found[1].reshape(shape), found[0].reshape(shape))


def ternary(values: Array, bits: int, symmetric: bool) -> Array:
  r"""Minimize the squared error of a ternary grid, in closed form.

  If the k largest magnitudes become $\pm\alpha$, $\alpha$ their mean, the
  squared error is minimal where $(\sum_{i \le k} |w_i|)^2 / k$ is maximal (Li+
  2016, arXiv 1605.04711, equations 5 and 6, solved exactly). Rounding to the
  nearest of $-\alpha, 0, \alpha$ selects the same k.

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
  return _ratio(alpha, size[0])


RULES: dict[str, Rule] = {
  'absmax': absmax,
  'kl': kl,
  'mse': mse,
  'percentile': percentile,
  'ternary': ternary,
}


def _minimize_kl(size: Array, levels: int) -> Array:
  """Return the clip ratio of the magnitudes `[size]` of least divergence."""
  if levels >= BINS:
    return jnp.ones((), size.dtype)
  index = size / _positive(jnp.max(size)) * BINS
  index = jnp.minimum(jnp.floor(index).astype(jnp.int32), BINS - 1)
  counts = jnp.zeros(BINS, size.dtype).at[index].add(1.0)
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

  stops = jnp.linspace(levels, BINS, CANDIDATES).astype(jnp.int32)[::-1]
  best = stops[jnp.argmin(jax.lax.map(divergence, stops))]
  return best.astype(size.dtype) / BINS


def _candidates(dtype: jnp.dtype) -> Array:
  return jnp.arange(1, CANDIDATES + 1, dtype=dtype) / CANDIDATES


def _ratio(x: Array, largest: Array) -> Array:
  """Return `x / largest` in (0, 1], 1 where either of them is 0."""
  valid = (largest > 0) & (x > 0)
  return jnp.where(valid, x / _positive(largest), 1.0)


def _positive(x: Array) -> Array:
  return jnp.where(x > 0, x, 1.0)
