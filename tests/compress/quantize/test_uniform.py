"""Grids against NumPy, and the gradient that goes straight through them."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress import recipe, tree
from compress.method import Ctx
from compress.quantize.affine import straight_through
from compress.quantize.fake_quant import FakeQuantized
from compress.quantize.integer_codes import Quantized
from compress.quantize.uniform import int8, ternary, uniform
from tests.runs import TINY, calibrated, images, run, start

BITS = st.integers(2, 16)
W = np.random.default_rng(0).normal(size=(3, 3, 2, 5)).astype(np.float32)
X = np.linspace(-4.0, 7.0, 641, dtype=np.float32)
PARAMS = {'fc': {'bias': jnp.ones(5), 'kernel': jnp.asarray(W)}}


def test_weights_pass_gradients_everywhere() -> None:
  weight = np.random.default_rng(1).normal(size=W.shape).astype(np.float32)

  def loss(w: Any) -> Any:
    return jnp.sum(weight * FakeQuantized(w, None, 3).decode())

  np.testing.assert_array_equal(jax.grad(loss)(jnp.asarray(W)), weight)


# A CPU takes subnormal numbers for 0 on the way.
numbers = st.floats(-100, 100, width=32, allow_subnormal=False)


@given(grid=numbers, x=numbers)
@settings(max_examples=30, deadline=None)
def test_straight_through_changes_no_bit(grid: float, x: float) -> None:
  value, slope = jax.value_and_grad(
    lambda x: straight_through(jnp.float32(grid), x)
  )(jnp.float32(x))
  assert float(value) == grid
  assert float(slope) == 1.0


@given(bits=BITS, scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e30]))
@settings(max_examples=25, deadline=None)
def test_weights_are_rounded_per_channel(bits: int, scale: float) -> None:
  w = W * np.float32(scale) * np.array([1, 10, 0.1, 3, 7], np.float32)
  node = FakeQuantized(jnp.asarray(w), None, bits)
  top = 2 ** (bits - 1) - 1
  steps = np.abs(w.astype(float)).max(axis=(0, 1, 2)) / top
  decoded = np.asarray(node.decode(), float)
  assert np.all(np.abs(decoded - w) <= steps * (0.5 + 1e-2))
  ratio = w.astype(float) / steps
  sure = np.abs(np.abs(ratio) % 1 - 0.5) > 1e-2
  np.testing.assert_allclose(
    (decoded / steps)[sure], np.round(ratio)[sure], atol=1e-2
  )
  # The largest weight of a channel is an end of its grid.
  np.testing.assert_allclose(
    np.abs(decoded).max(axis=(0, 1, 2)), steps * top, rtol=1e-6
  )


@pytest.mark.parametrize('tiny', [0.0, 1e-42, 2e-38, 1e-36])
def test_channels_without_size_decode_to_zero(tiny: float) -> None:
  w = jnp.asarray(W).at[..., 2].set(tiny).at[0, 0, 0, 2].set(0.0)
  for bits in (2, 8, 16):
    node = FakeQuantized(w, None, bits)
    assert np.all(np.abs(node.decode()[..., 2]) <= tiny)
    assert np.all(np.isfinite(node.freeze().decode()))


@given(bits=BITS)
@settings(max_examples=15, deadline=None)
def test_codes_are_integers_of_their_width(bits: int) -> None:
  node = FakeQuantized(jnp.asarray(W), None, bits)
  frozen = node.freeze()
  assert frozen.codes.dtype == (jnp.int8 if bits <= 8 else jnp.int16)
  assert int(jnp.abs(frozen.codes.astype(int)).max()) == 2 ** (bits - 1) - 1
  assert frozen.scale.shape == (5,)
  np.testing.assert_array_equal(frozen.decode(), node.decode())


def test_codes_take_masks_and_gains() -> None:
  node = FakeQuantized(jnp.asarray(W), None, 8).freeze()
  mask = W > 0
  zeroed = node.apply_mask(mask)
  np.testing.assert_array_equal(
    zeroed.decode(), np.where(mask, node.decode(), 0)
  )
  gain = np.array([1, 2, -4, 0.5, 0], np.float32)  # exact in binary
  np.testing.assert_array_equal(
    node.scale_channels(gain).decode(), node.decode() * gain
  )
  np.testing.assert_array_equal(node.scale_channels(gain).codes, node.codes)


def test_ranges_follow_an_exponential_mean() -> None:
  ranges = np.random.default_rng(2).normal(size=(20, 2)).astype(np.float32)
  ranges.sort(axis=1)
  compress = uniform(8, 8, momentum=0.9)
  params = compress.init(PARAMS, Ctx(stats={'fc/kernel': ranges[0]}))
  want = ranges[0].astype(float)
  for observed in ranges[1:]:
    stats = {'fc/kernel': observed, 'elsewhere/kernel': 9 * observed}
    params = compress.update(params, Ctx(stats=stats))
    want = 0.9 * want + 0.1 * observed
  inputs = params['fc']['kernel'].inputs
  np.testing.assert_allclose([inputs.low, inputs.high], want, rtol=1e-5)
  assert inputs.bits == 8
  kept = compress.update(params, Ctx(stats={}))['fc']['kernel'].inputs
  assert kept is inputs


def test_int8_is_a_grid_of_eight_bits() -> None:
  stats = {'fc/kernel': jnp.array([-1.0, 2.0])}
  one = int8().init(PARAMS, Ctx(stats=stats))
  other = uniform(8, 8).init(PARAMS, Ctx(stats=stats))
  assert jax.tree.structure(one) == jax.tree.structure(other)
  assert one['fc']['kernel'].bits == one['fc']['kernel'].inputs.bits == 8
  assert one['fc']['bias'] is PARAMS['fc']['bias']


def test_inputs_are_float_by_default() -> None:
  node = uniform(4).init(PARAMS, Ctx())['fc']['kernel']
  assert node.inputs is None
  assert node.transform_input(X) is X
  after = uniform(4).update({'fc': node}, Ctx(stats={'fc': jnp.ones(2)}))
  assert after['fc'].inputs is None


@pytest.mark.parametrize('bits', [0, 1, 17, 33, -8, 2.5, 8.0, '8', None, True])
def test_impossible_widths_are_refused(bits: Any) -> None:
  with pytest.raises(ValueError, match='weight_bits from 2 to 16, got'):
    uniform(bits)
  if bits:  # 0 is for float inputs
    with pytest.raises(ValueError, match='activation_bits from 2 to 16, got'):
      uniform(8, bits)


@pytest.mark.parametrize('momentum', [-0.1, 1.1, math.nan])
def test_impossible_momenta_are_refused(momentum: float) -> None:
  with pytest.raises(ValueError, match=r'momentum in \[0, 1\], got'):
    int8(momentum=momentum)


def test_missing_statistics_are_named() -> None:
  with pytest.raises(
    ValueError, match=r'at fc/kernel.*got \[\]. Use compress.init with'
  ):
    int8().init(PARAMS, Ctx())
  with pytest.raises(ValueError, match="fc/kernel.*got .'other/kernel'"):
    stats = {'other/kernel': jnp.zeros(2)}
    int8().init(PARAMS, Ctx(stats=stats))


@pytest.mark.parametrize('frozen', [False, True])
def test_quantizing_twice_is_refused(frozen: bool) -> None:
  once = uniform(8).init(PARAMS, Ctx())
  once = tree.freeze(once) if frozen else once
  kind = Quantized if frozen else FakeQuantized
  assert tree.find(kind, once)
  with pytest.raises(ValueError, match=f'got {kind.__name__} at fc/kernel'):
    uniform(4).init(once, Ctx())


@pytest.mark.parametrize('axis', range(W.ndim))
def test_codes_are_spread_among_zeros(axis: int) -> None:
  keep, size = np.arange(W.shape[axis])[::2], W.shape[axis]
  node = FakeQuantized(jnp.take(W, keep, axis), None, 8).freeze()
  wide = node.scatter(keep, axis, size)
  want = np.zeros(W.shape, np.float32)
  np.moveaxis(want, axis, 0)[keep] = np.moveaxis(node.decode(), axis, 0)
  np.testing.assert_array_equal(wide.decode(), want)
  assert wide.codes.dtype == jnp.int8
  assert np.all(wide.scale > 0)


def test_clips_make_the_grid_narrower_and_follow_the_weights() -> None:
  compress = uniform(3, clip='mse', per='tensor')
  params = compress.init({'fc': {'kernel': jnp.asarray(W)}}, Ctx())
  node = params['fc']['kernel']
  assert 0 < float(node.clip_ratio) < 1
  spiky = jnp.asarray(W).at[0, 0, 0, 0].set(40.0)
  moved = {'fc': {'kernel': node.replace(w=spiky)}}
  fresh = compress.init({'fc': {'kernel': spiky}}, Ctx())
  for step, want in (
    (3, node.clip_ratio),
    (5, fresh['fc']['kernel'].clip_ratio),
  ):
    found = compress.update(moved, Ctx(step, 100))['fc']['kernel']
    assert float(found.clip_ratio) == float(want)


def test_clipped_ranges_follow_their_share_of_observed_ranges() -> None:
  ctx = calibrated(TINY)
  stats = {path: jnp.array([-2.0, 6.0]) for path in ctx.stats or {}}
  compress = uniform(8, 4, activation_clip=0.9, momentum=0.5, freeze_at=0.5)
  before = compress.init(start(TINY)['params'], ctx)
  node = before['conv']['kernel']
  x = np.abs(images(TINY, 32))
  want = np.quantile(x, 0.9) / x.max()
  assert float(node.input_clip_ratio) == pytest.approx(want, rel=1e-4)
  low, high = ctx.stats['conv/kernel'] * node.input_clip_ratio
  np.testing.assert_allclose([node.inputs.low, node.inputs.high], [low, high])
  after = compress.update(before, Ctx(1, 4, stats=stats))['conv']['kernel']
  np.testing.assert_allclose(
    [after.inputs.low, after.inputs.high],
    [(low - 2 * want) / 2, (high + 6 * want) / 2],
    rtol=1e-4,
  )
  late = compress.update(before, Ctx(3, 4, stats=stats))['conv']['kernel']
  np.testing.assert_allclose([late.inputs.low, late.inputs.high], [low, high])


def test_dead_units_are_said_to_be_the_reason() -> None:
  variables = start(TINY)
  norm = {'scale': jnp.ones(4), 'bias': jnp.full(4, -99.0)}  # relu gives 0
  params = {**variables['params'], 'norm': norm}
  _, stats = run(TINY, {**variables, 'params': params})
  assert float(stats['fc/kernel'][1]) == 0
  message = 'fc/kernel: .* got only 0. All units before this layer are dead'
  with pytest.raises(ValueError, match=message):
    int8().init(params, Ctx(stats=stats))
  rest = uniform(8).init(params, Ctx(stats=stats))
  assert np.all(np.isfinite(tree.decode(rest)['fc']['kernel']))


@pytest.mark.slow
@pytest.mark.parametrize(
  'text', ['uniform(4)', 'lsq(4)', 'dorefa(4)', 'uniform(3)']
)
def test_a_channel_of_zeros_trains_on(text: str) -> None:
  w = jnp.ones((6, 3)).at[:, 1].set(0.0)
  node = recipe.parse(f'quantize.{text}').init({'w': w}, Ctx())['w']
  trainable, frozen = tree.split({'w': node})

  def loss(trainable: Any) -> Any:
    return jnp.sum(tree.decode(tree.merge(trainable, frozen))['w'] ** 2)

  for x in jax.tree.leaves(jax.grad(loss)(trainable)):
    assert np.all(np.isfinite(x))
  found = node.freeze().decode()
  assert np.abs(found[:, 1]).max() <= 0.5 * np.abs(found[:, 0]).min()


@pytest.mark.parametrize(
  ('observed', 'message'),
  [
    ([-1.0, math.inf], 'fc/kernel: expected a finite range of inputs'),
    ([math.nan, 1.0], 'fc/kernel: expected a finite range of inputs'),
    ([0.0, 0.0], 'fc/kernel: expected inputs that differ, got only 0'),
  ],
)
def test_ranges_that_are_none_are_refused(
  observed: list[float], message: str
) -> None:
  with pytest.raises(ValueError, match=message):
    int8().init(PARAMS, Ctx(stats={'fc/kernel': jnp.array(observed)}))


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: uniform(per='row'), "expected per='tensor', 'channel'"),
    (lambda: uniform(clip='best'), 'expected a clip of absmax'),
    (lambda: uniform(8, 8, activation_clip=2.0), 'expected a clip of'),
    (lambda: uniform(freeze_at=2.0), r'freeze_at in \[0, 1\], got 2.0'),
  ],
)
def test_other_choices_are_refused(make: Any, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    make()


def test_clips_of_inputs_need_data() -> None:
  stats = {'fc/kernel': jnp.array([0.0, 1.0])}
  with pytest.raises(
    ValueError, match='quantize.uniform: expected calibration'
  ):
    uniform(8, 8, activation_clip='mse').init(PARAMS, Ctx(stats=stats))


def test_ternary_weights_have_three_values() -> None:
  node = ternary(per='tensor').init(PARAMS, Ctx())['fc']['kernel']
  values = np.unique(node.decode())
  assert len(values) == 3
  alpha = values[-1]
  np.testing.assert_allclose(values, [-alpha, 0, alpha])
  beyond = np.abs(W)[np.abs(W) > alpha / 2]
  assert alpha == pytest.approx(beyond.mean(), rel=1e-5)
