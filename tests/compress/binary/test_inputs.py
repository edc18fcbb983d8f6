"""What a layer sees of its input, by the formulas of the papers."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import dataflow, tree
from compress.binary.inputs import Signed, first_and_last, inputs
from compress.binary.presets import bnn
from compress.channels.sliced import Sliced
from compress.method import Ctx, chain, only
from compress.prune import magnitude
from compress.quantize.delay import Delayed
from compress.quantize.fake_quant import FakeQuantized
from compress.quantize.integer_codes import Inputs, Quantized
from compress.quantize.uniform import uniform
from tests.nets import probe_with, sites_with
from tsukiji.deploy.passes.lower import captured
from tsukiji.measure import cost
from tsukiji.models import spec as sp
from tsukiji.models.net import Net

RNG = np.random.default_rng(0)
W = RNG.normal(size=(3, 3, 2, 5)).astype(np.float32)
X = RNG.normal(size=(4, 6, 6, 2)).astype(np.float32)
PARAMS = {
  name: {'bias': jnp.ones(5), 'kernel': jnp.asarray(W)}
  for name in ('one', 'three', 'two')
}


def ctx(*order: str) -> Ctx:
  """Return a context whose probe knows the order of the layers."""
  uses = {f'{name}/kernel': 1 for name in order}
  return Ctx(probe=probe_with(sites=sites_with(uses)))


CTX = ctx('one', 'two', 'three')


def node(**fields: Any) -> Signed:
  """Return a node of its defaults, but for some fields."""
  known = {'threshold': None, 'gradient': 'clipped', 'sized': False}
  return Signed(jnp.asarray(W), **(known | fields))


def test_inputs_are_met_as_signs() -> None:
  np.testing.assert_array_equal(
    node().transform_input(X), np.where(X >= 0, 1, -1)
  )
  np.testing.assert_array_equal(node().decode(), W)


def test_thresholds_turn_the_signs() -> None:
  turn = np.float32([0.5, -1.0])
  met = node(threshold=jnp.asarray(turn)).transform_input(X)
  np.testing.assert_array_equal(met, np.where(turn <= X, 1, -1))
  wide = np.concatenate([X, X], -1)  # two groups share what they have
  met = node(threshold=jnp.asarray(turn)).transform_input(wide)
  np.testing.assert_array_equal(met, np.where(wide >= [*turn] * 2, 1, -1))


def test_thresholds_learn_from_every_place_of_their_channel() -> None:
  turn = np.float32([0.5, -1.0])
  weight = RNG.normal(size=X.shape).astype(np.float32)

  def loss(turn: Any, x: Any) -> Any:
    met = node(threshold=turn, gradient='quadratic').transform_input(x)
    return jnp.sum(weight * met)

  by_turn, by_x = jax.grad(loss, argnums=(0, 1))(turn, X)
  want = weight * np.maximum(2 - 2 * np.abs(X - turn), 0)
  np.testing.assert_allclose(by_x, want, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(by_turn, -want.sum((0, 1, 2)), rtol=1e-4)
  trainable, _ = tree.split({'w': node(threshold=jnp.asarray(turn))})
  assert len(jax.tree.leaves(trainable)) == 2


def box(x: np.ndarray, padding: str, strides: tuple[int, int]) -> np.ndarray:
  """Return K of equation 11 for a 3x3 kernel, place by place."""
  size = np.abs(x.astype(float)).mean(-1)
  if padding == 'SAME':
    pads = [
      max((-(-n // s) - 1) * s + 3 - n, 0)
      for n, s in zip(size.shape[1:], strides, strict=True)
    ]
    size = np.pad(size, [(0, 0), *((p // 2, p - p // 2) for p in pads)])
  rows, columns = (
    range(0, n - 2, s) for n, s in zip(size.shape[1:], strides, strict=True)
  )
  found = [
    [size[:, i : i + 3, j : j + 3].mean((1, 2)) for j in columns] for i in rows
  ]
  return np.moveaxis(np.array(found), -1, 0)[..., None]


@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize(
  ('padding', 'strides'), [('VALID', (1, 1)), ('SAME', (2, 1))]
)
def test_sums_are_sized_place_by_place(
  bias: bool, padding: str, strides: tuple[int, int]
) -> None:
  layer = sp.Conv(
    name='c',
    features=5,
    kernel=(3, 3),
    padding=padding,
    strides=strides,
    bias=bias,
  )
  net = Net(sp.Spec(name='c', input_shape=X.shape[1:], layers=(layer,)))
  by = {'bias': np.arange(5, dtype=np.float32)} if bias else {}
  run = lambda params, x: net.apply({'params': params}, x)  # noqa: E731
  signs = np.where(X >= 0, 1, -1)
  zero = {'bias': np.zeros(5, np.float32)} if bias else {}
  plain = np.asarray(run({'c': {'kernel': W, **zero}}, signs))
  want = plain * box(X, padding, strides)
  want += by.get('bias', 0)
  found = dataflow.apply(run, {'c': {'kernel': node(sized=True), **by}}, X)
  np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('padding', [1, 'CIRCULAR', 'REFLECT'])
def test_sums_of_any_flax_padding_are_sized(padding: Any) -> None:
  layer = nn.Conv(5, (3, 3), padding=padding, use_bias=False)
  params = {'kernel': Signed(jnp.asarray(W), None, 'clipped', True)}
  run = lambda params, x: layer.apply({'params': params}, x)  # noqa: E731
  found = dataflow.apply(run, params, X)
  # The box filter through a layer of the same padding.
  mean = nn.Conv(1, (3, 3), padding=padding, use_bias=False)
  box = {'params': {'kernel': jnp.full((3, 3, 1, 1), 1 / 9)}}
  size = mean.apply(box, np.abs(X).mean(-1, keepdims=True))
  want = layer.apply({'params': {'kernel': W}}, np.sign(X)) * size
  np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


def test_a_dense_layer_is_sized_by_example() -> None:
  x = X.reshape(4, -1)
  sized = node(sized=True)
  want = np.abs(x.astype(float)).mean(1, keepdims=True)
  np.testing.assert_allclose(
    sized.scale_output(x, dataflow.mean), want, rtol=1e-5
  )
  np.testing.assert_array_equal(
    sized.transform_input(x), np.where(x >= 0, 1, -1)
  )
  assert node().scale_output(x, dataflow.mean) is None


def test_channels_that_are_gone_have_no_size() -> None:
  keep = np.array([0, 1])
  sized = node(sized=True)
  around = Sliced(sized, keep, 2, 4)
  wide = np.concatenate([X, 9 * X], -1)
  want = sized.scale_output(X, dataflow.mean)
  np.testing.assert_array_equal(around.scale_output(wide, dataflow.mean), want)
  assert tree.freeze({'w': around})['w'].size == 4  # its zeros would count
  waiting = Delayed(sized, jnp.asarray(False)).scale_output(X, dataflow.mean)
  np.testing.assert_array_equal(waiting, np.ones_like(want))


@pytest.mark.parametrize(
  ('ends', 'signed'),
  [(True, {'two/kernel', 'three/kernel'}), (False, {'two/kernel'})],
)
def test_the_image_is_not_signed(ends: bool, signed: set[str]) -> None:
  params = inputs(ends=ends).init(PARAMS, CTX)
  assert set(tree.find(Signed, params)) == signed
  assert params['one']['kernel'] is PARAMS['one']['kernel']


def test_only_does_not_change_which_layer_is_the_first() -> None:
  some = only('(one|two)/kernel', inputs()).init(PARAMS, CTX)
  assert set(tree.find(Signed, some)) == {'two/kernel'}
  with pytest.raises(
    ValueError, match='inputs: .* other than one/kernel, got none'
  ):
    only('one/kernel', inputs()).init(PARAMS, CTX)


def test_a_network_without_a_middle_is_refused() -> None:
  two = {name: PARAMS[name] for name in ('one', 'two')}
  with pytest.raises(ValueError, match='other than one/kernel and two/kernel'):
    inputs(ends=False).init(two, ctx('one', 'two'))


def test_parts_of_a_node_are_signed_once() -> None:
  params = chain(magnitude.weights(0.5), inputs()).init(PARAMS, CTX)
  masked = params['two']['kernel']
  assert isinstance(masked, magnitude.Masked)
  np.testing.assert_array_equal(
    masked.transform_input(X), np.where(X >= 0, 1, -1)
  )


def test_a_grid_of_inputs_inside_sees_nothing() -> None:
  found = chain(inputs(), only('two/kernel', uniform(4))).init(PARAMS, CTX)
  frozen = tree.freeze(found)['two']['kernel']
  assert isinstance(frozen.w, Quantized)
  grid = Inputs(jnp.float32(0), jnp.float32(1), 8)
  around = frozen.replace(w=frozen.w.replace(inputs=grid))
  np.testing.assert_array_equal(
    around.transform_input(X), np.where(X >= 0, 1, -1)
  )


@pytest.mark.parametrize('threshold', [None, np.float32([0.5, -1.0])])
@pytest.mark.parametrize('frozen', [False, True])
def test_the_algebra_reaches_the_weight(threshold: Any, frozen: bool) -> None:
  one = node(threshold=threshold)
  if frozen:
    quantized = FakeQuantized(one.w, None, 8).freeze()
    one = one.replace(w=quantized)
  dense = np.asarray(tree.decode(one))
  gain = np.float32([1, 2, -4, 0.5, 0])
  np.testing.assert_array_equal(
    tree.decode(one.scale_channels(gain)), dense * gain
  )
  zeroed = one.apply_mask(W > 0)
  np.testing.assert_array_equal(tree.decode(zeroed), np.where(W > 0, dense, 0))
  keep = np.array([0, 2])
  wide = one.scatter(keep, 2, 4)
  np.testing.assert_array_equal(tree.decode(wide)[:, :, keep], dense)
  assert not np.any(np.asarray(tree.decode(wide))[:, :, [1, 3]])
  if threshold is not None:
    assert wide.threshold.tolist() == [0.5, 0.0, -1.0, 0.0]
    kept = one.scatter(np.arange(5), 3, 6).threshold
    np.testing.assert_array_equal(kept, threshold)


class Stiff(Quantized):
  """Codes that can nothing."""

  def scale_channels(self, gain: Any) -> Any:
    del gain


def test_what_the_weight_cannot_is_not_done() -> None:
  codes = FakeQuantized(jnp.asarray(W), None, 8).freeze()
  stiff = Stiff(codes.codes, codes.scale, None, 8)
  assert node().replace(w=stiff).scale_channels(jnp.ones(5)) is None


def test_widths_are_counted() -> None:
  spec = sp.Spec(
    name='two',
    input_shape=(4,),
    layers=(
      sp.Dense(name='one', features=3),
      sp.Dense(name='two', features=2),
    ),
  )
  start = {
    'one': {'bias': jnp.ones(3), 'kernel': jnp.ones((4, 3))},
    'two': {'bias': jnp.ones(2), 'kernel': jnp.ones((3, 2))},
  }
  found = bnn().init(start, ctx('one', 'two'))
  costs = cost.layers(*captured(spec, {'params': found}))
  widths = [(c.weight_bits, c.activation_bits, c.bops) for c in costs]
  assert widths == [(1, 32, 12 * 32), (1, 1, 6)]


def test_refusals() -> None:
  with pytest.raises(ValueError, match='gradient of clipped, quadratic, got'):
    inputs(gradient='sharp')
  with pytest.raises(ValueError, match='binary.inputs: expected calibration'):
    inputs().init(PARAMS, Ctx())
  with pytest.raises(ValueError, match='at .*/kernel. Give each weight one'):
    chain(inputs(), inputs()).init(PARAMS, CTX)
  with pytest.raises(
    ValueError, match='FakeQuantized at .*/kernel. Put it first'
  ):
    chain(uniform(4), inputs()).init(PARAMS, CTX)


def test_the_ends_are_those_of_the_probe() -> None:
  assert first_and_last('x', CTX) == ('one/kernel', 'three/kernel')
