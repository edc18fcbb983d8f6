"""The module against loops in NumPy, and its modes."""

import math
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from hypothesis import given, settings

from tests.runs import assert_same_bits
from tests.tsukiji.models.test_spec import PATIENT, network, specs
from tsukiji.models import net as net_lib
from tsukiji.models import spec as sp
from tsukiji.models import zoo
from tsukiji.models.net import Net, init
from tsukiji.models.spec import Layer, Spec

ACTIVATIONS = {
  'relu': lambda x: np.maximum(x, 0),
  'leaky_relu': lambda x: np.where(x > 0, x, 0.01 * x),
  'elu': lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1),
  'gelu': lambda x: (
    0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
  ),
  'silu': lambda x: x / (1 + np.exp(-x)),
  'tanh': np.tanh,
  'sigmoid': lambda x: 1 / (1 + np.exp(-x)),
  'hard_tanh': lambda x: np.clip(x, -1, 1),
}


def variables(spec: Spec, seed: int = 0) -> dict[str, Any]:
  """Draw every parameter and statistic of a network, none at its default."""
  x = jax.ShapeDtypeStruct((1, *spec.input_shape), np.float32)
  shapes = jax.eval_shape(Net(spec).init, jax.random.key(0), x)
  rng = np.random.default_rng(seed)
  drawn = jax.tree.map(
    lambda s: rng.uniform(0.2, 1.0, s.shape).astype(np.float32), shapes
  )
  return {'params': {}, 'batch_stats': {}} | drawn


def images(spec: Spec, count: int, seed: int = 1) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, *spec.input_shape), np.uint8)


def naive(layer: Layer, x: np.ndarray, found: dict[str, Any]) -> np.ndarray:
  """Apply one layer in evaluation mode, in float64, by its definition."""
  weights = found['params'].get(getattr(layer, 'name', None), {})
  match layer:
    case sp.Standardise():
      return (x - np.array(layer.mean)) / np.array(layer.std)
    case sp.Conv():
      return naive_conv(layer, x, weights)
    case sp.Dense():
      return x @ weights['kernel'] + weights.get('bias', 0)
    case sp.Norm():
      observed = found['batch_stats'][layer.name]
      gains = [1 / np.sqrt(observed['var'] + layer.epsilon), weights['scale']]
      if isinstance(layer, sp.ShiftNorm):
        gains = [np.sign(g) * 2 ** np.round(np.log2(abs(g))) for g in gains]
      return (x - observed['mean']) * gains[0] * gains[1] + weights['bias']
    case sp.Act():
      return ACTIVATIONS[layer.fn](x)
    case sp.PReLU():
      x = x - weights.get('before', 0)
      below = weights['slope'] * np.minimum(x, 0)
      return np.maximum(x, 0) + below + weights.get('after', 0)
    case sp.Pool():
      reduce = {'max': np.max, 'mean': np.mean}[layer.kind]
      return strided(
        x, layer.window, layer.strides, lambda w: reduce(w, (1, 2))
      )
    case sp.GlobalMean():
      return x.mean((1, 2))
    case sp.Flatten():
      return x.reshape(len(x), -1)
    case sp.Branch():
      outs = [through(path, x, found) for path in layer.paths]
      return np.concatenate(outs, -1) if layer.merge == 'concat' else sum(outs)
  return x


def naive_conv(
  layer: sp.Conv, x: np.ndarray, weights: dict[str, np.ndarray]
) -> np.ndarray:
  kernel = weights['kernel']
  if layer.padding == 'SAME':
    missing = [
      max(0, (-(-n // s) - 1) * s + k - n)
      for n, k, s in zip(x.shape[1:3], layer.kernel, layer.strides, strict=True)
    ]
    sides = [(m // 2, m - m // 2) for m in missing]
    x = np.pad(x, [(0, 0), *sides, (0, 0)])
  inputs = np.split(x, layer.groups, -1)
  filters = np.split(kernel, layer.groups, -1)
  outs = [
    strided(i, layer.kernel, layer.strides, lambda w, f=f: window_sum(w, f))
    for i, f in zip(inputs, filters, strict=True)
  ]
  return np.concatenate(outs, -1) + weights.get('bias', 0)


def window_sum(window: np.ndarray, filters: np.ndarray) -> np.ndarray:
  return np.einsum('bhwc,hwcf->bf', window, filters)


def strided(
  x: np.ndarray, window: tuple, strides: tuple, reduce: Any
) -> np.ndarray:
  """Reduce every window `[batch, height, width, channels]` of images."""
  (h, w), (s, t) = window, strides
  rows = range(0, x.shape[1] - h + 1, s)
  columns = range(0, x.shape[2] - w + 1, t)
  out = [[reduce(x[:, i : i + h, j : j + w]) for j in columns] for i in rows]
  return np.array(out).transpose(2, 0, 1, 3)


def through(
  layers: tuple[Layer, ...], x: np.ndarray, found: dict[str, Any]
) -> np.ndarray:
  for layer in layers:
    x = naive(layer, x, found)
  return x


@pytest.mark.slow
@settings(PATIENT, max_examples=20)
@given(specs())
def test_outputs_are_those_of_loops(spec: Spec) -> None:
  found, x = variables(spec), images(spec, 2) / np.float32(100)
  wide = jax.tree.map(np.float64, found)
  expected = through(spec.layers, x.astype(np.float64), wide)
  got = jax.jit(Net(spec).apply)(found, x)
  np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-4)


DROPPING = network(
  sp.Standardise(mean=(100.0, 50.0), std=(9.0, 3.0)),
  sp.Conv(name='c1', features=3, kernel=(3, 3)),
  sp.Flatten(),
  sp.Dropout(rate=0.5),
  sp.Dense(name='d1', features=4),
)


@pytest.mark.parametrize('dtype', [np.float32, np.int32, np.float16])
def test_raw_images_of_any_type_are_the_same(dtype: type) -> None:
  found, x = variables(DROPPING), images(DROPPING, 3)
  apply = jax.jit(Net(DROPPING).apply)
  np.testing.assert_array_equal(
    apply(found, x.astype(dtype)), apply(found, x), strict=True
  )


def test_dropout_is_active_in_training_only() -> None:
  found, x = variables(DROPPING), images(DROPPING, 3)
  kept = [x for x in DROPPING.layers if not isinstance(x, sp.Dropout)]
  plain = network(*kept)
  np.testing.assert_array_equal(
    jax.jit(Net(DROPPING).apply)(found, x), jax.jit(Net(plain).apply)(found, x)
  )
  noisy = jax.jit(
    lambda key: Net(DROPPING).apply(found, x, True, rngs={'dropout': key})
  )
  first, second, again = map(noisy, map(jax.random.key, (0, 1, 0)))
  assert not np.array_equal(first, second)
  np.testing.assert_array_equal(first, again)


def test_dropout_keeps_the_mean() -> None:
  spec = network(sp.Flatten(), sp.Dropout(rate=0.25), shape=(100, 100, 1))
  y = Net(spec).apply(
    {},
    np.ones((1, 100, 100, 1), np.uint8),
    train=True,
    rngs={'dropout': jax.random.key(0)},
  )
  assert set(np.unique(y)) == {np.float32(0), np.float32(1) / np.float32(0.75)}
  assert np.mean(y == 0) == pytest.approx(0.25, abs=0.02)


def test_norms_follow_the_batch_in_training() -> None:
  norm = sp.Norm(name='n1', momentum=0.75, epsilon=0.5)
  spec, rng = network(norm), np.random.default_rng(0)
  found, x = variables(spec), rng.normal(3, 2, (5, 6, 6, 2)).astype(np.float32)
  y, mutated = jax.jit(
    lambda x: Net(spec).apply(found, x, True, mutable=['batch_stats'])
  )(x)
  mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
  affine, observed = found['params']['n1'], found['batch_stats']['n1']
  unit = (x - mean) / np.sqrt(var + 0.5)
  np.testing.assert_allclose(
    y, unit * affine['scale'] + affine['bias'], rtol=1e-5, atol=1e-5
  )
  for name, value in (('mean', mean), ('var', var)):
    np.testing.assert_allclose(
      mutated['batch_stats']['n1'][name],
      0.75 * observed[name] + 0.25 * value,
      rtol=1e-5,
    )


@pytest.mark.parametrize('name', sorted(zoo.NETWORKS))
def test_parameters_are_named_by_their_layers(name: str) -> None:
  spec = zoo.build(name, (28, 28, 1), 10)
  found = variables(spec)
  named = {
    step.layer.name: step
    for step in sp.walk(spec)
    if isinstance(step.layer, sp.Conv | sp.Dense | sp.Norm | sp.PReLU)
  }
  assert found['params'].keys() == named.keys()
  norms = {k for k, s in named.items() if isinstance(s.layer, sp.Norm)}
  assert found['batch_stats'].keys() == norms
  for key, (layer, before, after) in named.items():
    if isinstance(layer, sp.Conv | sp.Dense):
      kernel = getattr(layer, 'kernel', ())
      expected = (*kernel, before[-1], after[-1])
      assert found['params'][key]['kernel'].shape == expected


def test_fresh_weights_keep_the_variance_and_follow_the_seed() -> None:
  spec = network(
    sp.Conv(name='c1', features=64, kernel=(5, 5)),
    sp.Flatten(),
    sp.Dense(name='d1', features=64),
  )
  first, again, other = (
    net_lib.init_variables(spec, seed)['params'] for seed in (0, 0, 1)
  )
  for name, inputs in (('c1', 50), ('d1', 256)):
    kernel = first[name]['kernel']
    assert np.std(kernel) == pytest.approx(1 / math.sqrt(3 * inputs), rel=0.05)
    assert np.max(np.abs(kernel)) <= 1 / math.sqrt(inputs)
    assert not np.any(first[name]['bias'])
    np.testing.assert_array_equal(again[name]['kernel'], kernel)
    assert not np.array_equal(other[name]['kernel'], kernel)


def test_what_is_no_layer_is_refused() -> None:
  spec = network(sp.Act(), 'relu')  # type: ignore[arg-type]
  with pytest.raises(TypeError, match="net: expected a layer, got 'relu'"):
    Net(spec).apply({}, np.zeros((1, 6, 6, 2)))


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(3, 3, 2, 4), (6, 5)])
def test_kernels_are_drawn_as_flax_would(shape: tuple[int, ...]) -> None:
  want = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
  key = jax.random.key(3)
  assert_same_bits(init(key, shape), want(key, shape))
