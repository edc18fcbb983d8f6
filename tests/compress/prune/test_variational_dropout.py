"""Sparse variational dropout against integrals, and what it learns."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress import tree
from compress.method import Ctx, chain
from compress.prune import magnitude, variational_dropout
from compress.prune.l0 import l0
from compress.prune.variational_dropout import Noisy, divergence, log_alpha
from compress.quantize.uniform import uniform
from compress.schedule import at_once, linear
from tests import toy

DRAWN = np.random.default_rng(0)
PARAMS = {
  'conv': {
    'bias': jnp.ones(4),
    'kernel': jnp.float32(DRAWN.normal(size=(3, 3, 2, 4))),
  },
  'fc': {'kernel': jnp.float32(DRAWN.normal(size=(8, 6)))},
}
RUN = Ctx(0, 10)


def loud(params: Any, shift: float = 0.0) -> Any:
  """Return the tree with variances of every kind, drawn by path."""

  def draw(path: str, node: Noisy) -> Noisy:
    drawn = np.random.default_rng(len(path)).normal(shift, 4, node.w.size)
    return node.replace(log_var=jnp.float32(drawn) / node.speed)

  return tree.map_nodes(Noisy, draw, params)


def exact(alpha: float) -> float:
  """Return the divergence up to a constant, by integration.

  KL = -log(alpha) / 2 + E[log |1 + sqrt(alpha) e|] + constant (Kingma+ 2015,
  arXiv 1506.02557, equation 24); it ends at 0 where alpha has no end.
  """
  e = (np.arange(400_000) + 0.5) / 400_000 * 20 - 10
  density = np.exp(-(e**2) / 2) / math.sqrt(2 * math.pi) * (e[1] - e[0])
  far = np.sum(density * np.log(np.abs(e)))
  near = np.sum(density * np.log(np.abs(1 + math.sqrt(alpha) * e)))
  return near - 0.5 * math.log(alpha) - far


@pytest.mark.parametrize('x', [-8.0, -4.0, -2.0, 0.0, 1.0, 3.0, 6.0])
def test_the_divergence_is_near_the_integral(x: float) -> None:
  found = float(divergence(jnp.float32(x)))
  assert found == pytest.approx(exact(math.exp(x)), abs=0.02)


@given(st.floats(-30, 30, width=32))
@settings(max_examples=40, deadline=None)
def test_the_divergence_is_equation_14_and_falls(x: float) -> None:
  k1, k2, k3 = 0.63576, 1.87320, 1.48695
  sigmoid = 1 / (1 + math.exp(-(k2 + k3 * x)))
  want = k1 - k1 * sigmoid + 0.5 * math.log1p(math.exp(-x))
  value, slope = jax.value_and_grad(divergence)(jnp.float32(x))
  assert float(value) == pytest.approx(want, abs=1e-5)
  assert -0.8 < float(slope) < 0
  if x < -8:  # where it would be clipped it still pulls
    assert float(slope) == pytest.approx(-0.5, abs=0.01)


def test_weights_at_zero_and_extreme_variances_stay_finite() -> None:
  method = variational_dropout.variational(schedule=at_once())
  w = jnp.array([[0.0, 1e-30, 1e-2], [1.0, -50.0, 0.0]])
  start = method.init({'w': w}, RUN)

  def cost(trainable: Any, frozen: Any) -> Any:
    nodes = tree.merge(trainable, frozen)
    drawn = tree.decode_training(nodes, jax.random.key(0))['w']
    return method.loss(nodes, RUN) + jnp.sum(drawn)

  graded = jax.jit(jax.value_and_grad(cost))
  for log_var in (-50.0, -10.0, 0.0, 5.0):
    node = start['w'].replace(log_var=jnp.full(6, log_var / 10))
    value, slope = graded(*tree.split({'w': node}))
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(slope))
  after = method.update(start, Ctx(1, 10))['w']  # at -10
  assert after.mask.tolist() == [[False, False, True], [True, True, False]]


def test_only_a_key_makes_noise() -> None:
  params = variational_dropout.variational().init(
    {'w': jnp.ones((200, 200))}, RUN
  )
  params = {'w': params['w'].replace(log_var=jnp.full(40_000, -0.2))}
  one, other = (
    np.asarray(tree.decode_training(params, jax.random.key(i))['w'])
    for i in range(2)
  )
  assert abs(np.mean((one - 1) * (other - 1))) < 0.01  # independent
  assert np.mean(one) == pytest.approx(1.0, abs=0.01)
  assert np.var(one) == pytest.approx(math.exp(-2.0), rel=0.03)
  np.testing.assert_array_equal(tree.decode(params)['w'], 1)


@pytest.mark.slow
def test_noisy_weights_are_pruned_and_may_grow_back() -> None:
  method = variational_dropout.variational(threshold=2.0)
  params = loud(method.init(PARAMS, RUN))
  heard = method.update(params, Ctx(1, 10))['fc']['kernel']
  drawn = np.random.default_rng(len('fc/kernel')).normal(0, 4, 48)
  w = np.asarray(PARAMS['fc']['kernel'])
  want = drawn.reshape(8, 6) - np.log(w**2 + 1e-8) < 2
  np.testing.assert_array_equal(heard.mask, want)
  np.testing.assert_array_equal(heard.decode(), np.where(want, w, 0))
  # In training every weight keeps its noise, so that it may come back.
  assert np.all(np.asarray(heard.decode_training(jax.random.key(0))) != 0)
  quiet = heard.replace(log_var=jnp.full(48, -2.0))
  back = method.update({'w': quiet}, Ctx(2, 10))['w']
  assert np.all(back.mask)


def test_the_initial_network_is_the_trained_one_plus_noise() -> None:
  params = variational_dropout.variational().init(PARAMS, RUN)
  np.testing.assert_array_equal(
    tree.decode(params)['fc']['kernel'], PARAMS['fc']['kernel']
  )
  drawn = tree.decode_training(params, jax.random.key(0))['fc']['kernel']
  gap = np.abs(drawn - PARAMS['fc']['kernel'])
  assert 0 < gap.max() < 5 * math.exp(-5)


def test_the_loss_is_the_bound() -> None:
  method = variational_dropout.variational(
    3.0, examples=100, schedule=linear(0.2, 0.6)
  )
  params = loud(method.init(PARAMS, RUN))
  total = sum(
    float(jnp.sum(divergence(log_alpha(node))))
    for node in tree.find(Noisy, params).values()
  )
  found = [float(method.loss(params, Ctx(step, 10))) for step in (2, 4, 6)]
  want = [0, 0.5 * 3 * total / 100, 3 * total / 100]
  assert found == pytest.approx(want, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('sparsity', [None, 0.3, 0.77])
def test_masks_are_frozen_when_noise_ends(sparsity: float | None) -> None:
  method = variational_dropout.variational(sparsity=sparsity)
  params = method.update(loud(method.init(PARAMS, RUN)), Ctx(8, 10))
  nodes = tree.find(Noisy, params).values()
  kept = np.concatenate([np.ravel(node.mask) for node in nodes])
  noise = np.concatenate([np.ravel(log_alpha(node)) for node in nodes])
  if sparsity is None:
    np.testing.assert_array_equal(kept, noise < 3)
  else:
    assert np.sum(~kept) == round(sparsity * kept.size)
    assert noise[kept].max() <= noise[~kept].min()
  training = tree.decode_training(params, jax.random.key(1))
  for decoded in map(tree.paths, (tree.decode(params), training)):
    for path, node in tree.find(Noisy, params).items():
      np.testing.assert_array_equal(
        decoded[path], np.where(node.mask, node.w, 0)
      )
  assert float(method.loss(params, Ctx(9, 10))) == 0
  later = method.update(loud(params, 9.0), Ctx(9, 10))
  for path, node in tree.find(Noisy, later).items():
    np.testing.assert_array_equal(
      node.mask, tree.find(Noisy, params)[path].mask
    )


def test_the_loss_stops_at_its_target() -> None:
  method = variational_dropout.variational(sparsity=0.5, schedule=at_once())
  quiet = method.init(PARAMS, RUN)
  assert float(method.loss(quiet, RUN)) > 0
  reached = loud(quiet, 20.0)
  reached = method.update(reached, Ctx(1, 10))
  assert float(method.loss(reached, RUN)) == 0


def test_no_array_is_emptied() -> None:
  method = variational_dropout.variational()
  params = method.update(loud(method.init(PARAMS, RUN), 40.0), Ctx(8, 10))
  for node in tree.find(Noisy, params).values():
    assert np.sum(node.mask) == 1


def test_latent_weights_are_compared_with_the_noise() -> None:
  method = chain(variational_dropout.variational(), uniform(2))
  params = method.init(PARAMS, RUN)
  node = params['fc']['kernel']
  want = -10 - np.log(np.asarray(PARAMS['fc']['kernel']) ** 2 + 1e-8)
  np.testing.assert_allclose(log_alpha(node), want, rtol=1e-4)


def test_weight_decay_does_not_reach_the_variances() -> None:
  trainable, _ = tree.split(variational_dropout.variational().init(PARAMS, RUN))
  for node in tree.find(Noisy, trainable).values():
    assert tree.is_weight(node.w)
    assert not tree.is_weight(node.log_var)
    assert node.mask is node.frozen is None


@functools.cache
def learned(strength: float, sparsity: float | None = None) -> toy.Run:
  """Return one run on the toy a strength."""
  method = variational_dropout.variational(
    strength, examples=512, sparsity=sparsity, freeze_at=0.9
  )
  return toy.fit(method, lr=0.01, steps=400)


@pytest.mark.slow
def test_irrelevant_weights_are_pruned() -> None:
  done = learned(10.0)
  assert np.all(done.w[toy.RELEVANT])
  assert np.sum(done.w[~toy.RELEVANT] == 0) >= 25
  np.testing.assert_allclose(done.w, toy.TRUE, atol=0.1)


@pytest.mark.slow
def test_irrelevant_weights_are_the_noisiest() -> None:
  done = learned(1.0, 1 - 5 / 36)
  np.testing.assert_array_equal(done.w != 0, toy.RELEVANT)
  np.testing.assert_allclose(done.w, toy.TRUE, atol=0.1)


@pytest.mark.slow
def test_sparsity_grows_with_the_strength() -> None:
  few, many = (np.sum(learned(s).w == 0) for s in (1e-6, 10.0))
  assert few + 10 < many


@pytest.mark.parametrize('other', [l0(1.0), magnitude.weights(0.5)])
def test_pruning_twice_is_refused(other: Any) -> None:
  mine = variational_dropout.variational()
  for both in (chain(mine, other), chain(other, mine)):
    with pytest.raises(ValueError, match='got .* at conv/kernel.* one pruning'):
      both.init(PARAMS, RUN)


def test_training_is_required() -> None:
  with pytest.raises(ValueError, match='prune.variational: expected a run'):
    variational_dropout.variational().init(PARAMS, Ctx(0, 0))


@pytest.mark.parametrize(
  ('wrong', 'message'),
  [
    ({'strength': -1.0}, 'a strength above 0, got -1.0'),
    ({'speed': math.inf}, 'a speed above 0, got inf'),
    ({'freeze_at': 0.0}, r'freeze_at in \(0, 1\], got 0.0'),
    ({'examples': 0}, 'a number of training examples, got 0'),
    ({'threshold': math.nan}, r'a threshold in \[-50, 50\], got nan'),
    ({'log_var': 99.0}, r'a log_var in \[-50, 50\], got 99.0'),
    ({'sparsity': -0.1}, r'a sparsity in \[0, 1\), got -0.1'),
    ({'schedule': 'cubic'}, "a schedule, got 'cubic'"),
  ],
)
def test_impossible_arguments_are_refused(wrong: Any, message: str) -> None:
  with pytest.raises(ValueError, match=f'variational: expected {message}'):
    variational_dropout.variational(**wrong)
