"""Shared weights: few values, exact zeros, summed gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe, tree
from compress.method import Ctx
from compress.share import codebook
from compress.share.codebook import Hashed, Products, Shared

DRAWN = np.random.default_rng(0)
PARAMS = {
  'conv': {'kernel': jnp.float32(DRAWN.normal(size=(3, 3, 2, 4)))},
  'fc': {
    'bias': jnp.ones(6),
    'kernel': jnp.float32(DRAWN.normal(size=(10, 6))),
  },
}
CTX = Ctx(0, 9, jax.random.key(0))


def init(text: str) -> Any:
  return recipe.parse(text).init(PARAMS, CTX)


def test_each_weight_is_the_nearest_of_its_layers_values() -> None:
  done = init('share.kmeans(5)')
  assert done['fc']['bias'] is PARAMS['fc']['bias']
  for path, node in tree.find(Shared, done).items():
    w = np.asarray(tree.paths(PARAMS)[path])
    values = np.asarray(node.values)
    assert node.index.dtype == np.uint8
    near = values[np.argmin(np.abs(w[..., None] - values), axis=-1)]
    np.testing.assert_array_equal(node.decode(None), near)


def test_the_gradient_of_a_value_is_the_sum_over_its_weights() -> None:
  node = init('share.kmeans(bits=2)')['fc']['kernel']
  dense = jnp.float32(DRAWN.normal(size=node.index.shape))
  free, held = tree.split(node)
  _, pull = jax.vjp(lambda f: tree.decode(tree.merge(f, held)), free)
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
    got = np.asarray(node.decode(None))
    assert isinstance(node, Shared)
    assert not got.flat[gone].any()
    assert np.count_nonzero(got) == w.size - len(gone)
    # Zeros do not draw the centroids: each is the mean of what it stands for.
    index = np.asarray(node.index)
    for i in range(4):
      mine = w[index == i + 1]
      if mine.size:
        np.testing.assert_allclose(node.values[i], mine.mean(), rtol=1e-4)


def test_pieces_are_codewords() -> None:
  node = init('share.product(3, 4, codebooks=2)')['fc']['kernel']
  assert isinstance(node, Products)
  assert node.values.shape == (2, 3, 4)
  assert node.index.shape == (3, 6)
  got = np.pad(np.asarray(node.decode(None)), ((0, 2), (0, 0)))
  for piece, channel in np.ndindex(3, 6):
    book = piece * 2 // 3
    word = np.array(node.values[book, node.index[piece, channel]])
    if piece == 2:
      word[2:] = 0  # the last piece is half beyond the inputs
    np.testing.assert_array_equal(got[4 * piece : 4 * piece + 4, channel], word)


def test_a_hash_gives_each_bucket_its_best_value() -> None:
  node = init('share.hashed(0.25)')['fc']['kernel']
  assert isinstance(node, Hashed)
  at, sign = map(np.asarray, codebook.hashes((10, 6), 15, node.seed))
  w = np.asarray(PARAMS['fc']['kernel'])
  for bucket in range(15):
    mine = (sign * w)[at == bucket]
    want = mine.mean() if mine.size else 0
    np.testing.assert_allclose(node.values[bucket], want, atol=1e-6)
  np.testing.assert_array_equal(node.decode(None), node.values[at] * sign)
  assert init('share.hashed(0.25)')['conv']['kernel'].seed != node.seed


def test_hashes_are_even_and_the_same_for_ever() -> None:
  at, sign = codebook.hashes((100, 100), 16, 5)
  count = np.bincount(np.asarray(at).ravel(), minlength=16)
  assert np.all(np.abs(count - 625) < 5 * np.sqrt(625))
  assert abs(float(jnp.mean(sign))) < 0.05
  assert abs(float(np.corrcoef(np.ravel(at), np.ravel(sign))[0, 1])) < 0.05


@pytest.mark.parametrize(
  'text', ['share.kmeans(5)', 'share.product(3, 2)', 'share.hashed(0.5)']
)
def test_a_gain_is_kept_beside(text: str) -> None:
  node, gain = init(text)['fc']['kernel'], jnp.arange(1.0, 7.0)
  twice = node.scale_channels(gain).scale_channels(gain)
  np.testing.assert_allclose(
    twice.decode(None), node.decode(None) * gain**2, rtol=1e-6
  )
  np.testing.assert_array_equal(twice.values, node.values)


@pytest.mark.parametrize('axis', [0, 1])
def test_zeros_around_are_indices_of_zero(axis: int) -> None:
  node = init('share.kmeans(5)')['fc']['kernel'].scale_channels(
    jnp.arange(1.0, 7.0)
  )
  keep, size = jnp.arange(node.index.shape[axis]) + 1, 12
  want = tree.scattered(node.decode(None), keep, axis, size)
  np.testing.assert_array_equal(
    node.scatter(keep, axis, size).decode(None), want
  )


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('share.kmeans(61)', 'fc/kernel: .* weights, 60, got 61'),
    ('prune.weights(0.8) >> share.kmeans(13)', 'fc/kernel: .* 12, got 13'),
    ('share.product(19, 4)', 'fc/kernel: .* 18 clusters, got 1 of 19'),
    ('share.product(2, 4, codebooks=4)', '3 codebooks'),
    ('share.kmeans(4) >> quantize.half()', 'not quantized yet'),
    ('quantize.half() >> share.kmeans(4)', 'not quantized yet'),
  ],
)
def test_what_does_not_fit_is_refused(text: str, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    init(text)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('share.kmeans()', 'expected clusters or bits'),
    ('share.kmeans(4, bits=2)', 'expected clusters or bits'),
    ('share.kmeans(0)', 'clusters from 1'),
    ('share.kmeans(70000)', 'fewer than 65536'),
    ('share.kmeans(bits=16)', 'bits in 1 to 15'),
    ('share.kmeans(4, start="even")', 'start of linear, density, random'),
    ('share.product(0)', 'clusters from 1'),
    ('share.product(4, 0)', 'length from 1'),
    ('share.hashed(0.0)', r'share in \(0, 1\]'),
    ('share.hashed(0.5, seed=-1)', 'seed in'),
  ],
)
def test_impossible_arguments_are_refused(text: str, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    recipe.parse(text)
