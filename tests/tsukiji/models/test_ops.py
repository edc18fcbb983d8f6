"""Pooling agrees with flax, derivatives included."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.derivatives import assert_close, distinct, value_and_vjp
from tsukiji.models import ops

FEW = settings(max_examples=3, deadline=None, derandomize=True)


@pytest.fixture(autouse=True)
def strict():
  with warnings.catch_warnings(), jax.numpy_rank_promotion('raise'):
    warnings.simplefilter('error')
    yield


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@pytest.mark.slow
@pytest.mark.parametrize(
  'ours, theirs',
  [(ops.max_pool, nn.max_pool), (ops.mean_pool, nn.avg_pool)],
)
@FEW
@given(window=pairs, strides=pairs, extra=pairs, tiled=st.booleans())
def test_pool_is_flax(ours, theirs, window, strides, extra, tiled):
  if tiled:
    strides = window
    size = [k * n for k, n in zip(window, extra, strict=False)]
  else:
    size = [k + n for k, n in zip(window, extra, strict=False)]
  x = distinct((2, *size, 3))
  got = value_and_vjp(jax.jit(lambda x: ours(x, window, strides)), x)
  assert_close(got, value_and_vjp(lambda x: theirs(x, window, strides), x))


@pytest.mark.slow
@pytest.mark.parametrize('strides', [(2, 2), (1, 1)])
def test_max_pool_shares_the_gradient_of_ties(strides):
  x = jnp.ones((1, 2, 2, 1))
  grad = jax.grad(lambda x: ops.max_pool(x, (2, 2), strides).sum())(x)
  np.testing.assert_array_equal(grad, jnp.full(x.shape, 0.25))


@pytest.mark.parametrize('pool', [ops.max_pool, ops.mean_pool])
def test_pool_names_what_it_refuses(pool):
  for x, window, strides in [
    (jnp.ones((2, 2, 1)), (2, 2), (2, 2)),
    (jnp.ones((1, 2, 2, 1)), (3, 2), (2, 2)),
    (jnp.ones((1, 2, 2, 1)), (2, 2), (0, 2)),
  ]:
    with pytest.raises(ValueError, match=pool.__name__):
      pool(x, window, strides)
