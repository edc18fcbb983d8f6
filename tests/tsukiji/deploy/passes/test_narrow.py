"""Removed channels are in no file, whoever wrote the network."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import compress
from compress import tree
from compress.unchanged import UnchangedWarning
from tests import frameworks
from tsukiji.deploy.passes.narrow import narrowed
from tsukiji.graph import evaluate
from tsukiji.graph.capture import capture

HALF = 'prune.filters(share=0.5, multiple=1)'
KERNELS = [
  np.random.default_rng(i).normal(size=shape).astype('f4')
  for i, shape in enumerate([(6, 8), (8, 12), (12, 3)])
]
X = np.random.default_rng(3).normal(size=(5, 6)).astype('f4')


def chain(params: Any, x: jax.Array) -> jax.Array:
  """Apply bare kernels, which no module keeps apart."""
  *kernels, last = params['all']
  for kernel in kernels:
    x = jax.nn.relu(x @ kernel)
  return x @ last


def small(
  apply: Callable[..., Any],
  params: Any,
  inputs: tuple[Any, ...],
  frozen: bool,
) -> dict[str, Any]:
  """Return the weights of a network that lost half of its channels."""
  probe = compress.probe(apply, params, inputs)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', UnchangedWarning)
    found = compress.init(compress.parse(HALF), params, probe, steps=0)
  want = apply(tree.decode(found), *inputs)
  given = compress.freeze(found) if frozen else found
  graph, weights = narrowed(capture(apply, params, *inputs), given)
  got = evaluate.run(graph, tree.decode(weights), *inputs)
  np.testing.assert_allclose(
    np.float32(got), np.float32(want), rtol=1e-4, atol=1e-4
  )
  return weights


def sizes(weights: dict[str, Any]) -> dict[str, tuple[int, ...]]:
  """Return the shapes of weights by the end of their paths."""
  return {path: tuple(x.shape) for path, x in weights.items()}


@pytest.mark.parametrize('frozen', [False, True])
def test_lists_of_bare_kernels_lose_channels(frozen: bool) -> None:
  """Each is a layer; all three were one, and the wrong entries went."""
  weights = small(chain, {'all': KERNELS}, (X,), frozen)
  assert sizes(weights) == {'all/0': (6, 4), 'all/1': (4, 6), 'all/2': (6, 3)}


def test_constants_follow_the_channels_that_they_meet() -> None:
  """As running statistics in a closure, by the order of the channels."""
  mean, gain = np.arange(8, dtype='f4'), np.linspace(-1, 1, 24, dtype='f4')

  def apply(params: Any, x: jax.Array) -> jax.Array:
    y = (x @ params['a']['kernel'] - mean) * (1 + params['a']['scale'])
    z = jnp.stack([y, -y], 1).reshape(-1, 16) @ params['b']['kernel']
    return (z * gain[:12] + gain[12:]) @ params['c']['kernel']

  params = {
    'a': {'kernel': KERNELS[0], 'scale': KERNELS[1][:, 0]},
    'b': {'kernel': np.concatenate([KERNELS[1]] * 2)},
    'c': {'kernel': KERNELS[2]},
  }
  weights = small(apply, params, (X,), frozen=True)
  want = {'a/kernel': (6, 4), 'b/kernel': (8, 6), 'c/kernel': (6, 3)}
  assert sizes(weights) == {**want, 'a/scale': (4,)}


@pytest.mark.parametrize(
  ('name', 'path', 'shape'),
  [
    ('nn.vmap', 'heads/kernel', (2, 4, 3)),
    ('NNX CNN', 'second/kernel', (3, 3, 4, 4)),
    ('Linen CNN', 'depth/kernel', (3, 3, 1, 4)),
  ],
)
def test_networks_of_any_framework_lose_channels(
  name: str, path: str, shape: tuple[int, ...]
) -> None:
  """Stacked kernels, statistics in closures, depthwise kernels."""
  model = frameworks.MODELS[name]()
  assert (
    sizes(small(model.apply, model.params, model.inputs, True))[path] == shape
  )


def test_channels_that_are_needed_stay_as_zeros() -> None:
  """A network that reads removed entries by their place."""

  def apply(params: Any, x: jax.Array) -> jax.Array:
    return chain(params, x)

  params = {'all': KERNELS}
  probe = compress.probe(apply, params, X)
  found = compress.init(compress.parse(HALF), params, probe, steps=0)
  found['all'][2] = tree.decode(found['all'][2])  # of all channels
  with pytest.warns(UserWarning, match='stored as zeros'):
    _, weights = narrowed(capture(apply, params, X), found)
  assert sizes(weights)['all/0'] == KERNELS[0].shape


def test_what_cannot_go_is_said_before_training() -> None:
  found = frameworks.MODELS['shared layer']()
  params = {'net': found.params, 'head': KERNELS[2][:3]}

  def apply(params: Any, x: jax.Array) -> jax.Array:
    return found.apply(params['net'], x) @ params['head']

  probe = compress.probe(apply, params, found.inputs)
  with pytest.warns(UnchangedWarning, match='left net/shared.*: each is used'):
    compress.init(compress.parse(HALF), params, probe, steps=0)
