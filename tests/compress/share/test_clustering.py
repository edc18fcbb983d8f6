"""k-means against NumPy, and its starts against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress.share import clustering

VALUES = np.random.default_rng(0).normal(size=200).astype(np.float32)
EVERY = jnp.ones(len(VALUES), bool)


def by_hand(
  values: np.ndarray, centroids: np.ndarray, sweeps: int
) -> np.ndarray:
  """Return Lloyd's centroids, by all distances."""
  for _ in range(sweeps):
    at = np.argmin(np.abs(values[:, None] - centroids), axis=1)
    centroids = np.sort(
      [
        values[at == i].mean() if np.any(at == i) else c
        for i, c in enumerate(centroids)
      ]
    )
  return centroids


@pytest.mark.slow
@pytest.mark.parametrize('start', clustering.STARTS)
def test_lloyd_is_its_definition(start: str) -> None:
  key = jax.random.key(0)
  first = clustering.started(jnp.asarray(VALUES), EVERY, 7, start, key)
  assert np.all(np.diff(first) > 0)
  found = clustering.lloyd(jnp.asarray(VALUES), EVERY, first, 20)
  want = by_hand(VALUES.astype(float), np.asarray(first, float), 20)
  np.testing.assert_allclose(found, want, atol=1e-4)


def test_starts_are_even_in_range_in_rank_or_among_the_values() -> None:
  x = jnp.asarray(VALUES)
  linear = clustering.started(x, EVERY, 5, 'linear', None)
  want = np.linspace(VALUES.min(), VALUES.max(), 5)
  np.testing.assert_allclose(linear, want, rtol=1e-5)
  density = np.asarray(clustering.started(x, EVERY, 4, 'density', None))
  ranks = [int(np.sum(c > VALUES)) for c in density]
  assert ranks == [25, 75, 125, 175]
  drawn = clustering.started(x, EVERY, 6, 'random', jax.random.key(1))
  assert set(np.asarray(drawn).tolist()) <= set(VALUES.tolist())
  with pytest.raises(ValueError, match='expected a key'):
    clustering.started(x, EVERY, 6, 'random', None)


@pytest.mark.parametrize('start', clustering.STARTS)
def test_what_is_left_out_has_no_say(start: str) -> None:
  kept = VALUES > 0.2
  key = jax.random.key(2)
  first = clustering.started(
    jnp.asarray(VALUES), jnp.asarray(kept), 4, start, key
  )
  assert float(first[0]) > 0.19
  found = clustering.lloyd(jnp.asarray(VALUES), jnp.asarray(kept), first)
  want = by_hand(VALUES[kept].astype(float), np.asarray(first, float), 30)
  np.testing.assert_allclose(found, want, atol=1e-4)


def test_an_empty_cluster_stays() -> None:
  values = jnp.array([0.0, 1.0])
  found = clustering.lloyd(
    values, jnp.ones(2, bool), jnp.array([0.0, 1.0, 9.0])
  )
  assert found.tolist() == [0.0, 1.0, 9.0]


@pytest.mark.slow
def test_rows_fall_to_clusters_that_are_there() -> None:
  centers = np.array([[5.0, 0.0], [-5.0, 1.0], [0.0, 9.0]])
  drawn = np.random.default_rng(3)
  rows = np.repeat(centers, 30, axis=0) + 0.1 * drawn.normal(size=(90, 2))
  x = jnp.float32(rows[drawn.permutation(90)])
  best = min(
    float(jnp.sum((x - found[clustering.closest(x, found)]) ** 2))
    for seed in range(4)
    for found in [clustering.lloyd_rows(x, 3, jax.random.key(seed), 10)]
  )
  within = rows.reshape(3, 30, 2)
  want = np.sum((within - within.mean(1, keepdims=True)) ** 2)
  np.testing.assert_allclose(best, want, rtol=1e-3)


def test_one_cluster_of_many_equal_values_is_their_mean() -> None:
  # 2^18 sums of 0.1 in float32 drift by 2e-4; exact is the double's mean.
  values = np.full(2**18, 0.1, np.float32)
  values[::2] += np.float32(0.01)
  want = values.astype(float).mean()
  for first in (values[:1], np.zeros(1, np.float32)):
    found = clustering.lloyd(
      jnp.asarray(values), jnp.ones(len(values), bool), jnp.asarray(first), 2
    )
    np.testing.assert_allclose(found, [want], rtol=1e-6)


def test_rows_have_exact_means() -> None:
  rows = np.full((2**16, 2), [0.1, 3000.1], np.float32)
  rows[::2] += np.float32([0.01, 1.0])
  found = clustering.lloyd_rows(jnp.asarray(rows), 1, jax.random.key(0), 2)
  want = rows.astype(float).mean(axis=0)
  np.testing.assert_allclose(found, [want], rtol=1e-6)


def test_members_are_counted_in_integers() -> None:
  assigned = jnp.arange(1000) % 3
  values = jnp.where(assigned == 2, jnp.nan, 7.0)
  found = clustering.means(values, assigned, jnp.zeros(3), assigned < 2)
  assert found.tolist() == [7.0, 7.0, 0.0]
