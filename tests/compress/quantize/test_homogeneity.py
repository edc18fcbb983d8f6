"""Functions that commute with positive factors, and those that do not."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress.quantize import homogeneity

DRAWN = np.random.default_rng(0)
X = jnp.float32(DRAWN.normal(size=(16, 3)))
W = jnp.float32(DRAWN.normal(size=(3, 6)))
V = jnp.float32(DRAWN.normal(size=(6, 2)))
BY = jnp.float32([0.01, 0.3, 1.0, 4.0, 50.0, 1000.0])
MIXED = jnp.float32(DRAWN.normal(size=(6, 6)))


def network(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
  return lambda params: f(X @ params['w'] + params['b']) @ params['v']


PARAMS = {'b': jnp.linspace(-1.0, 1.0, 6), 'v': V, 'w': W}
SCALED = {'b': PARAMS['b'] * BY, 'v': V / BY[:, None], 'w': W * BY}


def reason(f: Callable[[Any], Any]) -> str:
  return homogeneity.reasons(network(f), PARAMS)(['w', 'b'], ['v'])


@jax.jit
def cut(x: Any) -> Any:
  return jnp.where(x > 0, x, 0.0)


FREE = {
  'identity': lambda x: x,
  'relu': nn.relu,
  'leaky_relu': nn.leaky_relu,
  'abs': jnp.abs,
  'where': cut,
  'remat': jax.checkpoint(nn.relu),
  'mean of rows': lambda x: x.reshape(4, 4, 6).mean(axis=1),
  'max of rows': lambda x: x.reshape(4, 4, 6).max(axis=1),
  'pool': lambda x: nn.max_pool(x.reshape(4, 4, 6), (2,), (2,)),
  'average': lambda x: nn.avg_pool(x.reshape(4, 4, 6), (2,), (2,)),
  'affine': lambda x: -2.0 * x / 3.0 + nn.relu(x),
  'transposed': lambda x: jnp.flip(x.T, 1).T,
  'sum of paths': lambda x: jnp.maximum(x, 0.5 * x) - x,
  'sign': lambda x: x * jnp.sign(x),
  'platform': lambda x: jax.lax.platform_dependent(
    x, cpu=lambda x: jnp.maximum(x, 0.0), default=nn.relu
  ),
}
BLOCKED = {
  'tanh': (jnp.tanh, 'tanh'),
  'sigmoid': (nn.sigmoid, 'logistic'),
  'elu': (nn.elu, 'exp'),
  'silu': (nn.silu, 'logistic'),
  'relu6': (nn.relu6, 'min'),
  'hard tanh': (nn.hard_tanh, ''),
  'square': (jnp.square, 'square'),
  'shifted': (lambda x: nn.relu(x + 1.0), 'add'),
  'threshold': (lambda x: jnp.where(x > 0.5, x, 0.0), 'gt'),
  'normalized': (lambda x: x / jnp.sqrt((x * x).sum(0)), 'mul'),
  'mixed': (lambda x: x @ MIXED, 'dot_general'),
  'platform': (
    lambda x: jax.lax.platform_dependent(x, cpu=jnp.tanh, default=jnp.tanh),
    'tanh',
  ),
  'loop': (lambda x: jax.lax.fori_loop(0, 3, lambda _, y: y + x, x), ''),
}


@pytest.mark.parametrize('name', FREE)
def test_homogeneous_functions_are_known(name: str) -> None:
  apply = network(FREE[name])
  assert reason(FREE[name]) == ''
  np.testing.assert_allclose(apply(SCALED), apply(PARAMS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', BLOCKED)
def test_other_functions_are_named(name: str) -> None:
  f, why = BLOCKED[name]
  found = reason(f)
  assert found
  assert why in found


def test_what_leaves_the_network_scaled_is_no_function_of_the_rest() -> None:
  def apply(params: Any) -> Any:
    y = nn.relu(X @ params['w'])
    return y, y @ params['v']

  assert homogeneity.reasons(apply, PARAMS)(['w'], ['v']) == 'the output'


def test_biases_must_be_scaled_as_well() -> None:
  found = homogeneity.reasons(network(nn.relu), PARAMS)
  assert found(['w'], ['v']) == 'add'
  assert found(['w', 'b'], []) == 'dot_general'
