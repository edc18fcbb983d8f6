"""Gradients of few bits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe, tree
from compress.method import Ctx
from compress.quantize.gradients import Backward, gradients
from compress.quantize.gradients import rounded as passing_rounded
from compress.quantize.integer_codes import Quantized
from compress.quantize.uniform import int8
from tests.runs import TINY, calibrated, start

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5, 4)), jnp.float32)
STATS = {'fc/kernel': jnp.array([-2.0, 2.0])}
PARAMS = {'fc': {'kernel': jnp.eye(4)}}


@pytest.mark.slow
@pytest.mark.parametrize('width', [1, 2, 8])
def test_gradients_are_rounded_as_in_the_paper(width: int) -> None:
  dx, key = np.asarray(X), jax.random.key(3)
  top = 2**width - 1
  sigma = np.asarray(jax.random.uniform(key, dx.shape, minval=-0.5, maxval=0.5))
  found = np.asarray(passing_rounded(X, key, width))
  for i, each in enumerate(dx.astype(float)):
    m = np.abs(each).max()
    unit = np.clip(each / (2 * m) + 0.5 + sigma[i] / top, 0, 1)
    want = 2 * m * (np.round(top * unit) / top - 0.5)
    error = np.abs(found[i] - want)
    assert np.mean(error < 1e-5) > 0.95
    assert error.max() < 2.01 * m / top
    assert len(np.unique(found[i])) <= 2**width


@pytest.mark.slow
def test_rounding_is_right_on_average() -> None:
  keys = jax.random.split(jax.random.key(0), 4000)
  dx = X[:1, 0] * jnp.array([0.5, 1.0, 0.1, 0.0])  # the ends are clipped
  found = jax.vmap(lambda key: passing_rounded(dx, key, 2))(keys).mean(0)
  inside = np.abs(dx) < 0.6 * np.abs(dx).max()
  np.testing.assert_allclose(found[inside], dx[inside], atol=0.05)
  assert float(found[0, 3]) == 0.0
  assert not np.any(passing_rounded(0 * dx, keys[0], 4))


def test_only_gradients_change() -> None:
  params = gradients(3).init(PARAMS, Ctx(key=jax.random.key(1)))
  node = params['fc']['kernel']
  assert isinstance(node, Backward)

  def loss(x: Any, node: Any) -> Any:
    met = node.transform_input(x)
    return jnp.sum(X * (met @ node.decode())), met

  (dx, dnode), met = jax.grad(loss, (0, 1), has_aux=True, allow_int=True)(
    X, node
  )
  np.testing.assert_array_equal(met, X)
  want = passing_rounded(X, jax.random.wrap_key_data(node.noise), 3)
  np.testing.assert_allclose(dx, want, atol=1e-6)
  np.testing.assert_allclose(dnode.w, np.einsum('bij,bik->jk', X, X), rtol=1e-5)
  assert tree.freeze(params)['fc']['kernel'] is PARAMS['fc']['kernel']


def test_noise_is_new_at_every_step_and_layer() -> None:
  method = gradients(4)
  params = method.init(start(TINY)['params'], calibrated(TINY))
  drawn = set()
  for step in range(3):
    nodes = tree.find(Backward, params).values()
    drawn |= {tuple(np.asarray(node.noise).tolist()) for node in nodes}
    key = jax.random.key(step + 10)
    params = method.update(params, Ctx(step, 3, key))
  assert len(drawn) == 6
  kept = method.update(params, Ctx())
  assert kept is params


@pytest.mark.parametrize(
  'text',
  ['gradients(4) >> quantize.int8()', 'int8() >> quantize.gradients(4)'],
)
def test_gradients_and_grids_go_both_ways_round(text: str) -> None:
  params = recipe.parse(f'quantize.{text}').init(PARAMS, Ctx(stats=STATS))
  node = params['fc']['kernel']
  plain = int8().init(PARAMS, Ctx(stats=STATS))['fc']['kernel']
  np.testing.assert_array_equal(
    node.transform_input(X), plain.transform_input(X)
  )
  slope = jax.grad(lambda x: jnp.sum(X * node.transform_input(x)))(X)
  assert len(np.unique(slope[0])) <= 16
  assert isinstance(tree.freeze(params)['fc']['kernel'], Quantized)


@pytest.mark.parametrize('bits', [0, 33, 2.0, True])
def test_impossible_widths_are_refused(bits: Any) -> None:
  with pytest.raises(ValueError, match='gradients: expected bits from 1 to 16'):
    gradients(bits)
