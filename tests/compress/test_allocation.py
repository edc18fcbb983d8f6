"""The knapsack against brute force, and sensitivities against loops."""

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress import allocation, hessian, method, recipe, tree
from compress.lowrank.factors import LowRank
from compress.method import Ctx
from compress.prune.magnitude import Masked
from compress.quantize.fake_quant import FakeQuantized
from compress.structured.chooser import Chosen
from tests.runs import TINY, calibrated, single_gradients, start

WHOLE = st.integers(0, 40)
PARTS = st.integers(0, 10**6).map(lambda n: n / 64)  # sums are exact


@st.composite
def problems(draw: Any, numbers: Any) -> tuple[Any, Any, float]:
  """Draw layers of different counts of candidates, and a budget."""
  counts = draw(st.sampled_from([(1,), (3,), (2, 4), (4, 1, 3), (3, 3, 2, 3)]))
  rows = lambda x: [  # noqa: E731
    draw(st.lists(x, min_size=n, max_size=n)) for n in counts
  ]
  cost = rows(numbers)
  least, most = (sum(map(f, cost)) for f in (min, max))
  budget = draw(st.floats(0, 1)) * (most - least) + least
  return rows(st.integers(0, 9)), cost, budget


def totals(sensitivity: Any, cost: Any, choice: Any) -> tuple[float, float]:
  """Return the sensitivity and the cost of a choice."""
  return tuple(
    sum(row[c] for row, c in zip(table, choice, strict=True))
    for table in (sensitivity, cost)
  )


def best(sensitivity: Any, cost: Any, budget: float) -> float:
  """Return the least sensitivity within a budget, by trying every choice."""
  choices = itertools.product(*(range(len(row)) for row in cost))
  found = [totals(sensitivity, cost, choice) for choice in choices]
  return min(total for total, spent in found if spent <= budget)


@given(problems(WHOLE))
@settings(max_examples=40, deadline=None)
def test_whole_costs_are_met_exactly(problem: Any) -> None:
  sensitivity, cost, budget = problem
  choice = allocation.knapsack(sensitivity, cost, budget)
  total, spent = totals(sensitivity, cost, choice.tolist())
  assert spent <= budget
  assert total == best(sensitivity, cost, budget)


@given(problems(PARTS))
@settings(max_examples=40, deadline=None)
def test_any_cost_is_met_to_a_step(problem: Any) -> None:
  sensitivity, cost, budget = problem
  choice = allocation.knapsack(sensitivity, cost, budget).tolist()
  total, spent = totals(sensitivity, cost, choice)
  assert spent <= budget * (1 + 1e-12)
  # No better than the best; no worse than with a step less a layer to spend.
  assert total >= best(sensitivity, cost, budget * (1 + 1e-12))
  least = sum(map(min, cost))
  slack = len(cost) * (budget - least) / allocation.STEPS
  if budget - slack >= least:
    assert total <= best(sensitivity, cost, budget - slack)


def test_the_first_of_equals_is_chosen() -> None:
  found = allocation.knapsack([[1, 1, 0, 0]], [[4, 3, 2, 1]], 3)
  assert found.tolist() == [2]
  assert found.dtype == jnp.int32


def test_a_budget_without_end_spares_everything() -> None:
  cost = [[3.0, 1.0], [5.5, 0.0]]
  found = allocation.knapsack([[0, 1], [0, 1]], cost, np.inf)
  assert found.tolist() == [0, 0]


def test_broken_candidates_are_the_last_resort() -> None:
  sensitivity = [[0.0, jnp.nan, 5.0], [0.0, jnp.inf, jnp.inf]]
  cost = [[9, 1, 2], [9, 1, 0]]
  assert allocation.knapsack(sensitivity, cost, 11).tolist() == [2, 0]
  assert allocation.knapsack(sensitivity, cost, 2).tolist() == [2, 2]
  assert allocation.knapsack(sensitivity, cost, 1).tolist() == [1, 2]


def test_sensitivity_may_be_traced() -> None:
  sensitivity, cost = jnp.array([[0.0, 4.0], [0.0, 1.0]]), [[5, 2], [5, 2]]
  choose = jax.jit(lambda d: allocation.knapsack(d, cost, 7))
  assert choose(sensitivity).tolist() == [0, 1]
  assert choose(sensitivity[::-1]).tolist() == [1, 0]


@pytest.mark.parametrize('budget', [2.5, -1.0, np.nan])
def test_impossible_budgets_name_the_least(budget: float) -> None:
  with pytest.raises(ValueError, match=f'at least 3, .* got {budget}'):
    allocation.knapsack([[0, 0], [0, 0]], [[1, 2], [3, 2]], budget)


CANDIDATES = {'conv/kernel': (1.0, 0.5, 3.0, 0.6), 'fc/kernel': (1.0, -2.0)}


def shrink(path: str, w: jax.Array, amount: float) -> jax.Array:
  """Return a weight times a number."""
  del path
  return w * amount


def changed(path: str, amount: float) -> Any:
  """Return the tiny network with one weight made smaller."""
  return tree.map_paths(
    lambda p, w: w * amount if p == path else w, start(TINY)['params']
  )


@pytest.mark.parametrize('sensitivity', sorted(allocation.MEASURES))
def test_sensitivity_is_that_of_one_changed_weight(sensitivity: str) -> None:
  params, ctx = start(TINY)['params'], calibrated(TINY)
  found = allocation.sensitivity(ctx, params, CANDIDATES, shrink, sensitivity)
  grads = single_gradients(TINY, 32)

  def naive(path: str, amount: float) -> float:
    if sensitivity == 'loss':
      return ctx.probe.loss(changed(path, amount)) - ctx.probe.loss(params)
    if sensitivity == 'energy':
      return (1 - amount) ** 2
    if sensitivity == 'signal':
      left = 1 - (1 - amount) ** 2
      return -math.log(left) if left > 0 else allocation.WORST
    layer, name = path.split('/')
    if sensitivity == 'trace':
      w = np.asarray(params[layer][name])
      mean = hessian.traces('here', params, ctx)[path] / w.size
      return float(mean) * np.sum(((1 - amount) * w) ** 2) / 2
    fisher = np.mean(np.square(grads[layer][name]), axis=0)
    lost = (1 - amount) * np.asarray(params[layer][name])
    return np.sum(fisher * lost**2) / 2

  assert list(found) == list(CANDIDATES)
  for path, amounts in CANDIDATES.items():
    raw = [max(float(naive(path, amount)), 0.0) for amount in amounts]
    want = np.maximum.accumulate(raw)
    np.testing.assert_allclose(found[path], want, rtol=1e-4, atol=1e-6)
    assert found[path][-1] > found[path][0] == 0


def test_an_amount_may_be_a_width() -> None:
  bits = {'fc/kernel': (16, 8, 4, 2)}
  found = allocation.sensitivity(
    calibrated(TINY),
    start(TINY)['params'],
    bits,
    lambda path, w, width: FakeQuantized(w, None, width),
    'energy',
  )['fc/kernel']
  assert np.all(np.diff(found) > 0)
  assert found[0] < 1e-8 < 1e-2 < found[-1]


def test_the_array_inside_a_node_is_changed() -> None:
  w = jnp.array([[3.0, 4.0]])
  params = {'w': Masked(w, jnp.array([[True, False]])), 'other': None}
  found = allocation.sensitivity(Ctx(), params, {'w': (1, 0)}, shrink, 'energy')
  assert found['w'].tolist() == [0.0, 1.0]


def test_missing_weights_are_those_of_the_network() -> None:
  params, ctx = start(TINY)['params'], calibrated(TINY)
  part = tree.map_paths(lambda p, w: w if p in CANDIDATES else None, params)
  for sensitivity in ('fisher', 'loss'):
    some, all_ = (
      allocation.sensitivity(ctx, p, CANDIDATES, shrink, sensitivity)
      for p in (part, params)
    )
    for path, want in all_.items():
      np.testing.assert_array_equal(some[path], want)


@pytest.mark.parametrize('sensitivity', ['fisher', 'loss', 'trace'])
def test_what_needs_data_says_so(sensitivity: str) -> None:
  with pytest.raises(ValueError, match='sensitivity: expected calibration'):
    allocation.sensitivity(
      Ctx(), {'w': jnp.ones((2, 2))}, {}, shrink, sensitivity
    )


@pytest.mark.parametrize(
  ('text', 'kind'),
  [
    ('lowrank.auto(macs=0.5)', LowRank),
    ('quantize.auto(bits=4.0)', FakeQuantized),
    ('structured.auto(0.5)', Chosen),
  ],
)
def test_choices_among_candidates_are_not_measured_for_shapes(
  text: str, kind: type
) -> None:
  init = functools.partial(recipe.parse(text).init, ctx=calibrated(TINY))
  params = start(TINY)['params']
  found = method.traced(init, params, pytest.fail)
  assert tree.find(kind, found)
  want = jax.eval_shape(lambda: params)
  assert jax.eval_shape(tree.decode, found) == want
  assert not method.shapes_only()
  with pytest.raises(jax.errors.TracerArrayConversionError):
    jax.eval_shape(init, params)
