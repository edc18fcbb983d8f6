"""Hyperband against the paper's table and its own rules."""

from collections import Counter

import jax
import pytest
from ml_collections import ConfigDict

import search
from search import designer, hyperband
from search import space as spaces
from search.bayes import bayes
from search.designer import Values
from search.hyperband import Budget

KEY = jax.random.key(0)
BUDGET = Budget('train.epochs', 1, 9)


def space() -> spaces.Space:
  """Return a space of one parameter and a budget."""
  config = ConfigDict({'train': {'epochs': 100}})
  config.x = search.float(0.0, 1.0)
  return spaces.of(config)


def run(used: designer.Designer, count: int) -> list[tuple[float, int]]:
  """Return parameter and budget of the trials of a search for small x."""
  state, found = used.init(KEY), []
  for i in range(count):
    config, state = used.ask(state, jax.random.fold_in(KEY, i))
    found.append((config.x, config.train.epochs))
    state = used.tell(state, config, Values((config.x,)))
  return found


def test_budgets_and_shares_are_the_paper_s() -> None:
  # Li et al. 2018, table 1 (R = 81, eta = 3); ceil as in algorithm 1.
  budget = Budget('epochs', 1, 81)
  assert budget.rungs == [1, 3, 9, 27, 81]
  assert hyperband.shares(budget, 5) == [81, 34, 15, 8, 5]
  assert Budget('epochs', 2, 30).rungs == [3, 10, 30]


def test_halving_gives_the_best_more() -> None:
  area = space()
  found = run(hyperband.halving(area, designer.random(area), BUDGET), 39)
  rungs = [[x for x, epochs in found if epochs == r] for r in BUDGET.rungs]
  # What was among the best goes on even if it is displaced later.
  assert len(rungs[0]) > len(rungs[1]) >= len(rungs[0]) // 3
  assert len(rungs[1]) > len(rungs[2]) >= len(rungs[1]) // 3 - 1
  means = [sum(xs) / len(xs) for xs in rungs]
  assert means[0] > means[1] > means[2]


def test_hyperband_starts_in_all_brackets_in_their_shares() -> None:
  area = space()
  found = run(hyperband.hyperband(area, designer.random(area), BUDGET), 60)
  first: dict[float, int] = {}
  for x, epochs in found:
    first.setdefault(round(x, 9), epochs)
  starts = Counter(first.values())
  share = hyperband.shares(BUDGET, 3)
  total = sum(starts.values())
  for rung, part in zip(BUDGET.rungs, share, strict=True):
    assert abs(starts[rung] - total * part / sum(share)) < 1.5


def test_the_process_inside_sees_the_largest_budget_with_enough() -> None:
  area = space()
  state = designer.State(KEY)
  for unit, rung in [
    (0.1, 1),
    (0.2, 1),
    (0.3, 1),
    (0.1, 3),
    (0.2, 3),
    (0.1, 9),
  ]:
    state = designer.observe(state, (unit, float(rung)), Values((unit + rung,)))
  observed = hyperband.inner_state(designer.State(KEY), state, BUDGET)
  assert [v.objectives[0] for _, v in observed.observations] == [3.1, 3.2]
  assert observed.pending == ((0.3,),)
  found = run(hyperband.hyperband(area, bayes(area, first=4), BUDGET), 24)
  assert min(x for x, _ in found) < 0.02


@pytest.mark.parametrize(
  ('budget', 'message'),
  [
    (Budget('train.epochs', 4, 9), 'two rungs or more'),
    (Budget('train.steps', 1, 9), "a field of the config, got 'train.steps'"),
  ],
)
def test_wrong_budgets_are_refused(budget: Budget, message: str) -> None:
  area = space()
  with pytest.raises(ValueError, match=message):
    hyperband.hyperband(area, designer.random(area), budget)
