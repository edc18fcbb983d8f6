"""Pruning by one number: budgets are met, and spent where they help."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress import method, recipe, schedule, tree
from compress.method import Ctx
from compress.prune import budget as budget_lib
from compress.prune import magnitude, per_layer
from compress.prune.budget import Budget
from compress.prune.magnitude import Masked
from tests.nets import sites_with
from tests.runs import TINY, calibrated, start

DRAWN = np.random.default_rng(0)
LARGE = jnp.float32(DRAWN.normal(size=(20, 20)))
SPIKY = jnp.float32(DRAWN.normal(size=(10, 10)) ** 5)  # few weights matter
PARAMS = {'flat': {'kernel': LARGE}, 'spiky': {'kernel': SPIKY}}


def zeros(params: Any) -> dict[str, int]:
  """Return how many weights of each array are pruned."""
  found = tree.find(Masked, params)
  return {path: int(np.sum(~node.mask)) for path, node in found.items()}


class Stranger(tree.Compressed):
  """A node that cannot take zeros."""

  def __init__(self, w: jax.Array) -> None:
    self.w = w

  def decode(self) -> jax.Array:
    """Return the weight."""
    return self.w


@pytest.mark.slow
@given(st.floats(0, 0.98), st.sampled_from([2, 9]))
@settings(max_examples=20, deadline=None)
def test_the_sparsity_is_met_exactly(share: float, candidates: int) -> None:
  compress = budget_lib.auto(
    share, sensitivity='energy', candidates=candidates, floor=0.01
  )
  found = zeros(compress.init(PARAMS, Ctx()))
  assert sum(found.values()) == round(share * 500)
  assert found['flat/kernel'] < 400
  assert found['spiky/kernel'] < 100


def lost(w: jax.Array, count: int) -> float:
  """Return the share of the energy in the `count` smallest weights."""
  energy = np.sort(np.square(np.float64(w)), axis=None)
  return energy[:count].sum() / energy.sum()


def test_the_total_sensitivity_is_nearly_minimal() -> None:
  budget = Budget(
    'sparsity', 0.8, sensitivity='energy', candidates=40, floor=0.01
  )
  found = budget_lib.allocation(PARAMS, Ctx(), budget)
  total = lost(LARGE, round(400 * found['flat/kernel'])) + lost(
    SPIKY, round(100 * found['spiky/kernel'])
  )
  best = min(lost(LARGE, 400 - n) + lost(SPIKY, n) for n in range(100))
  assert best <= total < 1.02 * best
  assert total < 0.9 * (lost(LARGE, 320) + lost(SPIKY, 80))
  assert found['spiky/kernel'] > 0.8 > found['flat/kernel']


def test_allocations_can_be_set_by_hand() -> None:
  budget = Budget('sparsity', 0.7, candidates=5, floor=0.05)
  params, ctx = start(TINY)['params'], calibrated(TINY)
  found = budget_lib.allocation(params, ctx, budget)
  assert all(type(share) is float for share in found.values())
  one = magnitude.weights(found).init(params, ctx)
  other = budget_lib.auto(0.7, candidates=5, floor=0.05).init(params, ctx)
  assert zeros(one) == zeros(other)
  jax.tree.map(np.testing.assert_array_equal, one, other)


def test_multiplications_are_counted_by_use() -> None:
  params, ctx = start(TINY)['params'], calibrated(TINY)
  total = 36 * 9 + 108  # conv: 36 weights at 9 places; fc: 36 x 3
  for share in (0.1, 0.35, 0.8, 1.0):
    compress = budget_lib.auto(macs=share, candidates=6, floor=0.02)
    gone = zeros(compress.init(params, ctx))
    left = 9 * (36 - gone['conv/kernel']) + 108 - gone['fc/kernel']
    assert left <= share * total
    # One more use would not fit, unless what fits is whole.
    assert left > share * total - 9 or not gone['fc/kernel']
    assert share < 1 or left == total


def test_counts_of_multiplications_exceed_32_bits() -> None:
  ctx = calibrated(TINY)
  assert ctx.probe is not None
  uses = {'one': 2**31 + 11, 'other': 1000}
  ctx = ctx._replace(probe=ctx.probe._replace(sites=sites_with(uses)))
  one = jnp.float32([[8.0, 7.0, 6.0, 5.0], [4.0, 3.0, 2.0, 1.0]])
  params = {'one': one, 'other': 1e-3 * one}
  compress = budget_lib.auto(
    macs=0.6, sensitivity='energy', candidates=2, floor=0.125
  )
  # The budget is 0.6 * 8 * (2^31 + 1011) = 4.8 * 2^31 + 4852.8. Either array
  # is whole or has one weight. 'one' as a whole exceeds it; one weight of it
  # and 'other' cost 2^31 + 8011, which leaves room for 3 more weights.
  found = zeros(compress.init(params, ctx))
  assert found == {'one': 4, 'other': 0}
  mask = compress.init(params, ctx)['one'].mask
  assert mask.tolist() == [[True] * 4, [False] * 4]


def bits(size: int, count: int) -> float:
  """Return what an array with `count` zeros takes, by counting masks."""
  p = np.array([count, size - count]) / size
  entropy = -sum(q * np.log2(q) for q in p if q)
  return 32 * (size - count) + size * entropy


@pytest.mark.parametrize('share', [0.05, 0.2, 0.9])
def test_sizes_hold_the_positions(share: float) -> None:
  compress = budget_lib.auto(size=share, sensitivity='energy', candidates=40)
  gone = zeros(compress.init(PARAMS, Ctx()))
  size = bits(400, gone['flat/kernel']) + bits(100, gone['spiky/kernel'])
  assert 0.8 * share < size / (32 * 500) <= share


def test_all_layers_rise_at_once_to_their_share() -> None:
  late = budget_lib.auto(
    0.8, sensitivity='energy', schedule=schedule.cubic(0.2, 0.6), candidates=8
  )
  update = jax.jit(lambda params, step: late.update(params, Ctx(step, 10)))
  params = late.init(PARAMS, Ctx(0, 10))
  history = [zeros(params)]
  for step in range(1, 11):
    params = update(params, step)
    history.append(zeros(params))
  want = zeros(
    budget_lib.auto(0.8, sensitivity='energy', candidates=8).init(PARAMS, Ctx())
  )
  assert history[0] == history[2] == dict.fromkeys(want, 0)
  assert history[6] == history[10] == want
  for path, count in want.items():
    part = 1 - (1 - 0.25) ** 3  # a quarter of the way
    assert history[3][path] == pytest.approx(part * count, abs=1)
    for before, after in itertools.pairwise(history):
      assert before[path] <= after[path]


def test_budgets_are_those_of_the_weights_that_match() -> None:
  some = method.only('fc/kernel', budget_lib.auto(0.5, candidates=4, floor=0.1))
  params = some.init(start(TINY)['params'], calibrated(TINY))
  assert zeros(params) == {'fc/kernel': 54}


def test_frozen_nodes_have_no_counts() -> None:
  params = budget_lib.auto(0.5, sensitivity='energy').init(PARAMS, Ctx())
  frozen = tree.freeze(params)
  assert not tree.find(Masked, frozen)
  inner = per_layer.PerLayerMasked(LARGE, LARGE > 0, jnp.int32(1))
  outer = per_layer.PerLayerMasked(inner, LARGE < 1, jnp.int32(1))
  np.testing.assert_array_equal(
    tree.freeze(outer), jnp.where((LARGE > 0) & (LARGE < 1), LARGE, 0)
  )
  late = per_layer.PerLayerMasked(
    Stranger(LARGE), LARGE > 0, jnp.int32(1)
  ).freeze()
  assert type(late) is Masked


@pytest.mark.slow
def test_init_can_be_traced() -> None:
  params, ctx = start(TINY)['params'], calibrated(TINY)
  compress = budget_lib.auto(0.7, sensitivity='fisher', candidates=4, floor=0.1)
  jax.tree.map(
    np.testing.assert_array_equal,
    jax.jit(lambda p: compress.init(p, ctx))(params),
    compress.init(params, ctx),
  )


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', 'one budget of sparsity, macs, size, got None'),
    ('0.5, macs=0.5', r"one budget of .*, got {'sparsity': 0.5, 'macs': 0.5}"),
    ('1.0', r'a sparsity in \[0, 1\), got 1.0'),
    ('macs=0.0', r'macs in \(0, 1\], got 0.0'),
    ('size=1.5', r'size in \(0, 1\], got 1.5'),
    (
      '0.5, sensitivity="taste"',
      "a sensitivity of energy, fisher, loss, signal, trace, got 'taste'",
    ),
    ('0.5, score="taste"', "a score of .*, got 'taste'"),
    ('0.5, candidates=1', 'at least 2 candidates, got 1'),
    ('0.5, floor=0.0', r'a floor in \(0, 1\], got 0.0'),
  ],
)
def test_impossible_arguments_are_refused(text: str, message: str) -> None:
  with pytest.raises(ValueError, match=f'prune.auto: expected {message}'):
    recipe.parse(f'prune.auto({text})')


def test_floors_without_room_are_refused() -> None:
  compress = budget_lib.auto(0.98, sensitivity='energy', floor=0.1)
  with pytest.raises(
    ValueError, match='at most 10 .* got 0.1, which leaves 50'
  ):
    compress.init(PARAMS, Ctx())


def test_unknown_uses_are_refused() -> None:
  compress = budget_lib.auto(macs=0.5)
  with pytest.raises(ValueError, match='at flat/kernel: .*conv/kernel'):
    compress.init(PARAMS, calibrated(TINY))
  with pytest.raises(ValueError, match='prune.auto: expected calibration'):
    compress.init(PARAMS, Ctx())
