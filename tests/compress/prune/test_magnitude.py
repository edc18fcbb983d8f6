"""Masks: which weights go, how many, and when."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress import schedule, tree
from compress.method import Ctx, chain
from compress.prune import magnitude, masked
from compress.prune.magnitude import Masked
from compress.quantize.uniform import uniform
from compress.random import draw

DRAWN = np.random.default_rng(0)
PARAMS = {
  'conv': {
    'bias': jnp.ones(2),
    'kernel': jnp.float32(DRAWN.normal(size=(3, 3, 4, 2))),
  },
  'fc': {'kernel': jnp.float32(2 * DRAWN.normal(size=(8, 9)))},
}
TIES = {**PARAMS, 'flat': {'kernel': jnp.full((8, 9), -1.0)}}
PATHS = ('conv/kernel', 'fc/kernel')


def masks(params: Any) -> dict[str, np.ndarray]:
  """Return what is kept of each weight."""
  found = tree.find(Masked, params)
  return {path: np.asarray(node.mask) for path, node in found.items()}


def smallest(w: np.ndarray, count: int) -> np.ndarray:
  """Return True at the smallest weights, the slow and plain way."""
  order = sorted(range(w.size), key=lambda i: (abs(w.ravel()[i]), i))
  marks = np.zeros(w.size, bool)
  marks[order[:count]] = True
  return marks.reshape(w.shape)


@pytest.mark.slow
@given(sparsity=st.floats(0, 1, exclude_max=True))
@settings(max_examples=25, deadline=None)
def test_the_smallest_of_each_layer_go(sparsity: float) -> None:
  params = magnitude.weights(sparsity).init(TIES, Ctx())
  decoded = tree.paths(tree.decode(params))
  for path, kept in masks(params).items():
    w = np.asarray(tree.paths(TIES)[path])
    gone = smallest(w, round(sparsity * w.size))
    np.testing.assert_array_equal(~kept, gone)
    np.testing.assert_array_equal(decoded[path], np.where(gone, 0, w))


def test_the_smallest_of_all_layers_go() -> None:
  found = masks(magnitude.weights(0.7, scope='global').init(PARAMS, Ctx()))
  flat = np.concatenate([np.ravel(tree.paths(PARAMS)[p]) for p in PATHS])
  kept = np.concatenate([found[path].ravel() for path in PATHS])
  np.testing.assert_array_equal(~kept, smallest(flat, round(0.7 * flat.size)))
  # The weights of 'fc' are larger, so the ranking spares them.
  assert found['fc/kernel'].mean() > 0.45 > 0.15 > found['conv/kernel'].mean()


@given(sparsity=st.floats(0, 1, exclude_max=True), floor=st.floats(0, 0.5))
@settings(max_examples=25, deadline=None)
def test_a_global_ranking_is_exact_and_empties_nothing(
  sparsity: float, floor: float
) -> None:
  sizes = {'conv/kernel': 72, 'fc/kernel': 72, 'flat/kernel': 72}
  left = 216 - round(sparsity * 216)
  least = max(1, round(floor * 72))
  compress = magnitude.weights(sparsity, scope='global', floor=floor)
  if 3 * least > left:
    with pytest.raises(ValueError, match=f'at most {left} of 216'):
      compress.init(TIES, Ctx())
    return
  counts = {
    p: int(m.sum()) for p, m in masks(compress.init(TIES, Ctx())).items()
  }
  assert sum(counts.values()) == left
  assert all(least <= counts[path] <= size for path, size in sizes.items())


def test_ties_go_by_index() -> None:
  params = {'w': jnp.full((2, 4), -3.0)}
  kept = masks(magnitude.weights(0.375).init(params, Ctx()))['w']
  assert kept.ravel().tolist() == [False] * 3 + [True] * 5


def test_biases_are_not_pruned() -> None:
  params = magnitude.weights(0.9).init(PARAMS, Ctx())
  assert params['conv']['bias'] is PARAMS['conv']['bias']


@pytest.mark.slow
def test_a_floor_guards_every_array() -> None:
  params = {
    'high': 1 + jnp.arange(90.0).reshape(9, 10),
    'low': jnp.full((2, 5), 1e-3),
  }
  for floor, left in ((0.0, 1), (0.01, 1), (0.2, 2), (0.5, 5)):
    compress = magnitude.weights(0.4, scope='global', floor=floor)
    found = masks(compress.init(params, Ctx()))
    assert found['low'].sum() == left
    assert found['high'].sum() == 60 - left


def test_a_floor_without_room_is_refused() -> None:
  compress = magnitude.weights(0.995, scope='global')
  with pytest.raises(ValueError, match=r'at most 1 of 144,.* leaves 2 in 2'):
    compress.init(PARAMS, Ctx())
  # What is left per layer is no concern of a ranking by layer.
  assert masks(magnitude.weights(0.995).init(PARAMS, Ctx()))


def test_random_masks_do_not_depend_on_the_weights() -> None:
  compress = magnitude.weights(0.5, score='random')
  ctx = Ctx(key=jax.random.key(0))
  found = masks(compress.init(PARAMS, ctx))
  flipped = jax.tree.map(lambda x: 1 / x, PARAMS)
  for path, kept in masks(compress.init(flipped, ctx)).items():
    np.testing.assert_array_equal(kept, found[path])
    assert kept.sum() == kept.size // 2
  assert np.any(found['fc/kernel'].ravel() != found['conv/kernel'].ravel())


@functools.cache
def gradual(scope: str, steps: int) -> list[dict[str, np.ndarray]]:
  """Return the masks of every step of a run whose weights keep moving."""
  compress = magnitude.weights(
    0.77, scope=scope, schedule=schedule.cubic(0.1, 0.6), floor=0.1
  )

  @jax.jit
  def step(params: Any, at: jax.Array, key: jax.Array) -> Any:
    drawn = tree.map_arrays(
      lambda path, w: draw(
        jax.random.normal, jax.random.fold_in(key, len(path)), w.shape
      ),
      params,
    )
    return compress.update(drawn, Ctx(at, steps))

  params = compress.init(PARAMS, Ctx(0, steps))
  history = [masks(params)]
  for at, key in enumerate(jax.random.split(jax.random.key(1), steps), 1):
    params = step(params, at, key)
    history.append(masks(params))
  return history


@pytest.mark.slow
@pytest.mark.parametrize('scope', ['layer', 'global'])
def test_gradual_pruning_is_exact_at_the_end(scope: str) -> None:
  history = gradual(scope, 25)
  assert all(kept.all() for kept in history[0].values())
  if scope == 'layer':
    for path, kept in history[-1].items():
      assert np.sum(~kept) == round(0.77 * kept.size), path
  else:
    assert sum(np.sum(~k) for k in history[-1].values()) == round(0.77 * 144)
  assert all(kept.mean() >= 0.09 for kept in history[-1].values())


@pytest.mark.parametrize('scope', ['layer', 'global'])
def test_what_is_pruned_stays_pruned(scope: str) -> None:
  history = gradual(scope, 25)
  counts = [sum(int(kept.sum()) for kept in at.values()) for at in history]
  assert counts == sorted(counts, reverse=True)
  # Pruning begins after a tenth of the run and ends at three fifths.
  assert counts[2] == counts[0] > counts[4] > counts[10] > counts[15]
  assert counts[15] == counts[25]
  for before, after in zip(history, history[1:], strict=False):
    for path, kept in after.items():
      assert not np.any(kept & ~before[path])


def test_weights_are_ranked_before_quantization() -> None:
  # Two bits leave three values: ranking those would go by index alone.
  late = magnitude.weights(0.4, schedule=schedule.cubic(0.0, 0.5))
  both = chain(late, uniform(2))
  params = both.update(both.init(PARAMS, Ctx(0, 4)), Ctx(4, 4))
  w = np.asarray(PARAMS['fc']['kernel'])
  np.testing.assert_array_equal(
    ~masks(params)['fc/kernel'], smallest(w, round(0.4 * w.size))
  )


def test_masks_change_a_hundred_times_at_most() -> None:
  steps = 1000
  compress = magnitude.weights(0.9, schedule=schedule.cubic(0.0, 1.0))
  changed = jax.jit(
    jax.vmap(lambda at: compress.update(start, Ctx(at, steps))['w'].mask.sum())
  )
  start = {'w': Masked(PARAMS['fc']['kernel'], jnp.ones((8, 9), bool))}
  left = np.asarray(changed(jnp.arange(1, steps + 1)))
  due = np.flatnonzero(left < 72) + 1
  # Every tenth step, give or take the rounding of the fraction done.
  assert 90 <= len(due) <= masked.UPDATES
  assert due[-1] == steps
  assert left[-1] == 72 - round(0.9 * 72)


def test_one_shot_masks_are_not_touched() -> None:
  compress = magnitude.weights(0.5)
  params = compress.init(PARAMS, Ctx())
  moved = tree.map_arrays(lambda _, w: -w[::-1], params)
  assert compress.update(moved, Ctx(1, 1)) is moved


def test_pruned_weights_get_no_gradient() -> None:
  node = magnitude.weights(0.5).init(PARAMS, Ctx())['fc']['kernel']
  grad = jax.grad(lambda w: jnp.sum(node.replace(w=w).decode() ** 3))(node.w)
  np.testing.assert_allclose(grad, 3 * node.w**2 * node.mask, rtol=1e-6)


@pytest.mark.parametrize('sparsity', [1.0, -0.1, 1.5, math.nan, math.inf])
def test_impossible_sparsities_are_refused(sparsity: float) -> None:
  with pytest.raises(ValueError, match=rf'in \[0, 1\), got {sparsity!r}'):
    magnitude.weights(sparsity)


@pytest.mark.parametrize(
  ('wrong', 'message'),
  [
    ({'scope': 'network'}, "a scope of layer, global, got 'network'"),
    ({'score': 0}, 'a score of magnitude, random, taylor, fisher, got 0'),
    ({'schedule': 'cubic'}, "a schedule, got 'cubic'"),
    ({'schedule': 0.5}, 'a schedule, got 0.5'),
    ({'floor': -0.1}, 'a floor in .*, got -0.1'),
    ({'floor': math.nan}, 'a floor in .*, got nan'),
  ],
)
def test_unknown_choices_are_refused(wrong: Any, message: str) -> None:
  with pytest.raises(ValueError, match=f'prune.weights: expected {message}'):
    magnitude.weights(0.5, **wrong)


def test_pruning_twice_is_refused() -> None:
  once = magnitude.weights(0.5).init(PARAMS, Ctx())
  with pytest.raises(ValueError, match='got .* at conv/kernel'):
    magnitude.weights(0.2).init(once, Ctx())


@pytest.mark.slow
@given(quality=st.floats(0, 5))
@settings(max_examples=25, deadline=None)
def test_a_threshold_is_in_standard_deviations(quality: float) -> None:
  found = masks(magnitude.threshold(quality).init(PARAMS, Ctx()))
  for path in PATHS:
    size = np.abs(np.asarray(tree.paths(PARAMS)[path]))
    border = np.float32(quality) * np.std(tree.paths(PARAMS)[path])
    clear = np.abs(size - border) > 1e-5
    want = (size > border) | (size == size.max())
    np.testing.assert_array_equal(found[path][clear], want[clear])
    assert found[path].any()


def test_a_threshold_takes_two_thirds_of_a_normal_array() -> None:
  w = {'w': jax.random.normal(jax.random.key(0), (100, 100))}
  kept = masks(magnitude.threshold(1.0).init(w, Ctx()))['w']
  assert abs(np.mean(~kept) - 0.6827) < 0.02


def test_iterated_thresholds_follow_the_weights() -> None:
  compress = magnitude.threshold(1.0, schedule=schedule.steps(2))
  w = np.array([[4.0, -0.2, 1.0, 2.0, -2.9]])
  begun = compress.init({'w': jnp.float32(w)}, Ctx(0, 10))
  # Half of the deviation 2.3 passes 1.0 and more; then training moves them.
  assert masks(begun)['w'].tolist() == [[True, False, False, True, True]]
  after = begun['w'].replace(w=jnp.float32([[3.0, 9.0, 9.0, 1.2, -2.9]]))
  same = compress.update({'w': after}, Ctx(4, 10))
  np.testing.assert_array_equal(same['w'].mask, begun['w'].mask)
  done = compress.update({'w': after}, Ctx(5, 10))
  # The deviation of [3, 0, 0, 1.2, -2.9] is 1.9: zeros count, 9 does not.
  assert masks(done)['w'].tolist() == [[True, False, False, False, True]]


def test_all_zero_arrays_have_no_deviation() -> None:
  params = {'w': jnp.zeros((2, 3))}
  assert masks(magnitude.threshold(2.0).init(params, Ctx()))['w'].all()


@pytest.mark.parametrize('quality', [-0.1, math.nan, math.inf])
def test_impossible_qualities_are_refused(quality: float) -> None:
  with pytest.raises(
    ValueError, match=f'quality of 0 or more, got {quality!r}'
  ):
    magnitude.threshold(quality)
  with pytest.raises(ValueError, match='prune.threshold: expected a schedule'):
    magnitude.threshold(1.0, schedule=quality)


def test_each_layer_may_have_its_own_share() -> None:
  shares = {'conv/kernel': 0.25, 'fc/kernel': 0.9}
  late = magnitude.weights(shares, schedule=schedule.cubic(0.0, 0.5))
  params = late.init(TIES, Ctx(0, 4))
  assert all(kept.all() for kept in masks(params).values())
  for at, part in ((1, 1 - 0.5**3), (4, 1.0)):
    params = late.update(params, Ctx(at, 4))
    found = masks(params)
    assert set(found) == set(shares)  # what is not named stays whole
    for path, share in shares.items():
      w = np.asarray(tree.paths(TIES)[path])
      gone = smallest(w, round(part * round(share * w.size)))
      np.testing.assert_array_equal(~found[path], gone)
  once = masks(magnitude.weights(shares).init(TIES, Ctx()))
  for path, kept in masks(params).items():
    np.testing.assert_array_equal(once[path], kept)


def test_shares_of_no_weight_are_refused() -> None:
  compress = magnitude.weights({'fc/kernel': 0.5, 'fc/bias': 0.5})
  with pytest.raises(ValueError, match="of conv/kernel, fc/kernel.*'fc/bias'"):
    compress.init(PARAMS, Ctx())
  with pytest.raises(ValueError, match=r'in \[0, 1\), got 1.5'):
    magnitude.weights({'fc/kernel': 1.5})
  with pytest.raises(ValueError, match='one sparsity for the scope global'):
    magnitude.weights({'fc/kernel': 0.5}, scope='global')
