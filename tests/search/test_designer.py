"""Laws of every designer, and of single ones."""

import itertools
import math
from collections.abc import Callable

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import search
from search import designer, maximize, warp
from search import space as spaces
from search.bayes import CONSTRAINED, FIRST, bayes
from search.designer import Designer, State, Values
from search.space import Space

KEY = jax.random.key(0)


def made() -> Space:
  """Return a small mixed and conditional space."""
  config = ConfigDict({'epochs': 1})
  config.kind = search.choice('a', 'b')
  config.rate = search.log(1e-4, 1.0)
  config.shift = search.float(-1.0, 1.0, when={'kind': 'b'})
  config.depth = search.integer(1, 5)
  return spaces.of(config)


SPACE = made()
DESIGNERS: dict[str, Callable[[designer.Allowed], Designer]] = {
  'random': lambda allowed: designer.random(SPACE, allowed),
  'sobol': lambda allowed: designer.sobol(SPACE, allowed),
  'grid': lambda allowed: designer.grid(SPACE, 3, allowed),
  'bayes': lambda allowed: bayes(SPACE, allowed, first=4),
}
each = pytest.mark.parametrize('name', DESIGNERS)


def loss(config: ConfigDict) -> Values:
  """Return 0 at kind b, rate 0.01, shift 0.3, depth 2; at times nothing."""
  if config.depth == 5:
    return Values((math.nan,))
  apart = abs(np.log10(config.rate) + 2) + abs(config.depth - 2)
  other = abs(config.shift - 0.3) if config.kind == 'b' else 1.0
  return Values((float(apart + other),))


def run(
  used: Designer,
  count: int,
  found: Callable[[ConfigDict], Values] = loss,
  key: jax.Array = KEY,
) -> tuple[list[ConfigDict], State]:
  """Return the configs of a search, and what is known after it."""
  state, configs = used.init(key), []
  for i in range(count):
    config, state = used.ask(state, jax.random.fold_in(key, i))
    state = used.tell(state, config, found(config))
    configs.append(config)
  return configs, state


@pytest.mark.slow
@each
def test_what_is_forbidden_is_never_suggested(name: str) -> None:
  used = DESIGNERS[name](lambda c: c.depth * c.rate < 0.05)
  configs, _ = run(used, 8)
  assert all(c.depth * c.rate < 0.05 for c in configs)


@each
def test_a_suggestion_is_a_function_of_the_set_of_observations(
  name: str,
) -> None:
  used = DESIGNERS[name](None)
  _, state = run(used, 6)
  again = state._replace(observations=state.observations[::-1])
  key = jax.random.key(5)
  one, after = used.ask(state, key)
  other, _ = used.ask(again, key)
  assert one.to_dict() == other.to_dict()
  assert len(after.pending) == 1 and state.pending == ()


@each
def test_suggestions_differ_from_pending_ones(name: str) -> None:
  used = DESIGNERS[name](None)
  _, state = run(used, 5)
  requested = []
  for i in range(3):
    config, state = used.ask(state, jax.random.key(i))
    requested.append(str(config.to_dict()))
  assert len(set(requested)) == 3
  assert len(state.pending) == 3


def test_grid_is_the_product_without_what_is_not_active() -> None:
  used = designer.grid(SPACE, 2)
  state, configs = used.init(KEY), []
  with pytest.raises(StopIteration):
    while True:
      config, state = used.ask(state, KEY)
      configs.append((config.kind, config.rate, config.shift, config.depth))
  levels = ([1e-4, 1.0], [2, 4])
  want = [('a', r, None, d) for r, d in itertools.product(*levels)]
  rest = itertools.product('b', levels[0], [-1.0, 1.0], levels[1])
  found = sorted(map(str, configs))
  assert len(set(found)) == len(configs) == 12
  rounded = {(k, round(r, 9), s, d) for k, r, s, d in configs}
  assert {c[0] for c in rounded} == {'a', 'b'}
  assert len([c for c in rounded if c[0] == 'a']) == len(want)
  assert len([c for c in rounded if c[0] == 'b']) == len(list(rest))


def test_sobol_fills_evenly() -> None:
  config = ConfigDict({n: search.float(0.0, 1.0) for n in ('x', 'y')})
  configs, _ = run(
    designer.sobol(spaces.of(config)), 16, lambda _: Values((0.0,))
  )
  cells = {(int(c.x * 4), int(c.y * 4)) for c in configs}
  assert len(cells) == 16


@pytest.mark.slow
def test_the_process_finds_what_chance_does_not() -> None:
  least = {}
  for name in ('random', 'bayes'):
    best = []
    for seed in range(3):
      configs, _ = run(DESIGNERS[name](None), 22, key=jax.random.key(seed))
      best.append(np.nanmin([loss(c).objectives[0] for c in configs]))
    least[name] = np.median(best)
  assert least['bayes'] < 0.1 < least['random']


@pytest.mark.slow
def test_of_equals_the_one_that_takes_less_time_is_tried() -> None:
  config = ConfigDict()
  config.x, config.y = search.float(0.0, 1.0), search.float(0.0, 1.0)
  space, found = spaces.of(config), {}
  for per_second in (False, True):
    used = bayes(space, per_second=per_second)
    state, cheap = used.init(KEY), 0
    for i in range(20):
      tried, state = used.ask(state, jax.random.fold_in(KEY, i))
      # Two wells, of which that on the right takes a hundred times as long.
      value = min(abs(tried.x - 0.2), abs(tried.x - 0.8)) + 0.1 * tried.y
      seconds = 1.0 if tried.x < 0.5 else 100.0
      state = used.tell(state, tried, Values((value,), seconds=seconds))
      cheap += i >= 8 and tried.x < 0.5
    found[per_second] = cheap
  assert found[True] > 9 and found[True] > found[False]


@pytest.mark.slow
def test_two_objectives_and_a_constraint_are_spread() -> None:
  config = ConfigDict({n: search.float(0.0, 1.0) for n in ('x', 'y')})

  def found(c: ConfigDict) -> Values:
    return Values((c.x, (1 - c.x) ** 2 + c.y), (0.3 - c.x,))

  configs, _ = run(bayes(spaces.of(config), first=4), 14, found)
  good = [c.x for c in configs if c.x >= 0.3 and c.y < 0.05]
  assert len(good) > 4 and max(good) - min(good) > 0.4


@pytest.mark.slow
def test_no_feasible_trial_leads_to_feasible_ones() -> None:
  config = ConfigDict({n: search.float(0.0, 1.0) for n in ('x', 'y')})
  configs, _ = run(
    bayes(spaces.of(config), first=4),
    14,
    lambda c: Values((c.y,), (abs(c.x - 0.83) + abs(c.y - 0.1) - 0.05,)),
  )
  last = configs[-1]
  assert abs(last.x - 0.83) + abs(last.y - 0.1) < 0.06


@pytest.mark.slow
@pytest.mark.parametrize('limits', [(), (-1.0,)])
def test_constraints_are_worth_more_first_points(limits) -> None:
  def found(c: ConfigDict) -> Values:
    return Values((c.x,), limits)

  space = spaces.of(ConfigDict({'x': search.float(0.0, 1.0)}))
  ours, _ = run(bayes(space), 12, found)
  plain, _ = run(designer.sobol(space), 12, found)
  alike = [a == b for a, b in zip(ours, plain, strict=True)]
  first = CONSTRAINED if limits else FIRST
  assert alike == [i < first for i in range(12)]


def test_a_retreat_ends_on_the_border() -> None:
  space = spaces.of(ConfigDict({'x': search.float(0.0, 1.0)}))
  end = maximize.retreated(
    space, np.array([0.1]), np.array([0.9]), lambda c: c.x < 0.4
  )
  assert 0.399 < end[0] < 0.4


@pytest.mark.slow
def test_what_cannot_be_is_refused() -> None:
  used = designer.random(SPACE, lambda _: False)
  with pytest.raises(ValueError, match='an allowed config among'):
    used.ask(used.init(KEY), KEY)
  _, state = run(designer.random(SPACE), 2, lambda _: Values((0.0,)))
  used = designer.random(SPACE)
  config, state = used.ask(state, KEY)
  for values in (Values(()), Values((1.0, 2.0)), Values((1.0,), (0.0,))):
    with pytest.raises(ValueError, match='tell: expected'):
      used.tell(state, config, values)
  with pytest.raises(ValueError, match='first >= 2'):
    bayes(SPACE, first=1)
  with pytest.raises(ValueError, match='steps >= 2'):
    designer.grid(SPACE, 1)


@pytest.mark.slow
def test_where_all_is_noise_the_cube_is_filled() -> None:
  config = ConfigDict({f'x{i}': search.float(0.0, 1.0) for i in range(3)})
  space = spaces.of(config)
  rng = np.random.default_rng(0)
  noise = {}  # of each config its own, so that nothing can be learnt

  def found(config: ConfigDict) -> Values:
    key = tuple(config.values())
    return Values((noise.setdefault(key, float(rng.choice([-1.0, 1.0]))),))

  configs, _ = run(bayes(space), 40, found)
  sequence, _ = run(designer.sobol(space), 40, lambda _: Values((0.0,)))
  same = [a == b for a, b in zip(configs, sequence, strict=True)]
  assert sum(same[4:]) > 12


@pytest.mark.parametrize('i', range(4))
def test_slopes_of_warps_are_those_of_differences(i: int) -> None:
  y = np.random.default_rng(0).random(9)
  z, slopes = warp.warped(y)[i]
  assert np.all(np.argsort(z) == np.argsort(y))
  # Between neighbors: a logarithm bends little in so short a way.
  order = np.argsort(y)
  steps = np.log(np.diff(z[order]) / np.diff(y[order]))
  near = (slopes[order][1:] + slopes[order][:-1]) / 2
  # The curve is steepest at the best, where the last logarithm begins.
  np.testing.assert_allclose(steps[1:], near[1:], atol=0.3)
