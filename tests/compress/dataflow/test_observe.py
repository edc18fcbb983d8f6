"""Grids and statistics of functions that know nothing of either."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from compress import dataflow, recipe, tree
from compress.method import Ctx
from compress.quantize.fake_quant import FakeQuantized
from compress.quantize.integer_codes import Inputs
from compress.quantize.uniform import uniform as quantize_grid

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)


class Block(nn.Module):
  """A residual block in setup style that applies one layer twice."""

  def setup(self) -> None:
    """Name the layers."""
    self.shared = nn.Dense(4)
    self.last = nn.Dense(4, use_bias=False)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Return `x` and the result."""
    y = nn.relu(self.shared(x))
    y = nn.relu(self.shared(-3 * y))
    return jnp.concatenate([x + self.last(y), x], axis=-1)


class User(nn.Module):
  """A network nobody wrote for this library."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return logits."""
    x = Block(name='block')(nn.Dense(4, name='first')(x))
    x = nn.LayerNorm()(x)
    return nn.DenseGeneral(3, name='out')(x)


@pytest.fixture(scope='module')
def variables() -> dict[str, Any]:
  """Return weights of the network, biases too."""
  shapes = jax.eval_shape(User().init, jax.random.key(0), X)
  drawn = np.random.default_rng(1)
  return jax.tree.map(
    lambda s: jnp.asarray(drawn.normal(size=s.shape), jnp.float32), shapes
  )


def by_hand(
  params: dict[str, Any], x: np.ndarray, meet: Any
) -> tuple[np.ndarray, dict[str, list[np.ndarray]]]:
  """Return the outputs of `User` in NumPy, and the inputs of each layer."""
  observed: dict[str, list[np.ndarray]] = {}
  plain = jax.tree.map(lambda leaf: np.asarray(leaf, float), params)

  def dense(path: str, x: np.ndarray) -> np.ndarray:
    observed.setdefault(f'{path}/kernel', []).append(x)
    layer = plain
    for name in path.split('/'):
      layer = layer[name]
    return meet(path, x) @ layer['kernel'] + layer.get('bias', 0.0)

  x = dense('first', np.asarray(x, float))
  y = np.maximum(dense('block/shared', x), 0)
  y = np.maximum(dense('block/shared', -3 * y), 0)
  x = np.concatenate([x + dense('block/last', y), x], axis=-1)
  centerd = x - x.mean(axis=-1, keepdims=True)
  norm = plain['LayerNorm_0']
  x = centerd / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-6)
  return dense('out', x * norm['scale'] + norm['bias']), observed


def apply(params: Any, x: jax.Array) -> jax.Array:
  """Return the outputs of `User`."""
  return User().apply({'params': params}, x)


def test_statistics_are_those_of_the_inputs(variables: Any) -> None:
  run = jax.jit(lambda params: dataflow.observed(apply, params, (X,), {})[:2])
  y, stats = run(variables['params'])
  want, observed = by_hand(variables['params'], X, lambda _, x: x)
  np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4)
  # A norm holds no weight; a shared layer shows the range of both its inputs.
  assert sorted(stats) == sorted(observed)
  assert len(observed['block/shared/kernel']) == 2
  for path, inputs in observed.items():
    ends = [min(map(np.min, inputs)), max(map(np.max, inputs))]
    np.testing.assert_allclose(stats[path], ends, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_inputs_meet_the_grid_of_their_weight(variables: Any) -> None:
  params = variables['params']
  dense = User().apply(variables, X)
  stats = dataflow.observed(apply, params, (X,), {}).stats
  nodes = quantize_grid(16, 3).init(params, Ctx(stats=stats))
  decoded, grids = tree.decode(nodes), dataflow.transforming(nodes)
  y, after, _ = dataflow.observed(apply, decoded, (X,), grids)
  np.testing.assert_array_equal(dataflow.apply(apply, nodes, X), y)

  def meet(path: str, x: np.ndarray) -> np.ndarray:
    low, high = map(float, stats[f'{path}/kernel'])
    step = (max(high, 0.0) - min(low, 0.0)) / 7
    below = round(-min(low, 0.0) / step)
    return step * (np.clip(np.round(x / step) + below, 0, 7) - below)

  want, observed = by_hand(decoded, X, meet)
  np.testing.assert_allclose(y, want, rtol=1e-3, atol=1e-3)
  assert np.abs(y - dense).max() > 0.05  # three bits are felt
  # Statistics are taken before rounding, or ranges could never grow.
  for path, inputs in observed.items():
    ends = [min(map(np.min, inputs)), max(map(np.max, inputs))]
    np.testing.assert_allclose(after[path], ends, rtol=1e-3, atol=1e-3)


def test_grids_end_with_the_call(variables: Any) -> None:
  nodes = quantize_grid(8, 2).init(
    variables['params'],
    Ctx(
      stats={
        path: jnp.array([-1.0, 1.0]) for path in tree.paths(variables['params'])
      }
    ),
  )
  before = User().apply(variables, X)
  inside = dataflow.apply(apply, nodes, X)
  after = User().apply(variables, X)
  assert np.any(np.asarray(inside) != np.asarray(before))
  np.testing.assert_array_equal(after, before)


class Gained(nn.Module):
  """A layer with arguments other than its input."""

  @nn.compact
  def __call__(self, x: jax.Array, gain: float, *, shift: float) -> jax.Array:
    """Return the product, changed by the arguments."""
    return gain * (x @ self.param('kernel', nn.zeros, (4, 2))) + shift


def test_other_arguments_pass_through() -> None:
  variables = {'params': {'kernel': jnp.ones((4, 2))}}

  def run(params: Any, x: jax.Array, gain: float) -> Any:
    y = Gained().apply({'params': params}, x, gain, shift=1.0)
    return {'y': y, 'extra': (3, None)}

  found = dataflow.observed(run, variables['params'], (X, 2.0), {})
  want = 2 * np.asarray(X).sum(axis=1, keepdims=True) + np.ones((1, 2))
  np.testing.assert_allclose(found.outputs['y'], want, rtol=1e-5, atol=1e-6)
  assert found.outputs['extra'] == (3, None)
  assert found.stats['kernel'].tolist() == [X.min(), X.max()]


def test_a_module_may_be_the_full_network() -> None:
  dense = nn.Dense(2)
  kernel = jnp.ones((4, 2))
  grid = Inputs(jnp.float32(0.0), jnp.float32(3.0), 2)
  nodes = {'bias': jnp.zeros(2), 'kernel': FakeQuantized(kernel, grid, 8)}
  x = jnp.array([[0.4, 0.6, 5.0, -1.0]])
  y, stats, _ = dataflow.observed(
    lambda params, x: dense.apply({'params': params}, x),
    tree.decode(nodes),
    (x,),
    dataflow.transforming(nodes),
  )
  np.testing.assert_allclose(y, [[0.0 + 1.0 + 3.0 + 0.0] * 2])
  assert stats['kernel'].tolist() == [-1.0, 5.0]


@pytest.mark.slow
def test_gradients_reach_inputs_inside_the_grid() -> None:
  dense = nn.Dense(1, use_bias=False)
  grid = Inputs(jnp.float32(0.0), jnp.float32(3.0), 2)
  nodes = {'kernel': FakeQuantized(jnp.ones((3, 1)), grid, 8)}

  def loss(x: jax.Array) -> jax.Array:
    run = lambda params, x: dense.apply({'params': params}, x)  # noqa: E731
    return dataflow.apply(run, nodes, x).sum()

  found = jax.grad(loss)(jnp.array([[-1.0, 1.4, 9.0]]))
  np.testing.assert_allclose(found, [[0.0, 1.0, 0.0]], atol=1e-6)


DENSE = nn.Dense(2)
COMPILED = jax.jit(DENSE.apply)


def by_nnx(params: Any, x: jax.Array) -> jax.Array:
  """Return what a layer of Flax NNX does with the parameters."""
  layer = nnx.Linear(4, 2, rngs=nnx.Rngs(0))
  graph, state = nnx.split(layer)
  filled = nnx.State({k: nnx.Param(v) for k, v in params.items()})
  assert jax.tree.structure(filled) == jax.tree.structure(state)
  return nnx.merge(graph, filled)(x)


def summed(params: Any, x: jax.Array) -> jax.Array:
  """Return the same without a product, one sum at a time."""
  terms = [x[..., i, None] * params['kernel'][i] for i in range(4)]
  return sum(terms, params['bias'])


WAYS: dict[str, Any] = {
  'jitted': lambda params, x: COMPILED({'params': params}, x),
  'keyword': lambda params, x: DENSE.apply({'params': params}, inputs=x),
  'elsewhere': lambda params, x: x @ params['kernel'] + params['bias'],
  'nnx': by_nnx,
  # A platform's own form of a product, and of more than that.
  'platform': lambda params, x: (
    params['bias']
    + jax.lax.platform_dependent(
      params['kernel'],
      x,
      cpu=lambda kernel, x: summed({'kernel': kernel, 'bias': 0.0}, x),
      default=lambda kernel, x: x @ kernel,
    )
  ),
  'platform_layer': lambda params, x: jax.lax.platform_dependent(
    params, x, cpu=summed, default=WAYS['elsewhere']
  ),
  'remat': lambda params, x: jax.checkpoint(WAYS['elsewhere'])(params, x),
  'transposed': lambda params, x: (params['kernel'].T @ x.T).T + params['bias'],
  'vmapped': lambda params, x: jax.vmap(WAYS['elsewhere'], (None, 0))(
    params, x
  ),
}


@pytest.mark.parametrize('way', WAYS)
def test_grids_are_met_however_the_weight_is_called(way: str) -> None:
  x, kernel = jnp.array([[0.4, 0.6, 5.0, -1.0]]), jnp.ones((4, 2))
  grid = Inputs(jnp.float32(0.0), jnp.float32(3.0), 2)
  plain = {'bias': jnp.zeros(2), 'kernel': kernel}
  nodes = {'bias': jnp.zeros(2), 'kernel': FakeQuantized(kernel, grid, 8)}
  # Compiled before, so that nothing is traced but what was.
  np.testing.assert_allclose(COMPILED({'params': plain}, x), [[5.0, 5.0]])
  y, stats, _ = dataflow.observed(
    WAYS[way], tree.decode(nodes), (x,), dataflow.transforming(nodes)
  )
  np.testing.assert_allclose(y, [[0.0 + 1.0 + 3.0 + 0.0] * 2])
  assert {path: s.tolist() for path, s in stats.items()} == {
    'kernel': [-1.0, 5.0]
  }
  # What is closed over is an input as well.
  closed = dataflow.apply(lambda params: WAYS[way](params, x), nodes)
  np.testing.assert_array_equal(closed, y)
  # Without a grid for inputs nothing is changed.
  nodes = {'bias': jnp.zeros(2), 'kernel': FakeQuantized(kernel, None, 8)}
  out = dataflow.apply(WAYS[way], nodes, x)
  np.testing.assert_allclose(out, [[5.0, 5.0]])


@jax.custom_vjp
def twice(kernel: jax.Array, x: jax.Array) -> jax.Array:
  """Return two products, with a derivative of its own."""
  return x @ kernel + (2 * x) @ kernel


twice.defvjp(
  lambda kernel, x: (twice(kernel, x), (kernel, x)),
  lambda kept, y: (3 * kept[1].T @ y, 3 * y @ kept[0].T),
)


@pytest.mark.parametrize(
  ('run', 'why'),
  [
    (lambda params, x: x, 'it is in no product that was found'),
    (lambda params, x: x * params['kernel'][:, 0], 'it is in no product'),
    (lambda params, x: twice(params['kernel'], x), 'with its own derivative'),
  ],
)
def test_grids_without_an_input_are_errors(run: Any, why: str) -> None:
  x, kernel = jnp.ones((1, 4)), jnp.ones((4, 2))
  grid = Inputs(jnp.float32(0.0), jnp.float32(3.0), 2)
  nodes = {'kernel': FakeQuantized(kernel, grid, 8)}
  with pytest.raises(
    ValueError, match=rf'at kernel: .*FakeQuantized.* got none: .*{why}'
  ):
    dataflow.apply(run, nodes, x)
  # Without a grid for inputs nothing is missed.
  nodes = {'kernel': FakeQuantized(kernel, None, 8)}
  dense = tree.decode(nodes)
  np.testing.assert_allclose(
    dataflow.apply(run, nodes, x), run({'kernel': kernel}, x)
  )
  assert dataflow.observed(run, dense, (x,), {}).stats == {}


@pytest.mark.parametrize(
  ('text', 'transforms'),
  [
    ('binary.weights()', False),
    ('quantize.uniform(4, 6) >> prune.weights(0.5)', True),
    ('prune.weights(0.5) >> quantize.uniform(4)', False),
    ('quantize.delay(0.5) >> quantize.uniform(4, 4)', True),
    ('quantize.delay(0.5) >> quantize.uniform(4)', False),
    ('quantize.dorefa(4, 4)', True),
    ('prune.weights(0.5)', False),
  ],
)
def test_nodes_say_whether_they_transform_inputs(
  text: str, transforms: bool
) -> None:
  params = {'fc': {'kernel': jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)}}
  ctx = Ctx(stats={'fc/kernel': jnp.array([-1.0, 1.0])})
  node = recipe.parse(text).init(params, ctx)['fc']['kernel']
  for x in (node, tree.freeze(node)):
    assert transforms == (tree.is_node(x) and x.transforms_input)
