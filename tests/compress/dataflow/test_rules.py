"""The interpreter changes nothing: same bits, same gradients, same program."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import compress
from compress import dataflow
from tests import frameworks
from tests.runs import TINY, assert_same_bits, images, start
from tsukiji.models import zoo
from tsukiji.models.net import Net


def interpreted(fn: Any) -> Any:
  """Return a function that runs through the interpreter."""
  return lambda params, *x: dataflow.observed(fn, params, x, {}).outputs


@pytest.mark.parametrize('name', frameworks.MODELS)
def test_outputs_and_gradients_keep_their_bits(name: str) -> None:
  model = frameworks.MODELS[name]()
  found = []
  for apply in (model.apply, interpreted(model.apply)):

    def loss(params: Any, *x: Any, apply: Any = apply) -> Any:
      y = apply(params, *x)
      return jnp.sum(y.astype(jnp.float32) ** 2), y

    slope = jax.jit(jax.value_and_grad(loss, has_aux=True))
    found.append(slope(model.params, *model.inputs))
  assert_same_bits(*found)


def test_custom_derivatives_stay() -> None:
  spec = zoo.tsukijinet2021((12, 12, 1), 3, conv=(4, 4), kernel=3, hidden=(8,))
  variables = Net(spec).init(jax.random.key(0), images(spec, 1))

  def apply(params: Any, x: jax.Array) -> Any:
    return Net(spec).apply({**variables, 'params': params}, x)

  texts = []
  for fn in (apply, interpreted(apply)):
    slope = jax.jit(jax.grad(lambda p, x, fn=fn: jnp.sum(fn(p, x) ** 2)))
    texts.append(slope.lower(variables['params'], images(spec, 16)).as_text())
  plain, found = (
    sorted(line.split('=')[-1] for line in t.split('\n')) for t in texts
  )
  assert len(plain) == len(found)


def wide(p: Any, x: jax.Array) -> Any:
  """Multiply inside a loop of unknown length and a conditional."""

  def body(carry: Any) -> Any:
    i, y = carry
    return i + 1, jnp.tanh(y @ p['loop'])

  _, y = jax.lax.while_loop(lambda c: c[0] < 3, body, (0, x))
  return jax.lax.cond(
    jnp.sum(x) > 0, lambda y: y @ p['yes'], lambda y: y @ p['no'], y
  )


def test_loops_and_conditionals_are_observed() -> None:
  keys = jax.random.split(jax.random.key(0), 3)
  params = {
    name: jax.random.normal(key, (4, 4))
    for name, key in zip(('loop', 'yes', 'no'), keys, strict=True)
  }
  x = jnp.linspace(-1.0, 2.0, 8).reshape(2, 4)
  found = dataflow.observed(wide, params, (x,), {})
  np.testing.assert_array_equal(found.outputs, wide(params, x))
  y = x
  seen = []
  for _ in range(3):
    seen.append(y)
    y = jnp.tanh(y @ params['loop'])
  low, high = found.stats['loop']
  np.testing.assert_allclose(low, min(map(jnp.min, seen)), rtol=1e-6)
  np.testing.assert_allclose(high, max(map(jnp.max, seen)), rtol=1e-6)
  np.testing.assert_allclose(found.stats['yes'], [y.min(), y.max()], rtol=1e-6)
  assert found.stats['no'].tolist() == [np.inf, -np.inf]  # never taken


def test_grids_inside_loops_round_each_input() -> None:
  params = {name: jnp.eye(4) for name in ('loop', 'yes', 'no')}
  x = jnp.linspace(-1.0, 2.0, 8).reshape(2, 4)
  probe = compress.probe(wide, params, x)
  method = compress.only('loop|yes', compress.quantize.uniform(8, 2))
  nodes = compress.init(method, params, probe, steps=0)
  assert len(np.unique(compress.apply(wide, nodes, x))) <= 4


def test_joined_weights_have_grids_of_their_own() -> None:
  """As the gates of a fused LSTM: one product of concatenated kernels."""

  def fn(p: Any, x: jax.Array) -> Any:
    return x @ jnp.concatenate([p['a'], p['b']], axis=1)

  params = {'a': jnp.eye(4), 'b': jnp.eye(4)}
  x = jnp.linspace(0.0, 1.0, 8).reshape(2, 4)
  probe = compress.probe(fn, params, x)
  method = compress.only('a', compress.quantize.uniform(8, 2))
  y = compress.apply(fn, compress.init(method, params, probe, steps=0), x)
  assert len(np.unique(y[:, :4])) <= 4
  np.testing.assert_array_equal(y[:, 4:], x)


def test_scanned_layers_share_the_range_of_their_inputs() -> None:
  model = frameworks.MODELS['nn.scan']()
  probe = compress.probe(model.apply, model.params, model.inputs)
  params = compress.init(
    compress.quantize.uniform(8, 2), model.params, probe, steps=0
  )
  y = compress.apply(model.apply, params, *model.inputs)
  assert bool(jnp.isfinite(y).all())
  dense = model.apply(compress.decode(params), *model.inputs)
  assert np.abs(y - dense).max() > 1e-3  # two bits are felt


def test_products_without_an_input_are_named() -> None:
  @jax.custom_vjp
  def twice(w: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ w) @ w

  twice.defvjp(
    lambda w, x: (twice(w, x), (w, x)), lambda kept, g: (kept[0], kept[1])
  )

  def fn(p: Any, x: jax.Array) -> Any:
    return twice(p['w'], x)

  params, x = {'w': jnp.eye(4)}, jnp.ones((2, 4))
  found = compress.sites(fn, params, x)
  assert found['w'].unknown == 'it is inside a function with its own derivative'
  node = compress.Ctx(stats={'w': jnp.array([-1.0, 1.0])})
  nodes = compress.quantize.uniform(8, 4).init(params, node)
  with pytest.raises(
    ValueError, match='dataflow.apply at w: .* own derivative'
  ):
    compress.apply(fn, nodes, x)


def test_the_zoo_runs_through_it() -> None:
  variables = start(TINY)

  def apply(params: Any, x: jax.Array) -> Any:
    return Net(TINY).apply({**variables, 'params': params}, x)

  x = images(TINY, 4)
  found = dataflow.observed(
    apply, variables['params'], (x,), {}, with_features=True
  )
  np.testing.assert_array_equal(found.outputs, apply(variables['params'], x))
  assert list(found.stats) == ['conv/kernel', 'fc/kernel']
  assert found.features.keys() == {'conv', 'norm', 'fc'}


def test_functions_on_devices_are_followed() -> None:
  mesh = jax.make_mesh((1,), ('x',), (AxisType.Auto,))
  spread = jax.shard_map(
    lambda w, x: x @ w,
    mesh=mesh,
    in_specs=(PartitionSpec(), PartitionSpec('x')),
    out_specs=PartitionSpec('x'),
  )
  params, x = {'w': jnp.eye(4)}, jnp.linspace(0.0, 1.0, 8).reshape(2, 4)
  apply = lambda p, x: spread(p['w'], x)  # noqa: E731
  assert compress.sites(apply, params, x)['w'].uses == 1
  method = compress.quantize.uniform(8, 2)
  stats = {'w': jnp.array([0.0, 1.0])}
  nodes = method.init(params, compress.Ctx(stats=stats))
  y = jax.jit(lambda x: compress.apply(apply, nodes, x))(x)
  np.testing.assert_allclose(y, jnp.round(3 * x) / 3, atol=1e-6)


def test_operations_that_are_not_followed_are_named() -> None:
  def fn(p: Any, x: jax.Array) -> Any:
    return jax.lax.custom_linear_solve(
      lambda v: v @ p['w'], x, lambda _, b: b, symmetric=True
    )

  found = compress.sites(fn, {'w': jnp.eye(4)}, jnp.ones(4))
  assert found['w'].unknown == (
    'it is inside custom_linear_solve, which is not followed'
  )
