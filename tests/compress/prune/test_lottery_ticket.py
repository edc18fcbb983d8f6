"""Lottery tickets: when they prune, and what they return to."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress import tree
from compress.method import Ctx, chain
from compress.prune.lottery_ticket import cumulative_shares, lottery_ticket
from compress.prune.masked import Masked
from compress.quantize.fake_quant import FakeQuantized
from compress.quantize.uniform import uniform as quantize_grid
from compress.random import draw

W = jnp.float32(np.random.default_rng(0).normal(size=(8, 5)))
STEPS = 40


def run(compress: Any, steps: int = STEPS) -> list[Any]:
  """Return the node after every step of weights that keep moving."""

  @jax.jit
  def step(params: Any, at: jax.Array) -> Any:
    key = jax.random.fold_in(jax.random.key(1), at)
    moved = tree.map_arrays(
      lambda path, w: w + draw(jax.random.normal, key, w.shape), params
    )
    done = compress.update(moved, Ctx(at, steps))
    return done, moved

  params = compress.init({'w': W}, Ctx(0, steps))
  history = [(params['w'], params['w'])]
  for at in range(1, steps + 1):
    params, moved = step(params, jnp.int32(at))
    history.append((params['w'], moved['w']))
  return history


def latent(node: Any) -> np.ndarray:
  """Return the trained array under a node."""
  return np.asarray(tree.latent(node))


@pytest.mark.slow
@pytest.mark.parametrize('grid', [False, True])
def test_rounds_prune_by_size_and_rewind(grid: bool) -> None:
  compress = lottery_ticket(0.75, rewind_at=0.1, rounds=2)
  if grid:
    compress = chain(compress, quantize_grid(4))
  history = run(compress)
  assert isinstance(history[-1][0].w, FakeQuantized) == grid
  # Step 4 is the rewind point; the 36 left are three parts of 12.
  origin = latent(history[4][1])
  assert np.all(np.asarray(history[3][0].origin) == W)
  for at, (node, moved) in enumerate(history):
    kept, before = np.asarray(node.mask), np.asarray(moved.mask)
    if at >= 4:
      np.testing.assert_array_equal(node.origin, origin)
    if at not in (16, 28):
      np.testing.assert_array_equal(kept, before)
      np.testing.assert_array_equal(latent(node), latent(moved))
      continue
    np.testing.assert_array_equal(latent(node), origin)
    left = {16: 20, 28: 10}[at]
    size = np.where(before, np.abs(latent(moved)), -1)
    assert set(np.flatnonzero(kept)) == set(np.argsort(size.ravel())[-left:])
  ends = tree.decode({'w': history[28][0]})['w']
  assert np.all(np.asarray(ends)[~np.asarray(history[28][0].mask)] == 0)


def test_the_start_may_be_the_rewind_point() -> None:
  history = run(lottery_ticket(0.5, rewind_at=0.0, rounds=1), 4)
  assert [int(node.mask.sum()) for node, _ in history] == [40, 40, 20, 20, 20]
  np.testing.assert_array_equal(history[2][0].w, W)


@given(sparsity=st.floats(0, 0.99), rounds=st.integers(1, 8))
def test_each_round_prunes_the_same_share(sparsity: float, rounds: int) -> None:
  shares = cumulative_shares(sparsity, rounds)
  assert (len(shares), shares[0], shares[-1]) == (rounds + 1, 0.0, 1.0)
  left = 1 - sparsity * np.array(shares)
  np.testing.assert_allclose(
    left[1:] / left[:-1], (1 - sparsity) ** (1 / rounds), rtol=1e-6
  )


def test_tickets_are_frozen_as_masked_weights() -> None:
  params = lottery_ticket(0.5).init({'w': W}, Ctx(0, 9))
  np.testing.assert_array_equal(tree.freeze(params)['w'], W)
  stays = params['w'].replace(w=FakeQuantized(params['w'], None, 4))
  assert type(stays.freeze()) is Masked


def test_tickets_need_training() -> None:
  with pytest.raises(
    ValueError, match='prune.lottery_ticket: expected a run of some'
  ):
    lottery_ticket(0.5).init({'w': W}, Ctx(0, 0))


@pytest.mark.parametrize(
  ('wrong', 'message'),
  [
    ({'sparsity': 1.0}, r'a sparsity in \[0, 1\), got 1.0'),
    ({'rewind_at': 1.0}, r'a rewind point in \[0, 1\), got 1.0'),
    ({'rewind_at': -0.1}, r'a rewind point in \[0, 1\), got -0.1'),
    ({'rounds': 0}, '1 round or more, got 0'),
    ({'rounds': 1.5}, '1 round or more, got 1.5'),
    ({'scope': 'all'}, 'a scope of layer, global'),
  ],
)
def test_impossible_tickets_are_refused(wrong: Any, message: str) -> None:
  with pytest.raises(
    ValueError, match=f'prune.lottery_ticket: expected {message}'
  ):
    lottery_ticket(**{'sparsity': 0.5, **wrong})
