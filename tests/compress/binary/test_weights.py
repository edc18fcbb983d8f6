"""Binary weights against the formulas of the papers, and what they weigh."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe, tree
from compress.binary.inputs import Signed
from compress.binary.weights import SCALES, Binarized, LatentSigns, weights
from compress.method import Ctx, chain, only
from compress.prune import magnitude
from compress.quantize.fake_quant import FakeQuantized
from compress.quantize.integer_codes import Quantized
from tests.nets import sites_with
from tests.runs import (
  TINY,
  assert_same_bits,
  calibrated,
  fit,
  run,
  served,
  start,
)
from tests.weight_files import pack_weights
from tsukiji.deploy.passes.lower import lower
from tsukiji.deploy.tsk import pack
from tsukiji.models import spec as sp

RNG = np.random.default_rng(0)
W = RNG.uniform(-1.2, 1.2, (3, 3, 2, 5)).astype(np.float32)
W[0, 0, 0, :2] = 0.0, -0.0
SIGNS = np.where(W >= 0, 1, -1)
PARAMS = {'fc': {'bias': jnp.ones(5), 'kernel': jnp.asarray(W)}}


def kernel(text: str, params: Any = PARAMS) -> Any:
  """Return the node of the kernel after the `init` of a recipe."""
  return recipe.parse(text).init(params, Ctx())['fc']['kernel']


def means(scale: str) -> np.ndarray:
  """Return the mean sizes of the weight by a loop, in doubles."""
  if scale == 'none':
    return np.ones(5)
  if scale == 'layer':
    return np.full(5, np.abs(W.astype(float)).mean())
  return np.array([np.abs(W[..., c].astype(float)).mean() for c in range(5)])


every_scale = pytest.mark.parametrize('scale', SCALES)


@every_scale
def test_weights_are_scaled_signs(scale: str) -> None:
  node = kernel(f'binary.weights(scale="{scale}")')
  np.testing.assert_allclose(node.decode(), SIGNS * means(scale), rtol=1e-6)


def test_the_scale_is_the_best_one() -> None:
  # XNOR-Net, equation 6: no other multiple of the signs is nearer.
  found = np.asarray(kernel('binary.weights()').decode(), float)
  error = ((W - found) ** 2).sum((0, 1, 2))
  for factor in (0.97, 1.03):
    assert np.all(error < ((W - factor * found) ** 2).sum((0, 1, 2)))
  flipped = found * np.where(np.arange(18).reshape(3, 3, 2, 1) == 7, -1, 1)
  assert np.all(error < ((W - flipped) ** 2).sum((0, 1, 2)))


@every_scale
def test_gradients_pass_through_signs_and_scale(scale: str) -> None:
  weight = RNG.normal(size=W.shape).astype(np.float32)
  node = kernel(f'binary.weights(scale="{scale}")')
  found = jax.grad(lambda w: jnp.sum(weight * node.replace(w=w).decode()))(
    jnp.asarray(W)
  )
  want = weight * means(scale) * (np.abs(W) <= 1)
  # The mean of |w| moves with every entry: d alpha / d w = sign(w) / n.
  if scale == 'filter':
    want += SIGNS * (weight * SIGNS).sum((0, 1, 2)) / 18
  if scale == 'layer':
    want += SIGNS * (weight * SIGNS).sum() / 90
  np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


def test_signs_are_sampled_in_training_only() -> None:
  params = weights(scale='none', stochastic=True).init(PARAMS, Ctx())
  draws = jax.vmap(
    lambda key: tree.decode_training(params, key)['fc']['kernel']
  )(jax.random.split(jax.random.key(0), 300))
  assert set(np.unique(draws)) == {-1.0, 1.0}
  np.testing.assert_allclose(draws.mean(0), np.clip(W, -1, 1), atol=0.25)
  np.testing.assert_array_equal(tree.decode(params)['fc']['kernel'], SIGNS)
  still = weights(scale='none').init(PARAMS, Ctx())
  np.testing.assert_array_equal(
    tree.decode_training(still, jax.random.key(0))['fc']['kernel'], SIGNS
  )


@every_scale
def test_updates_clip_and_measure_again(scale: str) -> None:
  method = weights(scale=scale)
  params = method.init(PARAMS, Ctx())
  moved = tree.map_arrays(lambda _, w: 2 * w, params)
  node = method.update(moved, Ctx())['fc']['kernel']
  clipped = np.clip(2 * W, -1, 1)
  np.testing.assert_array_equal(node.w, clipped)
  size = np.abs(clipped.astype(float))
  want = {'filter': size.mean((0, 1, 2)), 'layer': size.mean(), 'none': 1}
  np.testing.assert_allclose(node.decode(), SIGNS * want[scale], rtol=1e-5)


@every_scale
def test_frozen_weights_are_bits(scale: str) -> None:
  node = kernel(f'binary.weights(scale="{scale}")')
  frozen = node.freeze()
  assert frozen.signs.dtype == bool
  assert_same_bits(frozen.decode(), node.decode())
  assert_same_bits(jax.jit(tree.decode)(node), node.decode())


def test_a_packed_weight_takes_one_bit() -> None:
  wide = {'fc': {'kernel': jnp.float32(RNG.normal(size=(64, 128)))}}
  params = weights().init(wide, Ctx())
  blob = pack_weights(params)
  rows = {row.path: row for row in pack.sections(blob)}
  assert rows['params/fc/kernel/signs'].bytes <= 64 * 128 / 8 + 4
  again = pack.unpack(blob).variables['params']
  assert isinstance(again['fc/kernel'], Binarized)
  assert_same_bits(tree.decode(again), tree.paths(tree.decode(params)))


@every_scale
def test_gains_of_any_sign_go_into_the_scale(scale: str) -> None:
  frozen = kernel(f'binary.weights(scale="{scale}")').freeze()
  gain = np.float32([1, 2, -4, 0.5, 0])
  after = frozen.scale_channels(gain)
  np.testing.assert_array_equal(after.signs, frozen.signs)
  np.testing.assert_array_equal(
    after.decode(), np.asarray(frozen.decode()) * gain
  )


@every_scale
def test_zeros_make_the_bits_ternary(scale: str) -> None:
  frozen = kernel(f'binary.weights(scale="{scale}")').freeze()
  dense = np.asarray(frozen.decode())
  np.testing.assert_array_equal(
    frozen.apply_mask(np.abs(W) > 0.5).decode(),
    np.where(np.abs(W) > 0.5, dense, 0),
  )
  for axis, size in enumerate(W.shape):
    keep = np.arange(size) * 2
    wide = frozen.scatter(keep, axis, 2 * size)
    assert (wide.bits, wide.codes.dtype) == (2, np.int8)
    decoded = np.moveaxis(np.asarray(wide.decode()), axis, 0)
    np.testing.assert_array_equal(decoded[::2], np.moveaxis(dense, axis, 0))
    assert not decoded[1::2].any()


def test_pruned_weights_stay_zero() -> None:
  params = recipe.parse('prune.weights(0.5) >> binary.weights()').init(
    PARAMS, Ctx()
  )
  frozen = tree.freeze(params)
  assert isinstance(frozen['fc']['kernel'], Quantized)
  assert_same_bits(tree.decode(frozen), tree.decode(params))
  codes = np.asarray(frozen['fc']['kernel'].codes)
  assert np.sum(codes == 0) == 45
  assert set(codes.ravel()) == {-1, 0, 1}


def test_signs_of_what_another_node_decodes_to() -> None:
  grid = FakeQuantized(jnp.asarray(W), None, 8)
  node = LatentSigns(grid, jnp.zeros(5), False).clipped()
  assert node.w is grid
  want = np.abs(grid.decode()).mean((0, 1, 2))
  np.testing.assert_allclose(node.alpha, want, rtol=1e-6)
  assert_same_bits(node.freeze().decode(), tree.decode(node))


@pytest.mark.parametrize('text', ['binary.weights()', 'binary.bnn(ends=True)'])
def test_a_channel_of_zeros_is_one_of_ones_or_zeros(text: str) -> None:
  dead = jnp.asarray(W).at[..., 2].set(0.0)
  params = {'conv': {'kernel': dead}, 'fc': {'kernel': dead}}
  uses = {'conv/kernel': 1, 'fc/kernel': 1}
  ctx = calibrated(TINY)
  requested = ctx.probe._replace(sites=sites_with(uses))
  found = tree.decode(recipe.parse(text).init(params, Ctx(probe=requested)))
  size = 0 if text == 'binary.weights()' else 1
  np.testing.assert_array_equal(np.abs(found['fc']['kernel'][..., 2]), size)


def test_recipes_are_their_parts() -> None:
  params, ctx = start(TINY)['params'], calibrated(TINY)
  for one, other in (
    ('binary.bnn()', 'binary.inputs() >> binary.weights(scale="none")'),
    (
      'binary.xnor(ends=True)',
      'binary.inputs(scaled=True) >> binary.weights()',
    ),
    (
      'binary.react(ends=True)',
      'binary.inputs(gradient="quadratic", threshold=True) '
      '>> binary.weights(scale="filter")',
    ),
  ):
    found, want = (recipe.parse(x).init(params, ctx) for x in (one, other))
    assert jax.tree.structure(found) == jax.tree.structure(want)
    assert set(tree.find(LatentSigns, found)) == {'conv/kernel', 'fc/kernel'}
    assert set(tree.find(Signed, found)) == {'fc/kernel'}


def test_ends_can_stay_floats() -> None:
  uses = {f'{name}/kernel': 1 for name in ('z', 'b', 'a')}
  requested = calibrated(TINY).probe
  params = {name: {'kernel': jnp.asarray(W)} for name in 'abz'}
  ctx = Ctx(probe=requested._replace(sites=sites_with(uses)))
  for text in ('weights(ends=False)', 'bnn(ends=False)', 'xnor()', 'react()'):
    found = recipe.parse(f'binary.{text}').init(params, ctx)
    assert set(tree.find(LatentSigns, found)) == {'b/kernel'}
  with pytest.raises(ValueError, match='binary.weights: expected calibration'):
    weights(ends=False).init(params, Ctx())


BINARY = sp.Spec(
  name='binary',
  input_shape=(6, 6, 1),
  layers=(
    sp.Conv(name='conv', features=4, kernel=(3, 3)),
    sp.Norm(name='norm1'),
    sp.Conv(name='two', features=8, kernel=(3, 3), bias=False),
    sp.Norm(name='norm2'),
    sp.Flatten(),
    sp.Dense(name='fc', features=3),
    sp.Norm(name='norm3'),
  ),
)


@functools.cache
def variables() -> dict[str, Any]:
  """Return variables whose norms have gains of both signs."""
  drawn = jax.tree.map(jnp.array, start(BINARY))
  for name in ('norm1', 'norm2', 'norm3'):
    scale = drawn['params'][name]['scale']
    turn = jnp.where(jnp.arange(scale.size) % 2, -1, 1)
    drawn['params'][name]['scale'] = scale * turn
  return drawn


@pytest.mark.slow
@pytest.mark.parametrize(
  'text', ['bnn()', 'bnn(ends=False)', 'xnor(ends=True)', 'react()']
)
def test_norms_fold_into_scales(text: str) -> None:
  dense = variables()
  method = recipe.parse(f'binary.{text}')
  found = {**dense, 'params': method.init(dense['params'], calibrated(BINARY))}
  graph, small = lower(BINARY, found)
  assert [node.op for node in graph.nodes] == [
    *('conv', 'add', 'conv', 'add', 'reshape', 'dot', 'add')
  ]
  nodes = tree.find(Binarized, small['params'])
  assert nodes
  for path, node in nodes.items():
    before = tree.find(LatentSigns, found['params'])[path]
    np.testing.assert_array_equal(node.signs, before.w >= 0)
    assert np.any(node.scale < 0)
  want, got = run(BINARY, found)[0], served(BINARY, (graph, small))
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_run_keeps_weights_clipped_and_scales_theirs() -> None:
  done = fit(recipe.parse('binary.weights() >> distill.kd()'))
  for node in tree.find(LatentSigns, done.state.params).values():
    assert float(jnp.abs(node.w).max()) <= 1
    np.testing.assert_allclose(
      node.alpha,
      jnp.abs(node.w).mean(range(node.w.ndim - 1)),
      rtol=1e-6,
    )
  assert done.traces == 1


@pytest.mark.parametrize(
  'other', ['quantize.uniform(4)', 'binary.weights()', 'binary.bnn()']
)
def test_a_second_grid_is_refused(other: str) -> None:
  ctx = calibrated(TINY)
  params = start(TINY)['params']
  once = recipe.parse(other).init(params, ctx)
  for found in (once, tree.freeze(once)):
    with pytest.raises(ValueError, match='not quantized yet, got .* at conv/k'):
      weights().init(found, ctx)


def test_pruning_comes_first() -> None:
  for text in ('prune.weights(0.5)', 'prune.l0(1.0)', 'prune.rigl(0.5)'):
    both = chain(weights(), recipe.parse(text))
    with pytest.raises(ValueError, match='can be 0, got LatentSigns at fc/ker'):
      both.init(PARAMS, Ctx(steps=1, key=jax.random.key(0)))
  apart = chain(
    only('conv/.*', weights()), only('fc/.*', magnitude.weights(0.5))
  )
  found = apart.init(start(TINY)['params'], Ctx())
  assert set(tree.find(magnitude.Masked, found)) == {'fc/kernel'}


def test_unknown_scales_are_refused() -> None:
  with pytest.raises(ValueError, match="scale of filter, .* got 'channel'"):
    weights(scale='channel')
