"""Scales under a curvature, by the formula of the paper in NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe, tree
from compress.binary.loss_aware import LossAware, loss_aware
from compress.binary.weights import Binarized, weights
from compress.channels.sliced import Sliced
from compress.method import Ctx, chain, only
from compress.prune.masked import Masked
from tests import toy
from tests.runs import assert_same_bits

RNG = np.random.default_rng(0)
W = RNG.uniform(-1.2, 1.2, (3, 3, 2, 5)).astype(np.float32)
SIGNS = np.where(W >= 0, 1, -1)
PARAMS = {'fc': {'bias': jnp.ones(5), 'kernel': jnp.asarray(W)}}


def after(grads: list[np.ndarray], **how: Any) -> LossAware:
  """Return the node after some gradients of the decoded weight."""
  method = loss_aware(**how)
  params = method.init(PARAMS, Ctx())
  for grad in grads:
    observed = {'fc': {'bias': jnp.ones(5), 'kernel': jnp.asarray(grad)}}
    params = method.update(params, Ctx(grads=observed))
  node: LossAware = params['fc']['kernel']
  return node


def test_before_gradients_all_weights_count_alike() -> None:
  node = after([])
  want = SIGNS * np.abs(W).mean()
  np.testing.assert_allclose(node.decode(), want, rtol=1e-5)
  clipped = np.clip(W, -1, 1)
  for still in (after([np.zeros_like(W)]), loss_aware().update(node, Ctx())):
    found = still.decode()
    np.testing.assert_allclose(found, SIGNS * np.abs(clipped).mean(), rtol=1e-5)


@pytest.mark.parametrize('scale', ['filter', 'layer'])
def test_the_scale_is_that_of_the_paper(scale: str) -> None:
  grads = [RNG.normal(size=W.shape).astype(np.float32) for _ in range(4)]
  node = after(grads, scale=scale, decay=0.9)
  v = np.zeros(W.shape)
  for grad in grads:
    v = 0.9 * v + 0.1 * grad.astype(float) ** 2
  d, w = np.sqrt(v) + 1e-8, np.clip(W, -1, 1).astype(float)
  axes = (0, 1, 2) if scale == 'filter' else None
  alpha = np.abs(d * w).sum(axes) / d.sum(axes)  # proposition 3.1
  np.testing.assert_allclose(node.decode(), SIGNS * alpha, rtol=1e-5)

  def error(alpha: Any) -> Any:
    return (d * (alpha * SIGNS - w) ** 2).sum(axes)

  for factor in (0.97, 1.03):
    assert np.all(error(alpha) < error(factor * alpha))


def test_weights_that_the_loss_does_not_feel_have_no_say() -> None:
  grad = np.zeros_like(W)
  grad[0, 0, 0] = 3.0
  node = after([grad], scale='filter')
  felt = np.abs(np.clip(W[0, 0, 0], -1, 1))
  np.testing.assert_allclose(node.alpha, felt, rtol=1e-4)


def test_gradients_are_passed_on_unchanged() -> None:
  weight = RNG.normal(size=W.shape).astype(np.float32)
  node = after([weight])
  outside = jnp.asarray(3 * W)
  found = jax.grad(lambda w: jnp.sum(weight * node.replace(w=w).decode()))(
    outside
  )
  np.testing.assert_array_equal(found, weight)
  trainable, frozen = tree.split({'w': node})
  assert len(jax.tree.leaves(trainable)) == 1
  assert len(jax.tree.leaves(frozen)) == 2


def test_what_is_served_is_bits() -> None:
  node = after([RNG.normal(size=W.shape).astype(np.float32)])
  frozen = node.freeze()
  assert isinstance(frozen, Binarized)
  assert frozen.scale.shape == ()
  assert_same_bits(frozen.decode(), node.decode())
  assert_same_bits(frozen.decode(), jax.jit(tree.decode)(node))


def test_it_combines_with_plain_binary_weights() -> None:
  params = {'one': PARAMS['fc'], 'two': PARAMS['fc']}
  method = chain(only('one/.*', loss_aware()), only('two/.*', weights()))
  grads = jax.tree.map(lambda x: jnp.cos(9 * x), params)
  found = method.update(method.init(params, Ctx()), Ctx(grads=grads))
  single = loss_aware()
  want = single.update(
    single.init({'one': PARAMS['fc']}, Ctx()), Ctx(grads={'one': grads['one']})
  )
  assert_same_bits(found['one'], want['one'])
  assert not isinstance(found['two']['kernel'], LossAware)


@pytest.mark.slow
def test_a_run_finds_signs_and_scale() -> None:
  run = toy.fit(loss_aware(scale='filter'), steps=200)
  assert np.all(np.sign(run.w)[toy.RELEVANT] == np.sign(toy.TRUE)[toy.RELEVANT])
  assert len(np.unique(np.abs(run.w))) == 3


@pytest.mark.parametrize('decay', [-0.1, 1.0, np.nan])
def test_impossible_decays_are_refused(decay: float) -> None:
  with pytest.raises(ValueError, match=r'a decay in \[0, 1\), got'):
    loss_aware(decay=decay)


def test_a_scale_is_needed() -> None:
  with pytest.raises(ValueError, match="scale of filter, layer, got 'none'"):
    loss_aware(scale='none')
  with pytest.raises(ValueError, match='binary.loss_aware: .* at fc/kernel'):
    loss_aware().init(weights().init(PARAMS, Ctx()), Ctx())


@pytest.mark.slow
def test_removed_channels_and_masks_have_the_gradient_of_what_is_left() -> None:
  drawn = np.random.default_rng(1)
  w = drawn.uniform(-0.9, 0.9, (8, 6)).astype(np.float32)
  grad = drawn.normal(size=(8, 6)).astype(np.float32)
  keep, mask = np.array([0, 2, 3, 7]), np.arange(24).reshape(4, 6) % 5 > 0
  method = loss_aware()
  left = method.init({'fc': jnp.asarray(w[keep])}, Ctx())['fc']
  node = Sliced(Masked(left, jnp.asarray(mask)), jnp.asarray(keep), 0, 8)
  params = method.update({'fc': node}, Ctx(grads={'fc': jnp.asarray(grad)}))
  d = np.sqrt(0.001 * np.where(mask, grad[keep], 0.0) ** 2) + 1e-8
  alpha = (d * np.abs(w[keep])).sum() / d.sum()
  want = np.zeros((8, 6))
  want[keep] = np.where(mask, np.sign(w[keep]) * alpha, 0.0)
  np.testing.assert_allclose(tree.decode(params)['fc'], want, rtol=1e-4)


@pytest.mark.slow
def test_factors_have_gradients_of_their_own() -> None:
  drawn = np.random.default_rng(2)
  w, grad = (drawn.normal(size=(6, 5)).astype(np.float32) for _ in range(2))
  method = recipe.parse('lowrank.svd(2) >> binary.loss_aware()')
  before = method.init({'fc': jnp.asarray(w)}, Ctx())
  after = method.update(before, Ctx(grads={'fc': jnp.asarray(grad)}))
  u, v = (np.asarray(before['fc'].factors()[k].decode()) for k in 'uv')
  for found, part in ((after['fc'].u, grad @ v.T), (after['fc'].v, u.T @ grad)):
    np.testing.assert_allclose(found.squares, 0.001 * part**2, rtol=1e-4)
