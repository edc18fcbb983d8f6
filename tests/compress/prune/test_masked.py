"""Masks: which scores stay, when they change, how they are stored."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress import schedule, tree
from compress.method import Ctx
from compress.prune import importance, masked, selection
from compress.prune.masked import Masked
from compress.quantize.fake_quant import FakeQuantized
from compress.quantize.integer_codes import Quantized

W = jnp.float32([[0.5, -3.0], [1.0, 2.0]])


@given(
  scores=st.lists(
    st.sampled_from([-np.inf, -1e-40, -0.0, 0.0, 1.0, np.inf]), min_size=6
  ),
  drop=st.integers(0, 6),
)
@settings(max_examples=30, deadline=None)
def test_the_lowest_scores_are_dropped_by_index(
  scores: list[float], drop: int
) -> None:
  found = selection.keep_highest(jnp.float32(scores[:6]).reshape(2, 3), drop)
  order = sorted(range(6), key=lambda i: (scores[i], i))
  assert set(np.flatnonzero(~np.asarray(found))) == set(order[:drop])


@pytest.mark.slow
@pytest.mark.parametrize('kind', [jnp.float32, jnp.bfloat16, jnp.float16])
def test_selection_does_not_sort_and_agrees_with_numpy(kind: Any) -> None:
  scores = jnp.asarray(np.random.default_rng(0).normal(size=(40, 50)), kind)
  scores = scores.at[3, 4].set(jnp.nan)  # last, as numpy sorts it
  order = np.argsort(np.float32(scores), axis=None, kind='stable')
  keep = jax.jit(selection.keep_highest)
  for drop in (0, 1, 999, 1999, 2000):
    want = np.ones(2000, bool)
    want[order[:drop]] = False
    np.testing.assert_array_equal(keep(scores, drop).ravel(), want)
  assert 'sort' not in str(jax.make_jaxpr(selection.keep_highest)(scores, 3))


@pytest.mark.parametrize(('steps', 'times'), [(12, 4), (5, 100), (100, 3)])
def test_masks_change_so_many_times(steps: int, times: int) -> None:
  due = [bool(masked.due(Ctx(at, steps), times)) for at in range(1, steps + 1)]
  assert sum(due) == min(steps, times)
  assert due[-1]
  at = np.flatnonzero(due) + 1
  assert np.ptp(np.diff(at)) <= 1


def test_pruned_weights_score_lowest() -> None:
  kept = jnp.array([[True, False], [True, True]])
  params = {'w': Masked(FakeQuantized(W, None, 2), kept)}
  observed = []

  def worth(path: str, w: jax.Array) -> jax.Array:
    observed.append((path, w.tolist()))
    return -w

  found = masked.masked_scores(params, lambda params, ctx: worth, Ctx())
  assert observed == [('w', [[0.5, 0.0], [1.0, 2.0]])]
  assert found['w'].tolist() == [[-0.5, -np.inf], [-1.0, -2.0]]


def test_pruned_weights_never_grow_back() -> None:
  def choose(scores: masked.Scores, part: jax.Array) -> masked.Scores:
    return {path: x > 3 * part - 1 for path, x in scores.items()}

  half = schedule.steps(2)
  method = masked.prune_by_score('here', importance.magnitude, choose, half)
  params = method.init({'w': W}, Ctx(0, 2))
  assert params['w'].mask.tolist() == [[False, True], [True, True]]
  grown = {'w': params['w'].replace(w=10 * W)}
  after = method.update(grown, Ctx(1, 2))['w'].mask
  assert after.tolist() == [[False, True], [True, True]]
  with pytest.raises(ValueError, match='here: expected a schedule, got 1'):
    masked.prune_by_score('here', importance.magnitude, choose, 1)


def test_latent_arrays_can_be_mapped_under_a_grid() -> None:
  node = Masked(FakeQuantized(W, None, 4), jnp.ones((2, 2), bool))
  after = masked.map_latent('here', 'w', node, lambda w: -w)
  np.testing.assert_array_equal(tree.latent(after), -W)
  assert jax.tree.structure(after) == jax.tree.structure(node)
  small = Masked(W[:1], jnp.ones((2, 2), bool))
  with pytest.raises(ValueError, match=r'here at w: .* shape \(2, 2\) under'):
    masked.map_latent('here', 'w', small, lambda w: w)


def test_zeros_are_stored_without_a_mask_if_possible() -> None:
  kept = jnp.array([[True, False], [True, True]])
  plain = Masked(W, kept).freeze()
  assert plain.tolist() == [[0.5, 0.0], [1.0, 2.0]]
  codes = Quantized(jnp.int8([[1, 2], [3, 4]]), jnp.ones(2), None, 8)
  assert Masked(codes, kept).freeze().codes.tolist() == [[1, 0], [3, 4]]
  stays = Masked(Masked(W, kept), kept)
  assert isinstance(stays.freeze(), Masked)
