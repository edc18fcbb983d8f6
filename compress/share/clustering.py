"""Lloyd's algorithm for values and for rows, with exact means."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from compress.tree import Array, Key

STARTS = ('linear', 'density', 'random')
SWEEPS = 30  # of Lloyd's algorithm
MAX_DISTANCES = 2**22  # held at once
BLOCK = 512  # values that are added up without compensation


def started(
  values: Array, kept: Array, count: int, start: str, key: Key | None
) -> Array:
  """Return the initial centroids of one-dimensional values, in rising order.

  Han+ 2016 (arXiv 1510.00149, section 3.2).

  Args:
    values: `[n]`.
    kept: Which of them count, `[n]` bool.
    count: Number of centroids.
    start: 'linear' spaces them evenly from the smallest value to the largest,
      'density' so that equally many values lie between them, 'random' draws
      them from the values.
    key: For 'random'.

  Returns:
    `[count]`.

  Raises:
    ValueError: If 'random' has no key.
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
  r"""Return centroids that minimize $\sum_i (w_i - c_{a_i})^2$, rising.

  Lloyd's algorithm; the centroid of an empty cluster stays.

  Args:
    values: `[n]`.
    kept: Which of them count, `[n]` bool.
    centroids: `[count]`, rising.
    sweeps: Number of iterations.

  Returns:
    `[count]` float32.
  """

  def sweep(_: int, centroids: Array) -> Array:
    at = nearest(values, centroids)
    return jnp.sort(means(values, at, centroids, kept))

  values = values.astype(jnp.float32)
  first = centroids.astype(jnp.float32)
  found: Array = jax.lax.fori_loop(0, sweeps, sweep, first)
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
    batch_size=max(1, MAX_DISTANCES // math.prod(centroids.shape)),
  )


def lloyd_rows(
  rows: Array, count: int, key: Key, sweeps: int = SWEEPS
) -> Array:
  """Return the centroids of rows, as `lloyd`, from rows drawn at random.

  Args:
    rows: `[n, length]`.
    count: Number of centroids, at most n.
    key: Of the first centroids.
    sweeps: As `lloyd`.

  Returns:
    `[count, length]` float32.
  """
  rows = rows.astype(jnp.float32)
  drawn = jnp.argsort(jax.random.uniform(key, (len(rows),)))[:count]

  def sweep(_: int, centroids: Array) -> Array:
    return means(rows, closest(rows, centroids), centroids)

  found: Array = jax.lax.fori_loop(0, sweeps, sweep, rows[drawn])
  return found


def means(
  values: Array,
  assigned: Array,
  centroids: Array,
  kept: Array | None = None,
) -> Array:
  r"""Return the mean of each cluster, or its centroid if it is empty.

  $c + \mathrm{mean}(v - c)$: the sums are of small numbers of both signs. They
  are taken over `BLOCK` values at a time and added up with the error of each
  addition carried along (Knuth's two-sum), and members are counted in integers;
  one float32 sum over millions of values would drift, and stop counting at
  2^24.

  Args:
    values: `[n]` or `[n, length]`.
    assigned: The cluster of each value, `[n]`.
    centroids: `[count]` or `[count, length]`, near the means.
    kept: Which values count, `[n]` bool; None is all.

  Returns:
    float32, the shape of `centroids`.
  """
  n = len(values)
  kept = jnp.ones(n, bool) if kept is None else kept
  centroids = centroids.astype(jnp.float32)

  def blocks(x: Array, fill: Any) -> Array:
    short = [(0, -n % BLOCK)] + [(0, 0)] * (x.ndim - 1)
    padded = jnp.pad(x, short, constant_values=fill)
    return padded.reshape(-1, BLOCK, *x.shape[1:])

  def add(
    carry: tuple[Array, Array, Array], block: tuple[Array, Array, Array]
  ) -> tuple[tuple[Array, Array, Array], None]:
    total, error, number = carry
    x, at, here = block
    apart = x.astype(jnp.float32) - centroids[at]
    apart = jnp.where(here.reshape(-1, *(1,) * (x.ndim - 1)), apart, 0.0)
    part = jnp.zeros_like(centroids).at[at].add(apart)
    new = total + part
    taken = new - total
    lost = (total - (new - taken)) + (part - taken)
    return (new, error + lost, number.at[at].add(here)), None

  zeros = jnp.zeros_like(centroids)
  (total, error, number), _ = jax.lax.scan(
    add,
    (zeros, zeros, jnp.zeros(len(centroids), jnp.int32)),
    (blocks(values, 0), blocks(assigned, 0), blocks(kept, False)),
  )
  number = number.reshape(-1, *(1,) * (centroids.ndim - 1))
  shift = (total + error) / jnp.maximum(number, 1)
  return jnp.where(number > 0, centroids + shift, centroids)
