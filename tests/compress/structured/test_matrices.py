"""Weights made of tiles: what is refused, described and stored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe, tree
from compress.method import Ctx
from compress.structured.matrices import Structured
from compress.unchanged import UnchangedWarning
from tests.runs import assert_same_bits
from tests.weight_files import pack_weights
from tsukiji.deploy.tsk import pack
from tsukiji.models import spec as sp

DRAWN = np.random.default_rng(0).normal(size=(16, 16))
PARAMS = {'fc': {'kernel': jnp.float32(DRAWN), 'bias': jnp.ones(16)}}
SPEC = sp.Spec(
  name='square',
  input_shape=(4, 4, 1),
  layers=(sp.Flatten(), sp.Dense(name='fc', features=16)),
)


@pytest.mark.parametrize(
  ('family', 'numbers'),
  [('butterfly', 128), ('circulant', 16), ('fastfood', 48), ('toeplitz', 32)],
)
def test_one_tile_is_the_full_square(family: str, numbers: int) -> None:
  params = recipe.parse(f'structured.{family}()').init(PARAMS, Ctx())
  node = params['fc']['kernel']
  w, found = PARAMS['fc']['kernel'], tree.decode(params)['fc']['kernel']
  assert node.values.size == numbers
  assert node.describe().startswith(f'256 -> {numbers} numbers, {family}')
  assert float(jnp.sum((w - found) ** 2)) < float(jnp.sum(w**2))
  stored = pack.unpack(pack_weights(params)).variables['params']
  assert tree.find(Structured, stored)
  want = tree.paths(tree.decode(params))
  assert_same_bits(tree.decode(stored), want)
  assert_same_bits(jax.jit(tree.decode)(stored), want)


def test_a_gain_scales_outputs_and_keeps_the_values() -> None:
  params = recipe.parse('structured.circulant()').init(PARAMS, Ctx())
  node, gain = params['fc']['kernel'], jnp.arange(16.0)
  twice = node.scale_channels(gain).scale_channels(jnp.full(16, 2.0))
  np.testing.assert_array_equal(twice.values, node.values)
  np.testing.assert_allclose(
    twice.decode(), node.decode() * 2 * gain, rtol=1e-6
  )


@pytest.mark.parametrize(
  'text', ['structured.circulant(8, pad=True)', 'structured.circulant(16)']
)
def test_weights_that_do_not_fit_are_left_with_a_warning(text: str) -> None:
  params = {**PARAMS, 'small': {'kernel': jnp.ones((2, 2))}}
  with pytest.warns(UnchangedWarning, match='left small/kernel unchanged'):
    made = recipe.parse(text).init(params, Ctx())
  assert tree.is_node(made['fc']['kernel'])
  assert made['small']['kernel'] is params['small']['kernel']


@pytest.mark.parametrize(
  ('text', 'why'),
  [
    ('structured.circulant(5)', 'fc/kernel.*16 x 16.*pad=True'),
    ('structured.butterfly(4)', 'fewer numbers than some weight of fc/kernel'),
    ('structured.circulant(1)', 'a block from 2'),
    ('structured.fastfood(12)', 'a power of two'),
    ('structured.toeplitz(0)', 'a rank from 1'),
    ('structured.toeplitz() >> structured.circulant()', 'one such method'),
    ('quantize.uniform(8) >> structured.circulant()', 'Put it first'),
  ],
)
def test_what_cannot_be_is_refused(text: str, why: str) -> None:
  with pytest.raises(ValueError, match=why):
    recipe.parse(text).init(PARAMS, Ctx())


def test_a_matrix_that_is_not_square_needs_padding() -> None:
  params = {'fc': {'kernel': jnp.ones((6, 4))}}
  with pytest.raises(ValueError, match=r'6 x 6 tiles, got 6 x 4.*pad=True'):
    recipe.parse('structured.circulant()').init(params, Ctx())
  node = recipe.parse('structured.circulant(pad=True)').init(params, Ctx())
  assert node['fc']['kernel'].values.shape == (1, 1, 1, 6)
  assert node['fc']['kernel'].decode().shape == (6, 4)
