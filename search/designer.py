"""Designers: pure functions with the ask-and-tell interface.

A suggestion depends on the key and on the sets of observations and pending
points, not on their order. `designer` makes a designer from a rule that picks a
point.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import numpy as np
from ml_collections import ConfigDict
from scipy.stats import qmc

from search import space as spaces
from search.parameter import levels
from search.space import Space

Key: TypeAlias = jax.Array
Point: TypeAlias = tuple[float, ...]  # of the unit cube
Allowed: TypeAlias = Callable[[ConfigDict], bool] | None  # None allows all

TRIES = 4096  # samples before a space counts as forbidden


class Values(NamedTuple):
  """The result of a trial.

  Attributes:
    objectives: Values to minimize; NaN for a failed trial.
    constraints: At most 0 each for a feasible config.
    seconds: Time of the trial, NaN if not known.
  """

  objectives: tuple[float, ...]
  constraints: tuple[float, ...] = ()
  seconds: float = math.nan


class State(NamedTuple):
  """The state of a designer.

  Attributes:
    key: Key of the search.
    observations: Points and their values.
    pending: Points that were suggested and have no values yet.
  """

  key: Key
  observations: tuple[tuple[Point, Values], ...] = ()
  pending: tuple[Point, ...] = ()


class Designer(NamedTuple):
  """An optimizer over configs.

  Attributes:
    init: Key -> the initial state.
    ask: State, key -> a config to try, and the state in which it is pending.
    tell: State, config, values -> the state with this observation. The config
      need not have been suggested.
    wait: State, config -> the state in which the config is pending.
  """

  init: Callable[[Key], State]
  ask: Callable[[State, Key], tuple[ConfigDict, State]]
  tell: Callable[[State, ConfigDict, Values], State]
  wait: Callable[[State, ConfigDict], State]


# Space, state, key, allowed -> a snapped point.
Rule: TypeAlias = Callable[[Space, State, Key, Allowed], Point]


def designer(space: Space, rule: Rule, allowed: Allowed) -> Designer:
  """Return the designer of a rule.

  Args:
    space: The space of configs.
    rule: Picks the next point.
    allowed: Whether a config may be suggested, by constraints that are known
      without a trial. None allows all.

  Returns:
    The designer.
  """

  def ask(state: State, key: Key) -> tuple[ConfigDict, State]:
    point = rule(space, state, key, allowed)
    return spaces.to_config(space, np.array(point)), waiting(state, point)

  def tell(state: State, config: ConfigDict, values: Values) -> State:
    return observe(state, point_of(space, config), values)

  def wait(state: State, config: ConfigDict) -> State:
    return waiting(state, point_of(space, config))

  return Designer(State, ask, tell, wait)


def point_of(space: Space, config: ConfigDict) -> Point:
  """Return the point of a config."""
  return as_point(space, spaces.to_unit(space, config))


def waiting(state: State, point: Point) -> State:
  """Return the state in which a point is pending."""
  return state._replace(pending=(*state.pending, point))


def observe(state: State, point: Point, values: Values) -> State:
  """Return the state with the values of a point."""
  _expect_like(state, values)
  left = list(state.pending)
  if left:
    near = np.abs(np.array(left) - np.array(point)).max(axis=1)
    if near.min() < 1e-6:  # exp(log(x)) is only nearly x
      point = left.pop(int(near.argmin()))
  return state._replace(
    observations=(*state.observations, (point, values)), pending=tuple(left)
  )


def random(space: Space, allowed: Allowed = None) -> Designer:
  """Return a designer that samples uniformly (Bergstra & Bengio 2012)."""

  def rule(space: Space, state: State, key: Key, allowed: Allowed) -> Point:
    del state
    return drawn(space, generator(key), allowed)

  return designer(space, rule, allowed)


def sobol(space: Space, allowed: Allowed = None) -> Designer:
  """Return a designer that follows a scrambled Sobol sequence."""
  return designer(space, sobol_rule, allowed)


def sobol_rule(space: Space, state: State, key: Key, allowed: Allowed) -> Point:
  """Pick the next point of the sequence if it is allowed, else a random one."""
  sequence = qmc.Sobol(len(space.names), rng=generator(state.key))
  place = len(state.observations) + len(state.pending)
  if place:
    sequence.fast_forward(place)
  point = as_point(space, sequence.random(1)[0])
  if is_allowed(space, point, allowed):
    return point
  return drawn(space, generator(key), allowed)


def grid(space: Space, steps: int = 5, allowed: Allowed = None) -> Designer:
  """Return a designer that tries all combinations.

  Args:
    space: The space of configs.
    steps: Number of values of each float, and maximum for integers.
    allowed: See `designer`.

  Returns:
    The designer; its `ask` raises StopIteration once all are tried.
  """
  if steps < 2:
    raise ValueError(f'grid: expected steps >= 2, got {steps!r}.')
  axes = []
  for leaf in space.leaves:
    count = levels(leaf)
    if not leaf.options:
      count = min(count or steps, steps)
    ends = (0.5 / count, 1 - 0.5 / count) if leaf.whole else (0.0, 1.0)
    axes.append(np.linspace(*ends, count))

  def rule(space: Space, state: State, key: Key, allowed: Allowed) -> Point:
    del key
    known = {point for point, _ in state.observations} | set(state.pending)
    for unit in itertools.product(*axes):
      point = as_point(space, np.array(unit))
      if point not in known and is_allowed(space, point, allowed):
        return point
    raise StopIteration('grid: every combination was tried.')

  return designer(space, rule, allowed)


def generator(key: Key) -> np.random.Generator:
  """Return the numpy generator of a key."""
  return np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())


def as_point(space: Space, unit: np.ndarray) -> Point:
  """Return a snapped point, equal for equal configs."""
  return tuple(spaces.snap(space, unit[None])[0].tolist())


def is_allowed(space: Space, point: Point, allowed: Allowed) -> bool:
  """Return whether the config at a point may be suggested."""
  return allowed is None or allowed(spaces.to_config(space, np.array(point)))


def drawn(space: Space, rng: np.random.Generator, allowed: Allowed) -> Point:
  """Sample an allowed point.

  Raises:
    ValueError: If `TRIES` points were forbidden.
  """
  for _ in range(TRIES):
    point = as_point(space, rng.random(len(space.names)))
    if is_allowed(space, point, allowed):
      return point
  raise ValueError(
    f'search: expected an allowed config among {TRIES} random ones, got none. '
    'Loosen the constraint, or tell the designer a config that meets it.'
  )


def _expect_like(state: State, values: Values) -> None:
  known = (v for _, v in state.observations)
  finite = (v for v in known if np.isfinite(v.objectives).all())
  if not values.objectives:
    raise ValueError(f'tell: expected an objective, got {values!r}.')
  before = next(finite, None) if np.isfinite(values.objectives).all() else None
  if before is not None:
    sizes = len(before.objectives), len(before.constraints)
    if sizes != (len(values.objectives), len(values.constraints)):
      raise ValueError(
        f'tell: expected {sizes[0]} objectives and {sizes[1]} constraints as '
        f'before, got {values!r}.'
      )
