"""Weights meet their grids with norms folded in, wherever those have moved."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe, tree
from compress.channels.sliced import Sliced
from compress.method import Ctx, Method, chain
from compress.quantize import batch_norm
from compress.quantize.batch_norm import Folded, LatentFolded
from compress.quantize.integer_codes import Quantized
from compress.quantize.uniform import uniform
from tests.runs import (
  NETWORKS,
  TINY,
  assert_same_bits,
  calibrated,
  fit,
  run,
  served,
  start,
)
from tsukiji.deploy.integer import compile
from tsukiji.deploy.passes.lower import lower
from tsukiji.deploy.tsk import pack
from tsukiji.models.norm_gains import gains

GRID = 'quantize.uniform(3, per="tensor")'
W = np.float32([[0.3, -2.0], [-0.8, 0.4], [0.5, 1.0]])
GAIN = np.float32([2.0, -0.5])


def node_of(text: str, w: Any = W, gain: Any = GAIN) -> Any:
  """Return one weight that a norm of some gains is behind."""
  ctx = Ctx(gains={'fc/kernel': jnp.asarray(gain)})
  params = {'fc': {'kernel': jnp.asarray(w)}}
  return recipe.parse(f'quantize.fold_batch_norm({text})').init(params, ctx)[
    'fc'
  ]['kernel']


def test_what_is_rounded_is_the_product() -> None:
  step = np.float32(1.6 / 3)  # of the largest of |w * gain|, in codes to 3
  want = np.round(W * GAIN / step) * step / GAIN
  node = node_of(GRID)
  np.testing.assert_allclose(tree.decode(node), want, rtol=1e-6)
  plain = uniform(3, per='tensor').init({'w': jnp.asarray(W)}, Ctx())
  assert np.abs(tree.decode(plain)['w'] - want).max() > 0.1


def test_weights_are_trained_without_their_gains() -> None:
  node = node_of(GRID)
  np.testing.assert_allclose(tree.latent(node), W, rtol=1e-6)
  trainable, frozen = tree.split(node)
  assert [x.shape for x in jax.tree.leaves(trainable)] == [W.shape]
  slope = jax.grad(lambda f: tree.decode(tree.merge(f, frozen)).sum())(
    trainable
  )
  np.testing.assert_allclose(tree.latent(slope), 1.0, rtol=1e-6)


def test_learned_steps_begin_with_the_product() -> None:
  size = 2 * np.abs(W * GAIN).mean() / np.sqrt(3)
  np.testing.assert_allclose(
    node_of('quantize.lsq(3, per="tensor")').w.step, size, rtol=1e-6
  )


def test_a_gain_of_nothing_is_no_division_by_it() -> None:
  gain = jnp.array([2.0, 0.0])
  node = tree.freeze(node_of(GRID, gain=gain))
  assert np.all(np.asarray(tree.decode(node)[:, 1]) == 0)
  assert node.scale_channels(gain).scale.shape == ()
  apart = tree.freeze(node_of('quantize.uniform(3)', gain=gain))
  np.testing.assert_allclose(
    tree.decode(apart.scale_channels(gain))[:, 1], 0, atol=1e-8
  )


def test_other_gains_leave_a_step_a_channel() -> None:
  node = tree.freeze(node_of(GRID))
  assert_same_bits(node.scale_channels(GAIN * np.float32(1 + 1e-7)), node.w)
  found = node.scale_channels(jnp.array([1.0, 3.0]))
  assert found.scale.shape == (2,)
  np.testing.assert_allclose(
    tree.decode(found), tree.decode(node) * jnp.array([1.0, 3.0]), rtol=1e-6
  )


@pytest.mark.slow
def test_zeros_and_missing_channels_stay_inside() -> None:
  node = tree.freeze(node_of(GRID))
  mask = np.asarray(np.arange(6).reshape(3, 2) % 3 != 0)
  masked = node.apply_mask(mask)
  np.testing.assert_array_equal(
    tree.decode(masked), np.where(mask, tree.decode(node), 0)
  )
  for axis, keep in ((0, [0, 2, 3]), (1, [1, 2])):
    wide = node.scatter(jnp.array(keep), axis, 4)
    want = tree.scattered(tree.decode(node), jnp.array(keep), axis, 4)
    np.testing.assert_array_equal(tree.decode(wide), want)
  groups = tree.freeze(node_of('quantize.uniform(3, per=2)'))
  assert groups.scatter(jnp.array([0, 2, 3]), 0, 4) is None


def kernels(variables: dict[str, Any]) -> dict[str, Any]:
  return {
    path: x
    for path, x in tree.paths(variables['params']).items()
    if path.endswith('kernel')
  }


@pytest.mark.slow
@pytest.mark.parametrize('name', NETWORKS)
def test_it_is_the_grid_of_the_folded_network(name: str) -> None:
  spec, grid = NETWORKS[name], recipe.parse(GRID)
  variables = start(spec)
  ctx = Ctx(gains=gains(spec, variables))
  nodes = batch_norm.fold_batch_norm(grid).init(variables['params'], ctx)
  ours = lower(spec, {**variables, 'params': nodes})
  small, once = lower(spec, variables)
  theirs = {**once, 'params': tree.freeze(grid.init(once['params'], Ctx()))}
  assert str(ours[0]) == str(small)
  assert len(pack.pack(*ours)) <= len(pack.pack(small, theirs)) + 8
  for path, one in kernels(ours[1]).items():
    other = kernels(theirs)[path]
    assert type(one) is Quantized
    assert one.scale.shape == ()
    np.testing.assert_allclose(one.scale, other.scale, rtol=1e-6)
    assert np.mean(one.codes != other.codes) < 0.01  # rounded at a tie


@pytest.mark.slow
@pytest.mark.parametrize('freeze_bn_at', [1.0, 0.5])
def test_gains_follow_the_norms_in_training(freeze_bn_at: float) -> None:
  text = 'quantize.uniform(3, 6, per="tensor", clip="mse")'
  observed: list[Any] = []

  def look(params: Any, ctx: Ctx) -> Any:
    jax.debug.callback(lambda *x: observed.append(x), ctx.gains, params)
    return params

  method = recipe.parse(f'quantize.fold_batch_norm({text})')
  done = fit(chain(method, Method(update=look)), freeze_bn_at=freeze_bn_at)
  jax.effects_barrier()
  assert done.traces == 1
  state = done.state
  variables = state.variables
  for reported, params in observed:
    assert_same_bits(params['conv']['kernel'].gain, reported['conv/kernel'])
    assert_same_bits(params['conv']['kernel'].w.w.gain, reported['conv/kernel'])
  first, last = (observed[i][0]['conv/kernel'] for i in (0, -1))
  assert np.all(first != last)
  # Sum, root, quotient and the statistics may each be off by one last bit,
  # inside the compiled step and here.
  last_bits = 8 * np.finfo(np.float32).eps
  want = gains(TINY, variables)['conv/kernel']
  np.testing.assert_allclose(last, want, rtol=last_bits)
  spec, small = lower(TINY, variables)
  for node in kernels(small).values():
    assert node.scale.shape == ()
  want, _ = run(TINY, variables)
  again = pack.unpack(pack.pack(spec, small))
  got = served(TINY, (again.network, again.variables))
  error = np.abs(got - want).max(axis=1) / np.abs(want).max()
  assert np.mean(error < 1e-5) >= 0.75  # else on a tie of the input grid
  assert error.max() < 0.1
  assert compile.compiled(spec, small).scale > 0


@pytest.mark.slow
@pytest.mark.parametrize(
  'text',
  [
    f'prune.filters(share=0.5, multiple=1) >> quantize.fold_batch_norm({GRID})',
    f'lowrank.svd(2) >> quantize.fold_batch_norm({GRID})',
    f'prune.weights(0.5) >> quantize.fold_batch_norm({GRID})',
    f'quantize.fold_batch_norm({GRID}) >> prune.weights(0.5)',
  ],
)
def test_chains_are_lowered_to_one_step_a_tensor(text: str) -> None:
  params, ctx = start(TINY)['params'], calibrated(TINY)
  method = recipe.parse(text)
  nodes = method.init(params, ctx)
  assert (
    len(tree.find(Folded, nodes)) == len(tree.find(LatentFolded, nodes)) == 1
  )
  if tree.find(Sliced, nodes):
    assert tree.find(Folded, nodes)['conv/kernel'].gain.shape == (2,)
  moved = {path: 1.5 * gain for path, gain in (ctx.gains or {}).items()}
  after = method.update(nodes, ctx._replace(step=1, gains=moved, grads=params))
  both = tree.find(Folded, nodes), tree.find(Folded, after)
  (one,), (other,) = (x.values() for x in both)
  np.testing.assert_allclose(other.gain, 1.5 * one.gain, rtol=1e-6)
  variables = {**start(TINY), 'params': nodes}
  spec, small = lower(TINY, variables)
  for node in kernels(small).values():
    assert node.scale.shape == ()
  want, _ = run(TINY, variables)
  got = served(TINY, (spec, small))
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_codes_stay_when_their_norm_moves() -> None:
  ctx = calibrated(TINY)
  method = recipe.parse(
    'quantize.fold_batch_norm(quantize.gptq(3, per="tensor"))'
  )
  nodes = method.init(start(TINY)['params'], ctx)
  assert not tree.find(LatentFolded, nodes)
  moved = {path: 2 * gain for path, gain in (ctx.gains or {}).items()}
  assert_same_bits(method.update(nodes, ctx._replace(gains=moved)), nodes)
  small = lower(TINY, {**start(TINY), 'params': nodes})[1]
  assert all(x.scale.shape == () for x in kernels(small).values())


@pytest.mark.parametrize('known', [None, {}, {'other/kernel': jnp.ones(3)}])
def test_no_gain_is_an_error(known: Any) -> None:
  with pytest.raises(ValueError, match='norm behind.*fc/kernel'):
    recipe.parse(f'quantize.fold_batch_norm({GRID})').init(
      {'fc': {'kernel': jnp.ones((2, 3))}}, Ctx(gains=known)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
  'text', ['lowrank.plus_sparse(2, 0.5, examples=0)', 'share.kmeans(3)']
)
def test_what_makes_no_channels_of_its_own_is_an_error(text: str) -> None:
  method = recipe.parse(f'{text} >> quantize.fold_batch_norm({GRID})')
  with pytest.raises(ValueError, match='norm behind'):
    method.init(start(TINY)['params'], calibrated(TINY))


def test_what_is_no_method_is_an_error() -> None:
  with pytest.raises(
    ValueError, match='fold_batch_norm: expected a method.*got 4'
  ):
    recipe.parse('quantize.fold_batch_norm(4)')
