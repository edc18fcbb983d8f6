"""Masks that follow training: movement and RigL."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from hypothesis import given, settings
from hypothesis import strategies as st

from compress import recipe, schedule, tree
from compress.method import Ctx, Method, chain
from compress.prune import dynamic
from compress.prune.masked import Masked
from compress.quantize.uniform import uniform as quantize_grid
from compress.random import draw
from compress.unchanged import UnchangedWarning

DRAWN = np.random.default_rng(0)
PARAMS = {
  'conv': {'kernel': jnp.float32(DRAWN.normal(size=(3, 3, 2, 4)))},
  'fc': {
    'bias': jnp.ones(5),
    'kernel': jnp.float32(DRAWN.normal(size=(12, 5))),
  },
}
KEY = jax.random.key(3)


def masks(params: Any) -> dict[str, np.ndarray]:
  """Return what is kept of each weight."""
  found = tree.find(Masked, params)
  return {path: np.asarray(node.mask) for path, node in found.items()}


def drawn(seed: int) -> Any:
  """Return gradients of the network, drawn at random."""
  key = jax.random.key(seed)
  return jax.tree.map(lambda w: draw(jax.random.normal, key, w.shape), PARAMS)


def shifted(params: Any, seed: int) -> Any:
  """Return the tree with its weights moved at random."""
  key = jax.random.key(seed)
  return tree.map_arrays(
    lambda path, w: w + 0.5 * draw(jax.random.normal, key, w.shape), params
  )


# Movement.


@pytest.mark.slow
def test_movement_keeps_weights_that_moved_away_from_zero() -> None:
  steps, half = 5, schedule.cubic(0.0, 0.5)
  compress = dynamic.movement(0.4, schedule=half)
  params = compress.init(PARAMS, Ctx(0, steps))
  assert all(kept.all() for kept in masks(params).values())
  update = jax.jit(lambda p, at, g: compress.update(p, Ctx(at, steps, grads=g)))
  totals = {path: np.zeros(kept.shape) for path, kept in masks(params).items()}
  for at in range(1, steps + 1):
    params, grads = shifted(params, at), drawn(10 * at)
    for path, node in tree.find(Masked, params).items():
      moved = np.asarray(node.w * tree.paths(grads)[path])
      totals[path] -= (1 - at / steps) * moved
    params = update(params, jnp.int32(at), grads)
    for path, kept in masks(params).items():
      count = round(
        float(half(jnp.float32(at / steps))) * round(0.4 * kept.size)
      )
      order = np.argsort(totals[path], axis=None)
      want = np.ones(kept.size, bool)
      want[order[:count]] = False
      np.testing.assert_array_equal(kept.ravel(), want)


def test_pruned_weights_that_move_grow_back() -> None:
  compress = dynamic.movement(0.5, schedule=schedule.cubic(0.0, 0.1))
  params = compress.init({'w': jnp.ones((2, 2))}, Ctx(0, 10))
  early = {'w': jnp.float32([[1, 2], [-3, -4]])}
  params = compress.update(params, Ctx(1, 10, grads=early))
  assert params['w'].mask.tolist() == [[False, False], [True, True]]
  late = {'w': jnp.float32([[-9, -9], [0, 0]])}
  params = compress.update(params, Ctx(2, 10, grads=late))
  assert params['w'].mask.tolist() == [[True, True], [False, False]]
  want = [[0.8 * 9 - 0.9, 0.8 * 9 - 1.8], [2.7, 3.6]]
  np.testing.assert_allclose(params['w'].score, want, rtol=1e-6)


def test_movement_comes_to_rest() -> None:
  compress = dynamic.movement(0.5, schedule=schedule.cubic(0.0, 0.1))
  params = compress.init({'w': jnp.ones((2, 2))}, Ctx(0, 10))
  early = {'w': jnp.float32([[1, 2], [-3, -4]])}
  params = compress.update(params, Ctx(1, 10, grads=early))
  late = {'w': jnp.float32([[-99, -99], [0, 0]])}
  last = compress.update(params, Ctx(10, 10, grads=late))
  assert last['w'].mask.tolist() == params['w'].mask.tolist()


def test_movement_needs_training() -> None:
  with pytest.raises(ValueError, match='movement: expected a run of some step'):
    dynamic.movement(0.5).init(PARAMS, Ctx(0, 0))
  for begins in (schedule.at_once(), schedule.steps(2)):
    with pytest.raises(ValueError, match='a schedule that begins at 0'):
      dynamic.movement(0.5, schedule=begins)
  params = dynamic.movement(0.5).init(PARAMS, Ctx(0, 10))
  with pytest.raises(ValueError, match='prune.movement: expected calibration'):
    dynamic.movement(0.5).update(params, Ctx(1, 10))


# RigL.


def begun(compress: Method) -> Any:
  """Return the network before the first step of 20."""
  return compress.init(PARAMS, Ctx(0, 20, KEY))


@given(sparsity=st.floats(0, 0.9))
@settings(max_examples=20, deadline=None)
def test_densities_are_exact(sparsity: float) -> None:
  shapes = {'a': (3, 3, 1, 4), 'b': (3, 3, 4, 8), 'c': (64, 30), 'd': (30, 10)}
  sizes = {path: math.prod(shape) for path, shape in shapes.items()}
  total = sum(sizes.values())
  erk = dynamic.densities(shapes, sparsity, 'erk')
  assert sum(erk.values()) == total - round(sparsity * total)
  assert all(0 < erk[path] <= size for path, size in sizes.items())
  # Below its size, an array has weights in proportion to its sides.
  units = {
    path: erk[path] / sum(shapes[path])
    for path in shapes
    if erk[path] < sizes[path]
  }
  for path in units:
    assert abs(units[path] - max(units.values())) <= 1 / sum(shapes[path]) + 0.1
  uniform = dynamic.densities(shapes, sparsity, 'uniform')
  for path, size in sizes.items():
    assert uniform[path] == size - round(sparsity * size)


@pytest.mark.parametrize('distribution', ['erk', 'uniform'])
def test_sparse_training_begins_with_a_random_mask(distribution: str) -> None:
  compress = dynamic.rigl(0.7, distribution=distribution)
  found = masks(begun(compress))
  shapes = {path: kept.shape for path, kept in found.items()}
  want = dynamic.densities(shapes, 0.7, distribution)
  assert {path: kept.sum() for path, kept in found.items()} == want
  other = masks(compress.init(PARAMS, Ctx(0, 20, jax.random.key(4))))
  assert np.any(found['fc/kernel'] != other['fc/kernel'])


def by_hand(
  mask: np.ndarray, w: np.ndarray, grad: np.ndarray, share: float
) -> np.ndarray:
  """Return the mask after one exchange, index by index."""
  mask, active = mask.ravel().copy(), np.flatnonzero(mask)
  count = int(share * len(active))
  small = sorted(active, key=lambda i: abs(w.ravel()[i]))[:count]
  mask[small] = False
  free = np.flatnonzero(~mask)
  steep = sorted(free, key=lambda i: -abs(grad.ravel()[i]))[:count]
  mask[steep] = True
  return mask.reshape(w.shape)


@pytest.mark.slow
@pytest.mark.parametrize('grid', [False, True])
def test_small_weights_are_replaced_by_large_gradients(grid: bool) -> None:
  compress = dynamic.rigl(0.5, distribution='uniform', fraction=0.57, until=0.5)
  if grid:  # the latent weight is what is ranked and set to 0
    compress = chain(compress, quantize_grid(4))
  params = begun(compress)
  update = jax.jit(lambda p, at, g: compress.update(p, Ctx(at, 20, grads=g)))
  for at in range(1, 12):
    before, grads = shifted(params, at), drawn(at)
    params = update(before, jnp.int32(at), grads)
    share = 0.285 * (1 + math.cos(math.pi * at / 10)) if at < 10 else 0.0
    for path, node in tree.find(Masked, params).items():
      old = tree.paths(before)[path]
      w, mask = np.asarray(tree.latent(old)), np.asarray(old.mask)
      want = by_hand(mask, w, np.asarray(tree.paths(grads)[path]), share)
      np.testing.assert_array_equal(node.mask, want)
      np.testing.assert_array_equal(
        tree.latent(node), np.where(want & ~mask, 0, w)
      )
      if at < 6 or at > 8:  # few of the last go, and may come back at once
        assert np.any(want != mask) == (at < 6)


def test_updates_may_be_rare() -> None:
  compress = dynamic.rigl(0.5, updates=4, until=1.0)
  params = begun(compress)
  update = jax.jit(
    lambda at: compress.update(params, Ctx(at, 20, grads=drawn(1)))
  )
  changed = [
    at
    for at in range(1, 21)
    if np.any(masks(update(at))['fc/kernel'] != masks(params)['fc/kernel'])
  ]
  assert changed == [5, 10, 15]


@struct.dataclass
class Product(tree.Compressed):
  """A weight as two factors."""

  inner = ('u', 'v')
  u: jax.Array
  v: jax.Array

  def decode(self) -> jax.Array:
    """Return the product."""
    return self.u @ self.v


def test_factors_cannot_grow() -> None:
  compress = dynamic.rigl(0.5)
  mask = jnp.ones((12, 5), bool)
  inside = Masked(Product(jnp.ones((12, 2)), jnp.ones((2, 5))), mask)
  with pytest.raises(
    ValueError, match='fc/kernel: expected one array .*Produc'
  ):
    compress.update({'fc': {'kernel': inside}}, Ctx(1, 20, grads=PARAMS))
  outside = Product(Masked(PARAMS['fc']['kernel'], mask), jnp.eye(5))
  with pytest.raises(ValueError, match='rigl at fc/kernel/u: expected a weigh'):
    compress.update({'fc': {'kernel': outside}}, Ctx(1, 20, grads=PARAMS))


def test_sparse_training_needs_steps() -> None:
  with pytest.raises(ValueError, match='prune.rigl: expected a run of some'):
    dynamic.rigl(0.5).init(PARAMS, Ctx(0, 0, KEY))
  with pytest.raises(ValueError, match='score.random at conv/kernel'):
    dynamic.rigl(0.5).init(PARAMS, Ctx(0, 20))


def test_empty_arrays_are_refused() -> None:
  for distribution in ('erk', 'uniform'):
    with pytest.raises(
      ValueError, match='rigl at .* leaves a weight, got 0.99'
    ):
      begun(dynamic.rigl(0.996, distribution=distribution))


def test_small_arrays_are_kept_with_a_warning() -> None:
  # round(0.9 * 4) = 4 would empty 'b'; 'a' alone has 0.1 * 1000 left.
  with pytest.warns(UnchangedWarning, match='prune.rigl: left b unchanged'):
    found = dynamic.densities({'a': (50, 20), 'b': (2, 2)}, 0.9, 'uniform')
  assert found == {'a': 100, 'b': 4}
  params = {'a': jnp.ones((50, 20)), 'b': jnp.ones((2, 2))}
  compress = dynamic.rigl(0.9, distribution='uniform')
  with pytest.warns(UnchangedWarning, match='left b unchanged'):
    nodes = compress.init(params, Ctx(0, 20, KEY))
  assert int(nodes['a'].mask.sum()) == 100 and nodes['b'].mask.all()
  after = compress.update(nodes, Ctx(1, 20, grads=params))
  assert int(after['a'].mask.sum()) == 100 and after['b'].mask.all()


@pytest.mark.parametrize(
  ('wrong', 'message'),
  [
    ({'sparsity': 1.0}, r'a sparsity in \[0, 1\), got 1.0'),
    ({'distribution': 'er'}, "a distribution of uniform, erk, got 'er'"),
    ({'fraction': 1.0}, r'a fraction in \(0, 1\), got 1.0'),
    ({'until': 0.0}, r'an end in \(0, 1\], got 0.0'),
    ({'updates': 0}, '1 update or more, got 0'),
    ({'updates': 2.5}, '1 update or more, got 2.5'),
  ],
)
def test_impossible_exchanges_are_refused(wrong: Any, message: str) -> None:
  with pytest.raises(ValueError, match=f'prune.rigl: expected {message}'):
    dynamic.rigl(**{'sparsity': 0.5, **wrong})


@pytest.mark.parametrize(
  'one', ['movement(0.5)', 'rigl(0.5)', 'lottery_ticket(0.5)']
)
def test_a_second_mask_is_refused(one: str) -> None:
  once = recipe.parse('prune.weights(0.5)').init(PARAMS, Ctx(0, 9, KEY))
  with pytest.raises(ValueError, match=r'prune.* got .* at conv/kernel'):
    recipe.parse(f'prune.{one}').init(once, Ctx(0, 9, KEY))
