"""Learned grids against their papers, by loops and by differences."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import compress
from compress import method as method_lib
from compress import recipe, tree
from compress.method import Ctx
from compress.quantize.integer_codes import Shifted
from compress.quantize.lsq import LsqInputs, LsqWeight, lsq
from tests.runs import TINY, assert_same_bits, calibrated, images, start

W = np.random.default_rng(0).normal(size=(3, 3, 2, 5)).astype(np.float32)
X = np.linspace(-4.0, 7.0, 640, dtype=np.float32).reshape(4, 160)


def lsq_slopes(
  v: np.ndarray, s: float, low: int, high: int
) -> tuple[np.ndarray, np.ndarray]:
  """Return equations 3 and 5 of arXiv 1902.08153, value by value."""
  by_step, by_value = np.zeros(v.shape), np.zeros(v.shape)
  for at, x in np.ndenumerate(v.astype(float) / s):
    if x <= low:
      by_step[at] = low
    elif x >= high:
      by_step[at] = high
    else:
      by_step[at], by_value[at] = np.round(x) - x, 1.0
  return by_step, by_value


def test_steps_of_weights_have_the_gradient_of_the_paper() -> None:
  step = jnp.array([0.3, 0.1, 0.5, 0.2, 1.0])
  node = LsqWeight(jnp.asarray(W), step, None, 3)
  up = np.random.default_rng(1).normal(size=W.shape)

  def loss(w: Any, step: Any) -> Any:
    return jnp.sum(up * node.replace(w=w, step=step).decode())

  slopes = jax.grad(loss, argnums=(0, 1))(node.w, step)
  gain = 1 / math.sqrt(18 * 3)  # 18 weights a channel, Q_P = 3
  for c in range(5):
    by_step, by_value = lsq_slopes(W[..., c], float(step[c]), -3, 3)
    want = gain * np.sum(up[..., c] * by_step)
    assert float(slopes[1][c]) == pytest.approx(want, rel=1e-3)
    np.testing.assert_allclose(
      slopes[0][..., c], up[..., c] * by_value, rtol=1e-5
    )


@pytest.mark.slow
def test_steps_may_be_one_a_group() -> None:
  rows = W.reshape(18, 5)
  groups = (rows[:9], rows[9:])  # at most 10 inputs, as equal as can be
  node = lsq(3, per=10).init({'w': jnp.asarray(W)}, Ctx())['w']
  want = [2 * np.abs(x).mean(0) / math.sqrt(3) for x in groups]
  np.testing.assert_allclose(node.step, want, rtol=1e-5)

  def loss(step: Any) -> Any:
    return jnp.sum(W * node.replace(step=step).decode())

  slopes = jax.grad(loss)(node.step)
  for found, x, steps in zip(slopes, groups, want, strict=True):
    for c in range(5):
      by_step, _ = lsq_slopes(x[:, c], float(steps[c]), -3, 3)
      slope = np.sum(x[:, c] * by_step) / math.sqrt(9 * 3)
      assert float(found[c]) == pytest.approx(slope, rel=1e-3)
  np.testing.assert_array_equal(node.freeze().decode(), node.decode())


def test_a_short_last_group_starts_as_the_paper_says() -> None:
  w = jnp.asarray(W.reshape(18, 5)[:17])
  node = lsq(3, per=9).init({'w': w}, Ctx())['w']
  last = np.abs(np.asarray(w)[9:]).mean(0)
  np.testing.assert_allclose(node.step[1], 2 * last / math.sqrt(3), rtol=1e-5)
  np.testing.assert_array_equal(node.freeze().decode(), node.decode())


@pytest.mark.slow
@pytest.mark.parametrize(
  ('signed', 'low', 'high'), [(False, 0, 7), (True, -4, 3)]
)
def test_steps_of_inputs_have_the_gradient_of_the_paper(
  signed: bool, low: int, high: int
) -> None:
  step = jnp.float32(0.7)

  def loss(x: Any, step: Any) -> Any:
    return jnp.sum(X * LsqInputs(step, 3, signed).round(x))

  slopes = jax.grad(loss, argnums=(0, 1))(jnp.asarray(X), step)
  by_step, by_value = lsq_slopes(X, 0.7, low, high)
  gain = 1 / math.sqrt(160 * high)
  assert float(slopes[1]) == pytest.approx(gain * np.sum(X * by_step), rel=1e-3)
  np.testing.assert_allclose(slopes[0], X * by_value)
  found = LsqInputs(step, 3, signed).round(jnp.asarray(X))
  want = 0.7 * np.clip(np.round(X / np.float32(0.7)), low, high)
  np.testing.assert_allclose(found, want, atol=1e-6)


def test_steps_start_as_in_the_paper() -> None:
  ctx, params = calibrated(TINY), start(TINY)['params']
  nodes = lsq(3, 4, per='tensor').init(params, ctx)
  fc = nodes['fc']['kernel']
  want = 2 * np.abs(params['fc']['kernel']).mean() / math.sqrt(3)
  assert float(fc.step) == pytest.approx(want, rel=1e-5)
  conv = nodes['conv']['kernel']
  assert conv.inputs.signed
  assert not fc.inputs.signed  # behind a ReLU
  want = 2 * np.abs(images(TINY, 32)).mean() / math.sqrt(7)
  assert float(conv.inputs.step) == pytest.approx(want, rel=1e-5)
  wide = lsq(3).init({'w': jnp.asarray(W).at[..., 1].set(0.0)}, Ctx())
  assert float(wide['w'].step[1]) == 1.0
  assert not np.any(wide['w'].decode()[..., 1])


@pytest.mark.parametrize('step', [0.0, -0.3, 1e-20])
def test_steps_that_vanish_or_turn_are_survived(step: float) -> None:
  node = LsqWeight(jnp.asarray(W), jnp.full(5, step), None, 4)
  slopes = jax.grad(lambda n: jnp.sum(n.decode()))(node)
  assert np.all(np.isfinite(node.decode()))
  assert np.all(np.isfinite(slopes.step))
  grid = LsqInputs(jnp.float32(step), 4, True)
  assert np.all(np.isfinite(grid.round(jnp.asarray(X))))


@pytest.mark.parametrize(
  'text', ['lsq(4, 4)', 'pact(4, 4)', 'dorefa(4, 4)', 'lsq(9, 3)']
)
def test_what_is_stored_is_what_was_trained(text: str) -> None:
  ctx, params = calibrated(TINY), start(TINY)['params']
  nodes = recipe.parse(f'quantize.{text}').init(params, ctx)
  frozen = tree.freeze(nodes)
  assert_same_bits(tree.decode(frozen), tree.decode(nodes))
  x = images(TINY, 8)
  for path in ('conv/kernel', 'fc/kernel'):
    assert_same_bits(
      tree.paths(frozen)[path].transform_input(x),
      tree.paths(nodes)[path].transform_input(x),
    )
  if 'dorefa' in text:
    stored = frozen['fc']['kernel']
    assert isinstance(stored, Shifted)
    codes = np.asarray(stored.codes)
    assert (codes.min(), codes.max()) >= (-8, -8) and codes.max() <= 7


def test_learned_grids_reach_lower_loss_than_fixed_ones() -> None:
  w = jnp.asarray(W)
  node = LsqWeight(w, jnp.full(5, 2.0), None, 3)
  loss = jax.jit(lambda n: jnp.sum((n.decode() - w) ** 2))
  slope = jax.jit(jax.grad(loss))
  before = float(loss(node))
  for _ in range(60):
    node = node.replace(step=node.step - 0.02 * slope(node).step)
  assert float(loss(node)) < 0.5 * before


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('lsq(1)', 'lsq: expected weight_bits from 2 to 16, got 1'),
    ('lsq(4, 33)', 'lsq: expected activation_bits from 2 to 16, got 33'),
    ('lsq(4, per=0)', "lsq: expected per='tensor', 'channel' or .* got 0"),
  ],
)
def test_impossible_arguments_are_refused(text: str, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    recipe.parse(f'quantize.{text}')


@pytest.mark.parametrize('name', ['lsq', 'pact', 'dorefa'])
def test_inputs_need_calibration(name: str) -> None:
  method = recipe.parse(f'quantize.{name}(4, 4)')
  with pytest.raises(ValueError, match=f'quantize.{name}.*expected calibrat'):
    method.init(start(TINY)['params'], Ctx())
  nodes = method.init(start(TINY)['params'], calibrated(TINY))
  with pytest.raises(ValueError, match='got .* at conv/kernel'):
    method.init(nodes, calibrated(TINY))


@pytest.mark.parametrize('name', ['lsq', 'pact'])
def test_shapes_of_nodes_need_no_values(name: str) -> None:
  method, params = recipe.parse(f'quantize.{name}(4, 4)'), start(TINY)['params']
  probe = calibrated(TINY).probe
  init = functools.partial(compress.init, method, probe=probe)
  found = method_lib.traced(init, params, pytest.fail)
  conv, fc = (init(params)[x]['kernel'].inputs for x in ('conv', 'fc'))
  assert conv.signed and not fc.signed
  # Which inputs have a sign is not known without values.
  assert found['fc']['kernel'].inputs.signed
  assert found['conv']['kernel'].w.shape == params['conv']['kernel'].shape


def test_shapes_of_batches_do_not_matter() -> None:
  grid = LsqInputs(jnp.float32(0.5), 4, False)
  one = grid.round(jnp.asarray(X[:1]))
  np.testing.assert_array_equal(one, grid.round(jnp.asarray(X))[:1])
