"""Successive halving and Hyperband: many short trials, few long ones.

Configs are evaluated at a small budget, and the best of every `eta` are
promoted to `eta` times the budget. Promotion is asynchronous (Li et al. 2020,
arXiv 1810.05934, algorithm 2): a config is promoted as soon as it is among the
best so far, so that no worker waits. The budget is the last coordinate of a
point.
"""

import math
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from search import designer
from search import space as spaces
from search.designer import Designer, Key, Point, State, Values
from search.space import Space


class Budget(NamedTuple):
  """The budgets of trials.

  Attributes:
    field: Dotted path of the config that holds it, as 'train.epochs'.
    low: Budget of the first rung.
    high: Budget of the last rung.
    eta: Ratio of the budgets of rungs; one of `eta` configs is promoted.
  """

  field: str
  low: int
  high: int
  eta: int = 3

  @property
  def rungs(self) -> list[int]:
    """Return the increasing budgets, the last of them `high`.

    >>> Budget('epochs', 1, 81).rungs
    [1, 3, 9, 27, 81]
    """
    count = int(math.log(self.high / self.low, self.eta) + 1e-9)
    return [self.high // self.eta**i for i in range(count, -1, -1)]


def halving(space: Space, inner: Designer, budget: Budget) -> Designer:
  """Return a designer that starts all configs at the lowest budget."""
  return _budgeted(space, inner, budget, 1)


def hyperband(space: Space, inner: Designer, budget: Budget) -> Designer:
  """Return a designer that also starts configs at larger budgets.

  Brackets that start at rung 0, 1, ... get configs in the shares of Hyperband
  (Li et al. 2018, JMLR 18, algorithm 1). With an inner
  `bayes` this is BOHB (Falkner et al. 2018): the model is fitted at the largest
  budget with more points than parameters.

  Args:
    space: The space of configs.
    inner: Suggests new configs.
    budget: The budgets of trials.

  Returns:
    A designer of configs that include their budget.

  Raises:
    ValueError: If the budget has no field, or fewer than two rungs.
  """
  return _budgeted(space, inner, budget, len(budget.rungs))


def shares(budget: Budget, brackets: int) -> list[int]:
  r"""Return the number of configs that start in each bracket, for one round.

  $\lceil (s_{max} + 1) \eta^s / (s + 1) \rceil$, for s halvings.

  >>> shares(Budget('epochs', 1, 81), 5)
  [81, 34, 15, 8, 5]
  """
  largest = len(budget.rungs) - 1
  return [
    math.ceil((largest + 1) * budget.eta**s / (s + 1))
    for s in range(largest, largest - brackets, -1)
  ]


def promoted(state: State, budget: Budget) -> Point | None:
  """Return the point to promote, with its next budget, or None.

  Of n finished trials in a rung of a bracket the best `n // eta` are promoted,
  from the highest rung first.
  """
  values = dict(state.observations)
  first: dict[Point, float] = {}
  reached: dict[Point, float] = {}
  for *unit, rung in [*values, *state.pending]:
    point = tuple(unit)
    first[point] = min(rung, first.get(point, rung))
    reached[point] = max(rung, reached.get(point, rung))
  rungs = budget.rungs
  for low, high in reversed(list(zip(rungs, rungs[1:], strict=False))):
    for bracket in rungs:
      group = sorted(
        (cost(found), p[:-1])
        for p, found in values.items()
        if p[-1] == low and first[p[:-1]] == bracket
      )
      for _, point in group[: len(group) // budget.eta]:
        if reached[point] == low:
          return (*point, float(high))
  return None


def cost(values: Values) -> tuple[float, float]:
  """Return the sort key of trials: violation, then the first objective."""
  if not np.isfinite([*values.objectives, *values.constraints]).all():
    return math.inf, math.inf
  return sum(max(c, 0.0) for c in values.constraints), values.objectives[0]


def inner_state(inner: State, state: State, budget: Budget) -> State:
  """Return the state of the inner designer: the largest sufficient budget."""
  for rung in reversed(budget.rungs):
    observed = tuple(
      (p[:-1], v) for p, v in state.observations if p[-1] == rung
    )
    if observed and len(observed) > len(observed[0][0]):
      break
  known = {point for point, _ in observed}
  points = {p[:-1] for p in [*dict(state.observations), *state.pending]}
  return inner._replace(
    observations=observed, pending=tuple(sorted(points - known))
  )


def _budgeted(
  space: Space, inner: Designer, budget: Budget, brackets: int
) -> Designer:
  rungs, size = budget.rungs, shares(budget, brackets)
  if len(rungs) < 2 or budget.eta < 2:
    raise ValueError(
      f'hyperband: expected two rungs or more, got {rungs}. Raise high to at '
      f'least {budget.eta} times low.'
    )
  try:
    spaces.at(space.base, budget.field)
  except (KeyError, AttributeError):
    raise ValueError(
      f'hyperband: expected a field of the config, got {budget.field!r}.'
    ) from None

  def ask(state: State, key: Key) -> tuple[ConfigDict, State]:
    point = promoted(state, budget)
    if point is None:
      begun = _begun(state, rungs[:brackets])
      chosen = min(range(brackets), key=lambda b: (begun[b] + 1) / size[b])
      known = inner_state(inner.init(state.key), state, budget)
      config, _ = inner.ask(known, jax.random.fold_in(key, 0))
      point = (*designer.point_of(space, config), float(rungs[chosen]))
    return _config(space, budget, point), designer.waiting(state, point)

  def at(config: ConfigDict) -> Point:
    rung = float(spaces.at(config, budget.field))
    return (*designer.point_of(space, config), rung)

  return Designer(
    State,
    ask,
    lambda state, config, values: designer.observe(state, at(config), values),
    lambda state, config: designer.waiting(state, at(config)),
  )


def _begun(state: State, starts: list[int]) -> list[int]:
  first: dict[Point, float] = {}
  for *unit, rung in [*dict(state.observations), *state.pending]:
    first[tuple(unit)] = min(rung, first.get(tuple(unit), rung))
  return [sum(rung == start for rung in first.values()) for start in starts]


def _config(space: Space, budget: Budget, point: Point) -> ConfigDict:
  config = spaces.to_config(space, np.array(point[:-1]))
  config.update_from_flattened_dict({budget.field: int(point[-1])})
  return config
