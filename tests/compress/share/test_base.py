"""What all methods that share weights have in common."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe, tree
from compress.share.codebook import Shared
from tests.two_layers import CTX, init

DRAWN = np.random.default_rng(1)


@pytest.mark.parametrize(
  'text', ['share.kmeans(5)', 'share.product(3, 2)', 'share.hashed(0.5)']
)
def test_a_gain_is_stored_separately(text: str) -> None:
  node, gain = init(text)['fc']['kernel'], jnp.arange(1.0, 7.0)
  twice = node.scale_channels(gain).scale_channels(gain)
  np.testing.assert_allclose(twice.decode(), node.decode() * gain**2, rtol=1e-6)
  np.testing.assert_array_equal(twice.values, node.values)


@pytest.mark.slow
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


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
@pytest.mark.parametrize(
  'text', ['share.kmeans(5)', 'share.product(3, 2)', 'share.hashed(0.5)']
)
def test_narrow_floats_keep_their_type(text: str, dtype: str) -> None:
  w = jnp.float32(DRAWN.normal(size=(10, 6))).astype(dtype)
  method = recipe.parse(text)
  wide = tree.decode(method.init({'w': w.astype(jnp.float32)}, CTX))['w']
  nodes = method.init({'w': w}, CTX)
  assert not isinstance(nodes['w'], jax.Array)
  for each in (nodes, tree.freeze(nodes)):
    found = tree.decode(each)['w']
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, wide.astype(dtype))


def test_gains_do_not_widen_narrow_values() -> None:
  node = Shared(jnp.ones(3, jnp.float16), jnp.ones((4, 6), jnp.uint8))
  gained = node.scale_channels(jnp.arange(1.0, 7.0)).decode()
  assert gained.dtype == jnp.float16
  np.testing.assert_array_equal(gained[0], np.arange(1, 7))
