"""k-means: few values, or few rows, that stand for many."""

import math

import jax
import jax.numpy as jnp

from compress.tree import Array, Key

STARTS = ('linear', 'density', 'random')
SWEEPS = 30  # of Lloyd's algorithm
AT_ONCE = 2**22  # distances held at once


def started(
  values: Array, kept: Array, count: int, start: str, key: Key | None
) -> Array:
  """Return the first centroids of one-dimensional values, rising.

  Han+ 2016 (arXiv 1510.00149, section 3.2).

  Args:
    values: `[n]`.
    kept: Which of them count, `[n]` bool.
    count: How many centroids.
    start: 'linear' spaces them evenly from the least value to the largest,
      'density' so that equally many values are between them, 'random' draws
      them from the values.
    key: Of what is drawn.

  Returns:
    `[count]`.

  Raises:
    ValueError: If something is to be drawn without a key.
  """
  if start == 'linear':
    low = jnp.min(jnp.where(kept, values, jnp.inf))
    high = jnp.max(jnp.where(kept, values, -jnp.inf))
    return low + (high - low) * jnp.linspace(0.0, 1.0, count)
  if start == 'density':
    order = jnp.sort(jnp.where(kept, values, jnp.inf))
    at = (jnp.arange(count) + 0.5) / count * jnp.sum(kept)
    return order[at.astype(jnp.int32)]
  if key is None:
    raise ValueError(
      "share.kmeans: expected a key in the context with start='random', got "
      'None. Pass Ctx(key=jax.random.key(seed)).'
    )
  lot = jnp.where(kept, jax.random.uniform(key, values.shape), jnp.inf)
  return jnp.sort(values[jnp.argsort(lot)[:count]])


def nearest(values: Array, centroids: Array) -> Array:
  """Return the index of the nearest of rising centroids for each value.

  >>> nearest(jnp.array([0.2, 0.9, 7.0]), jnp.array([0.0, 1.0, 2.0])).tolist()
  [0, 1, 2]
  """
  between = (centroids[1:] + centroids[:-1]) / 2
  return jnp.searchsorted(between, values)


def lloyd(
  values: Array, kept: Array, centroids: Array, sweeps: int = SWEEPS
) -> Array:
  r"""Return centroids that minimise $\sum_i (w_i - c_{a_i})^2$, rising.

  Lloyd's algorithm; a centroid that nothing is nearest to stays.

  Args:
    values: `[n]`.
    kept: Which of them count, `[n]` bool.
    centroids: `[count]`, rising.
    sweeps: How often values are assigned and centroids moved.

  Returns:
    `[count]`.
  """

  def sweep(_: int, centroids: Array) -> Array:
    return jnp.sort(_means(values, nearest(values, centroids), kept, centroids))

  found: Array = jax.lax.fori_loop(0, sweeps, sweep, centroids)
  return found


def closest(rows: Array, centroids: Array) -> Array:
  """Return the index of the nearest centroid for each row.

  Args:
    rows: `[n, length]`.
    centroids: `[count, length]`.

  Returns:
    `[n]` int32.
  """
  square = jnp.sum(centroids**2, axis=1)
  return jax.lax.map(
    lambda row: jnp.argmin(square - 2 * centroids @ row).astype(jnp.int32),
    rows,
    batch_size=max(1, AT_ONCE // math.prod(centroids.shape)),
  )


def lloyd_rows(
  rows: Array, count: int, key: Key, sweeps: int = SWEEPS
) -> Array:
  """Return centroids of rows: as `lloyd`, from rows drawn at random.

  Args:
    rows: `[n, length]`.
    count: How many centroids, at most n.
    key: Of what is drawn.
    sweeps: As `lloyd`.

  Returns:
    `[count, length]`.
  """
  every = jnp.ones(len(rows), bool)
  drawn = jnp.argsort(jax.random.uniform(key, (len(rows),)))[:count]

  def sweep(_: int, centroids: Array) -> Array:
    return _means(rows, closest(rows, centroids), every, centroids)

  found: Array = jax.lax.fori_loop(0, sweeps, sweep, rows[drawn])
  return found


def _means(
  values: Array, assigned: Array, kept: Array, centroids: Array
) -> Array:
  """Return the mean of each cluster, or its centroid if it is empty."""
  weight = kept.astype(values.dtype)
  number = jnp.zeros(len(centroids)).at[assigned].add(weight)
  each = weight.reshape(-1, *(1,) * (values.ndim - 1))
  total = jnp.zeros_like(centroids).at[assigned].add(values * each)
  number = number.reshape(-1, *(1,) * (values.ndim - 1))
  return jnp.where(number > 0, total / jnp.maximum(number, 1), centroids)
