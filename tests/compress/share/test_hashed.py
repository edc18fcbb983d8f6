"""Hashed weights: the best value a bucket, hashes that are even."""

import jax.numpy as jnp
import numpy as np

from compress.share import codebook
from compress.share.codebook import Hashed
from tests.two_layers import PARAMS, init


def test_a_hash_gives_each_bucket_its_best_value() -> None:
  node = init('share.hashed(0.25)')['fc']['kernel']
  assert isinstance(node, Hashed)
  at, sign = map(np.asarray, codebook.hashes((10, 6), 15, node.seed))
  w = np.asarray(PARAMS['fc']['kernel'])
  for bucket in range(15):
    mine = (sign * w)[at == bucket]
    want = mine.mean() if mine.size else 0
    np.testing.assert_allclose(node.values[bucket], want, atol=1e-6)
  np.testing.assert_array_equal(node.decode(), node.values[at] * sign)
  assert init('share.hashed(0.25)')['conv']['kernel'].seed != node.seed


def test_hashes_are_even_and_the_same_for_ever() -> None:
  at, sign = codebook.hashes((100, 100), 16, 5)
  count = np.bincount(np.asarray(at).ravel(), minlength=16)
  assert np.all(np.abs(count - 625) < 5 * np.sqrt(625))
  assert abs(float(jnp.mean(sign))) < 0.05
  assert abs(float(np.corrcoef(np.ravel(at), np.ravel(sign))[0, 1])) < 0.05
