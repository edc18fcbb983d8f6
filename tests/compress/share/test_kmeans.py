"""Shared values: the nearest of a few, exact zeros, summed gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import tree
from compress.share.codebook import Shared
from tests.two_layers import PARAMS, init

DRAWN = np.random.default_rng(1)


def test_each_weight_is_the_nearest_of_its_layers_values() -> None:
  done = init('share.kmeans(5)')
  assert done['fc']['bias'] is PARAMS['fc']['bias']
  for path, node in tree.find(Shared, done).items():
    w = np.asarray(tree.paths(PARAMS)[path])
    values = np.asarray(node.values)
    assert node.index.dtype == np.uint8
    near = values[np.argmin(np.abs(w[..., None] - values), axis=-1)]
    np.testing.assert_array_equal(node.decode(), near)


def test_the_gradient_of_a_value_is_the_sum_over_its_weights() -> None:
  node = init('share.kmeans(bits=2)')['fc']['kernel']
  dense = jnp.float32(DRAWN.normal(size=node.index.shape))
  trainable, frozen = tree.split(node)
  _, pull = jax.vjp(lambda f: tree.decode(tree.merge(f, frozen)), trainable)
  index = np.asarray(node.index)
  want = [np.asarray(dense)[index == i + 1].sum() for i in range(4)]
  np.testing.assert_allclose(pull(dense)[0].values, want, rtol=1e-4)


def test_deep_compression_keeps_zeros_and_clusters_the_rest() -> None:
  done = init('prune.weights(0.8) >> share.kmeans(bits=2)')
  for path, node in tree.paths(tree.freeze(done)).items():
    if not path.endswith('kernel'):
      continue
    w = np.asarray(tree.paths(PARAMS)[path])
    gone = np.argsort(np.abs(w), axis=None)[: round(0.8 * w.size)]
    got = np.asarray(node.decode())
    assert isinstance(node, Shared)
    assert not got.flat[gone].any()
    assert np.count_nonzero(got) == w.size - len(gone)
    # Zeros do not draw the centroids: each is the mean of what it stands for.
    index = np.asarray(node.index)
    for i in range(4):
      mine = w[index == i + 1]
      if mine.size:
        np.testing.assert_allclose(node.values[i], mine.mean(), rtol=1e-4)


@pytest.mark.parametrize('axis', [0, 1])
def test_zeros_around_are_indices_of_zero(axis: int) -> None:
  node = init('share.kmeans(5)')['fc']['kernel'].scale_channels(
    jnp.arange(1.0, 7.0)
  )
  keep, size = jnp.arange(node.index.shape[axis]) + 1, 12
  want = tree.scattered(node.decode(), keep, axis, size)
  np.testing.assert_array_equal(node.scatter(keep, axis, size).decode(), want)
