"""State of methods: seen by nothing but the methods and the optimizer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import compress
from compress import state as state_lib
from compress import tree
from compress.method import Ctx
from tests.runs import assert_same_bits

PARAMS = {'a': {'kernel': jnp.ones((2, 3)), 'bias': jnp.zeros(3)}}
X = jnp.arange(8.0).reshape(4, 2) / 8


def counting() -> compress.Method:
  """Return a method that learns an offset and counts its steps."""

  def init(params: Any, ctx: Ctx) -> Any:
    params = state_lib.add(params, 'offset', jnp.zeros(3))
    return state_lib.add(params, 'count', jnp.zeros((), int), trained=False)

  def update(params: Any, ctx: Ctx) -> Any:
    count = state_lib.read(params, 'count') + 1
    return state_lib.replace(params, 'count', count)

  def loss(params: Any, ctx: Ctx) -> jax.Array:
    return jnp.sum((state_lib.read(params, 'offset') - 2.0) ** 2)

  return compress.Method(init, update, loss)


def trained(method: compress.Method, steps: int = 3) -> Any:
  """Return what a few jitted steps of a plain loop give."""

  def loss(params: Any, x: jax.Array) -> jax.Array:
    return jnp.mean((x @ params['a']['kernel'] + params['a']['bias']) ** 2)

  params = compress.init(method, PARAMS)
  tx = optax.sgd(0.1)
  opt = tx.init(compress.trainable(params))

  @jax.jit
  def step(params: Any, opt: Any, i: jax.Array) -> tuple[Any, Any]:
    run = {'step': i, 'steps': steps, 'key': jax.random.key(0)}
    _, grads = compress.value_and_grad(loss, method)(params, X, **run)
    moved = tx.update(grads.trainable, opt, compress.trainable(params))
    return compress.update(method, params, moved[0], grads, **run), moved[1]

  for i in range(steps):
    params, opt = step(params, opt, jnp.asarray(i))
  return params


@pytest.mark.parametrize(
  'around',
  [
    lambda m: m,
    lambda m: compress.chain(compress.parse('prune.weights(0.5)'), m),
    lambda m: compress.chain(m, compress.parse('quantize.uniform(4)')),
    lambda m: compress.only('a/kernel', m),
  ],
)
def test_state_trains_and_counts_wherever_its_method_stands(
  around: Any,
) -> None:
  params = trained(around(counting()))
  assert int(state_lib.read(params, 'count')) == 3
  offset = np.asarray(state_lib.read(params, 'offset'))
  np.testing.assert_allclose(offset, 2 - 2 * 0.8**3, rtol=1e-6)
  for made in (compress.decode(params), compress.freeze(params)):
    assert sorted(tree.paths(made)) == sorted(tree.paths(PARAMS))


def test_the_weights_train_as_without_it() -> None:
  weights = compress.parse('prune.weights(0.5) >> quantize.uniform(4)')
  with_state = trained(compress.chain(weights, counting()))
  assert_same_bits(state_lib.bare(with_state), trained(weights))


def test_only_what_is_trained_moves() -> None:
  params = counting().init(PARAMS, Ctx())
  moved, fixed = tree.split(params)
  assert state_lib.read(moved, 'count') is None
  assert state_lib.read(fixed, 'offset') is None
  again = tree.merge(moved, fixed)
  assert jax.tree.structure(again) == jax.tree.structure(params)
  assert tree.decayed(params).trained == {'offset': False}


def test_state_is_added_once() -> None:
  once = state_lib.add(PARAMS, 'x', jnp.zeros(2))
  assert state_lib.add(once, 'x', jnp.ones(2)) is once
  twice = state_lib.add(once, 'y', jnp.ones(3), trained=False)
  assert state_lib.read(twice, 'x').shape == (2,)
  assert state_lib.read(twice, 'y').shape == (3,)
  assert state_lib.around(PARAMS, PARAMS) is PARAMS


@pytest.mark.parametrize('params', [PARAMS, state_lib.add(PARAMS, 'x', 1)])
def test_what_is_not_there_is_named(params: Any) -> None:
  with pytest.raises(ValueError, match="expected one of .*, got 'y'"):
    state_lib.read(params, 'y')
