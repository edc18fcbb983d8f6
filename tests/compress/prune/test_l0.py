"""Hard concrete gates against scipy and numpy, and what they learn."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from compress import tree
from compress.method import Ctx, Method, chain, only
from compress.prune import magnitude
from compress.prune.l0 import Gated, deterministic, l0, open_probability, sample
from compress.quantize.integer_codes import Quantized
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


def opened(params: Any, log_alpha: Any) -> Any:
  """Return the tree with other gates, drawn by path."""
  return tree.map_nodes(
    Gated,
    lambda path, node: node.replace(
      logits=jnp.float32(log_alpha(path, node.logits.size)) / node.speed
    ),
    params,
  )


def drawn(path: str, size: int) -> np.ndarray:
  """Return gates of every kind: closed, open and between."""
  return np.random.default_rng(len(path)).normal(0, 3, size)


@given(st.floats(-4, 4, width=32))
@settings(max_examples=8, deadline=None)
def test_samples_have_the_distribution_of_the_paper(log_alpha: float) -> None:
  where = jnp.full(20_000, log_alpha)
  z = np.asarray(sample(jax.random.key(1), where))
  assert z.min() >= 0
  assert z.max() <= 1
  share = float(open_probability(jnp.float32(log_alpha)))
  assert share == pytest.approx(
    expit(log_alpha - 2 / 3 * math.log(0.1 / 1.1)), abs=1e-6
  )
  assert np.mean(z > 0) == pytest.approx(share, abs=0.015)
  # Equation 11 by inverse transform of evenly spread noise.
  u = (np.arange(20_000) + 0.5) / 20_000
  s = expit((np.log(u) - np.log1p(-u) + log_alpha) / (2 / 3))
  want = np.clip(s * 1.2 - 0.1, 0, 1)
  np.testing.assert_allclose(np.sort(z), want, atol=0.05)


def test_deterministic_gates_are_equation_13() -> None:
  x = np.linspace(-9, 9, 50)
  want = np.clip(expit(x) * 1.2 - 0.1, 0, 1)
  np.testing.assert_allclose(deterministic(jnp.float32(x)), want, atol=1e-6)


def test_extreme_gates_stay_finite() -> None:
  x = jnp.array([-1e4, -100.0, 0.0, 100.0, 1e4])

  def total(x: Any) -> Any:
    return jnp.sum(sample(jax.random.key(0), x) + open_probability(x))

  value, slope = jax.value_and_grad(total)(x)
  assert np.isfinite(value)
  assert np.all(np.isfinite(slope))


@pytest.mark.slow
@pytest.mark.parametrize('per', ['weight', 'channel'])
def test_only_a_key_makes_noise(per: str) -> None:
  method = l0(1.0, per=per)
  params = opened(method.init(PARAMS, RUN), drawn)
  params = method.update(params, Ctx(1, 10))
  node, w = params['fc']['kernel'], np.asarray(PARAMS['fc']['kernel'])
  assert node.gate.shape == (w.shape if per == 'weight' else (6,))
  log_alpha = drawn('fc/kernel', node.gate.size).reshape(node.gate.shape)
  want = w * np.clip(expit(log_alpha) * 1.2 - 0.1, 0, 1)
  np.testing.assert_allclose(tree.decode(params)['fc']['kernel'], want, 1e-5)
  one, other = (
    np.asarray(tree.decode_training(params, jax.random.key(i))['fc']['kernel'])
    for i in range(2)
  )
  assert np.any(one != other)
  ratio = one / w
  assert np.all((ratio >= 0) & (ratio <= 1 + 1e-6))
  if per == 'channel':
    np.testing.assert_allclose(ratio, ratio[:1].repeat(8, 0), rtol=1e-5)


def test_the_drop_rate_sets_the_initial_gates() -> None:
  params = l0(1.0, drop_rate=0.2, speed=7.0).init(PARAMS, RUN)
  for node in tree.find(Gated, params).values():
    np.testing.assert_allclose(expit(node.log_alpha), 0.8, atol=1e-6)
  first = l0(1.0).init(PARAMS, RUN)
  np.testing.assert_array_equal(
    tree.decode(first)['fc']['kernel'], PARAMS['fc']['kernel']
  )


def test_the_penalty_is_the_expected_share_of_open_gates() -> None:
  flat = l0(3.0, schedule=at_once())
  params = opened(flat.init(PARAMS, RUN), drawn)
  open_ = expit(
    np.concatenate([drawn('conv/kernel', 72), drawn('fc/kernel', 48)])
    - 2 / 3 * math.log(0.1 / 1.1)
  ).mean()
  assert float(flat.loss(params, RUN)) == pytest.approx(3 * open_, rel=1e-5)
  rising = l0(3.0, schedule=linear(0.2, 0.6))
  half = float(rising.loss(params, Ctx(4, 10)))
  assert half == pytest.approx(1.5 * open_, rel=1e-5)
  # With a target only the excess has a price.
  for sparsity in (0.1, 0.9):
    target = l0(3.0, sparsity=sparsity, schedule=at_once())
    want = 3 * max(0.0, open_ - (1 - sparsity))
    assert float(target.loss(params, RUN)) == pytest.approx(want, rel=1e-4)


def test_a_channel_costs_as_many_weights_as_it_removes() -> None:
  method = l0(3.0, per='channel', schedule=at_once())
  params = opened(method.init(PARAMS, RUN), drawn)
  open_ = [  # of 18 weights each, and of 8
    expit(drawn(path, n) - 2 / 3 * math.log(0.1 / 1.1))
    for path, n in (('conv/kernel', 4), ('fc/kernel', 6))
  ]
  want = 3 * (18 * open_[0].sum() + 8 * open_[1].sum()) / (72 + 48)
  assert float(method.loss(params, RUN)) == pytest.approx(want, rel=1e-5)
  both = {
    'w': params['conv']['kernel'].replace(logits=jnp.zeros(4)),
    'v': params['fc']['kernel'].replace(logits=jnp.zeros(6)),
  }
  slopes = jax.grad(method.loss, allow_int=True)(both, RUN)
  ratio = slopes['w'].logits[0] / slopes['v'].logits[0]
  assert float(ratio) == pytest.approx(18 / 8, rel=1e-5)


@pytest.mark.slow
def test_channels_close_until_the_weights_reach_the_sparsity() -> None:
  levels = {
    'conv/kernel': [4.0, 1.0, 6.0, 2.0],
    'fc/kernel': [0, 9, 9, 9, 9, 3],
  }
  for sparsity, gone in (
    (9 / 120, ([1], [0])),  # 26 of 120
    (54 / 120, ([0, 1, 3], [0, 5])),
    # The last of 'conv' stays, and so does the first of equals of 'fc'.
    (71 / 120, ([0, 1, 3], [0, 2, 5])),
  ):
    params = closed(
      l0(1.0, sparsity=sparsity, per='channel'), lambda p, n: levels[p]
    )
    for path, want in zip(levels, gone, strict=True):
      mask = tree.find(Gated, params)[path].mask
      shut = ~np.asarray(mask).reshape(-1, mask.shape[-1])
      assert np.flatnonzero(shut.any(0)).tolist() == want
      assert shut[:, want].all()
  with pytest.raises(ValueError, match='prune.l0: .* At most 0.783'):
    closed(l0(1.0, sparsity=0.9, per='channel'))  # 26 of 120 stay


def closed(method: Any, log_alpha: Any = drawn) -> Any:
  """Return the tree once its gates are at rest, early in the run."""
  params = opened(method.init(PARAMS, RUN), log_alpha)
  return method.update(params, Ctx(8, 10))


@pytest.mark.slow
@pytest.mark.parametrize('sparsity', [0.0, 0.77])
def test_a_target_is_exact_and_keeps_the_most_open(sparsity: float) -> None:
  params = closed(l0(1.0, sparsity=sparsity))
  nodes = tree.find(Gated, params).values()
  kept = np.concatenate(
    [np.asarray(x.mask).reshape(-1, x.logits.size)[0] for x in nodes]
  )
  most = np.concatenate([np.ravel(x.log_alpha) for x in nodes])
  assert np.sum(~kept) == round(sparsity * kept.size)
  assert most[kept].min() >= most[~kept].max(initial=-np.inf)


def test_frozen_gates_are_folded_and_constant() -> None:
  params = closed(l0(1.0))
  log_alpha = drawn('fc/kernel', 48).reshape(8, 6)
  z = np.clip(expit(log_alpha) * 1.2 - 0.1, 0, 1)
  node = params['fc']['kernel']
  np.testing.assert_array_equal(node.mask, z > 0)
  want = np.asarray(PARAMS['fc']['kernel']) * z
  training = tree.decode_training(params, jax.random.key(3))
  for decoded in (tree.decode(params), training):
    found = np.asarray(decoded['fc']['kernel'])
    np.testing.assert_allclose(found, want, rtol=1e-5)
    assert not found[z == 0].any()
  assert float(l0(1.0).loss(params, Ctx(9, 10))) == 0
  # Neither later updates nor moving logits change anything.
  later = l0(1.0).update(
    opened(params, lambda p, n: np.full(n, -9)), Ctx(9, 10)
  )
  np.testing.assert_array_equal(
    tree.decode(later)['fc']['kernel'], tree.decode(params)['fc']['kernel']
  )


@pytest.mark.parametrize('sparsity', [None, 0.95])
def test_no_array_is_emptied(sparsity: float | None) -> None:
  def shut(path: str, size: int) -> np.ndarray:
    return (3 if path == 'conv/kernel' else -20) + np.arange(size) / size

  params = closed(l0(1.0, sparsity=sparsity), shut)
  kept = tree.find(Gated, params)['fc/kernel']
  assert np.flatnonzero(kept.mask).tolist() == [47]
  assert np.count_nonzero(kept.decode()) == 1


@pytest.mark.slow
def test_grids_remain_grids_under_frozen_gates() -> None:
  method = chain(l0(1.0, sparsity=0.5), uniform(4))
  params = opened(method.init(PARAMS, RUN), drawn)
  params = method.update(params, Ctx(1, 10))
  assert isinstance(tree.freeze(params)['fc']['kernel'], Gated)
  params = method.update(params, Ctx(8, 10))
  frozen = tree.freeze(params)['fc']['kernel']
  assert isinstance(frozen, Quantized)
  np.testing.assert_array_equal(
    frozen.decode(), tree.decode(params)['fc']['kernel']
  )
  mask = params['fc']['kernel'].mask
  assert not np.any(np.asarray(frozen.codes)[~np.asarray(mask)])


@struct.dataclass
class Halves(tree.Compressed):
  """A weight as a sum of two."""

  trainable = inner = ('one', 'two')
  one: Any
  two: Any

  def decode(self) -> Any:
    return self.one + self.two


def test_gates_cannot_be_folded_into_factors() -> None:
  halves = Method(
    lambda params, ctx: tree.map_arrays(
      lambda path, w: Halves(w / 2, w / 2), params
    )
  )
  with pytest.raises(ValueError, match='prune.l0 at conv/kernel: .* Halves'):
    closed(chain(l0(1.0), halves))


def test_weight_decay_does_not_reach_the_gates() -> None:
  trainable, _ = tree.split(l0(1.0).init(PARAMS, RUN))
  for node in tree.find(Gated, trainable).values():
    assert tree.is_weight(node.w)
    assert not tree.is_weight(node.logits)
    assert node.mask is node.gate is node.frozen is None


@functools.cache
def learned(strength: float, sparsity: float | None = None) -> toy.Run:
  """Return one run on the toy a price."""
  method = l0(strength, sparsity=sparsity)
  return toy.fit(method, lr=0.01, steps=400)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('strength', 'sparsity'), [(10.0, None), (30.0, 1 - 5 / 36)]
)
def test_gates_close_on_what_is_irrelevant(
  strength: float, sparsity: float | None
) -> None:
  done = learned(strength, sparsity)
  np.testing.assert_array_equal(done.w != 0, toy.RELEVANT)
  np.testing.assert_allclose(done.w, toy.TRUE, atol=0.1)


@pytest.mark.slow
def test_a_vanishing_penalty_leaves_all_gates_open() -> None:
  assert np.all(learned(1e-6).w)


@pytest.mark.slow
def test_a_target_prunes_more_than_the_penalty() -> None:
  done = learned(1e-6, 0.8)
  assert np.sum(done.w == 0) == round(0.8 * 36)
  assert np.all(done.history[200] != 0)


@pytest.mark.parametrize('other', [l0(1.0), magnitude.weights(0.5)])
def test_pruning_twice_is_refused(other: Any) -> None:
  mine = l0(1.0)
  for both in (chain(mine, other), chain(other, mine)):
    with pytest.raises(ValueError, match='got .* at conv/kernel.* one pruning'):
      both.init(PARAMS, RUN)
  apart = chain(only('conv/.*', mine), only('fc/.*', other))
  params = apart.update(apart.init(PARAMS, RUN), Ctx(1, 10))
  assert isinstance(params['conv']['kernel'], Gated)


def test_training_is_required() -> None:
  with pytest.raises(ValueError, match='prune.l0: expected a run'):
    l0(1.0).init(PARAMS, Ctx(0, 0))


def test_trees_without_weights_are_unchanged() -> None:
  method, params = l0(1.0), {'bias': jnp.ones(3)}
  assert method.init(params, RUN) == params
  np.testing.assert_array_equal(method.update(params, RUN)['bias'], 1)
  assert float(method.loss(params, RUN)) == 0


@pytest.mark.parametrize(
  ('wrong', 'message'),
  [
    ({'strength': 0.0}, 'a strength above 0, got 0.0'),
    ({'strength': math.nan}, 'a strength above 0, got nan'),
    ({'speed': -1}, 'a speed above 0, got -1'),
    ({'freeze_at': 0.0}, r'freeze_at in \(0, 1\], got 0.0'),
    ({'freeze_at': 1.5}, r'freeze_at in \(0, 1\], got 1.5'),
    ({'drop_rate': 0.0}, r'a drop_rate in \(0, 0.5\], got 0.0'),
    ({'per': 'layer'}, "a granularity of weight, channel, got 'layer'"),
    ({'sparsity': 1.0}, r'a sparsity in \[0, 1\), got 1.0'),
    ({'schedule': 0.5}, 'a schedule, got 0.5'),
  ],
)
def test_impossible_arguments_are_refused(wrong: Any, message: str) -> None:
  with pytest.raises(ValueError, match=f'prune.l0: expected {message}'):
    l0(**{'strength': 1.0, **wrong})
