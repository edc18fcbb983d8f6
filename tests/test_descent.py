"""Descent: down the slopes, by what is known alone."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import search
from search import descent, designer
from search import space as spaces
from search.designer import Point, Values

KEY = jax.random.key(0)
BOTTOM = np.array([0.71, 0.18])


def area() -> spaces.Space:
  config = ConfigDict()
  config.x = search.float(-1.0, 3.0)
  config.y = search.log(1e-4, 1.0)
  return spaces.of(config)


def bowl(unit: Point) -> Values:
  gap = np.array(unit) - BOTTOM
  weight = np.array([4.0, 1.0])
  return Values((float(weight @ gap**2),), (), tuple(2 * weight * gap))


def run(count: int, slopes: bool = True) -> list[float]:
  space = area()
  used = descent.descent(space)
  state, found = used.init(KEY), []
  for i in range(count):
    config, state = used.ask(state, jax.random.fold_in(KEY, i))
    values = bowl(designer.point_of(space, config))
    values = values if slopes else values._replace(slopes=())
    state = used.tell(state, config, values)
    found.append(values.objectives[0])
  return found


def test_it_comes_to_the_bottom_of_a_bowl() -> None:
  assert min(run(30)) < 1e-3
  assert min(run(30)) < min(run(30, slopes=False))


def test_what_was_told_counts_as_a_set() -> None:
  space = area()
  used = descent.descent(space)
  points = [(0.2, 0.3), (0.6, 0.6), (0.9, 0.1)]
  found = []
  for order in (points, points[::-1]):
    state = designer.State(KEY, tuple((p, bowl(p)) for p in order))
    found.append(used.ask(state, KEY)[0])
  assert found[0].x == found[1].x and found[0].y == found[1].y


def test_steps_halve_where_they_were_in_vain_and_stay_inside() -> None:
  space = area()
  end = descent.stepped(space, (0.5, 0.0), (2.0, 4.0), 0.25)
  assert end == (0.25, 0.0)  # what leads outside does not count
  end = descent.stepped(space, (0.1, 0.5), (2.0, 1.0), 0.25)
  assert end == (0.0, 0.375)
  state = designer.State(KEY)
  here = (0.5, 0.5)
  for p, value in ((here, 1.0), ((0.25, 0.5), 2.0), ((0.9, 0.9), 3.0)):
    state = designer.told(state, p, Values((value,), (), (1.0, 0.0)))
  config, _ = descent.descent(space).ask(state, KEY)
  assert designer.point_of(space, config)[0] == pytest.approx(0.375)


def test_failures_and_forbidden_places_are_no_start() -> None:
  space = area()
  state = designer.State(KEY)
  for p, values in (
    ((0.5, 0.5), Values((float('nan'),), (), (1.0, 1.0))),
    ((0.4, 0.4), Values((0.1,), (1.0,), (1.0, 1.0))),
    ((0.8, 0.8), Values((9.0,), (-1.0,), (0.0, 1.0))),
  ):
    state = state._replace(told=(*state.told, (p, values)))
  config, _ = descent.descent(space).ask(state, KEY)
  assert designer.point_of(space, config) == pytest.approx((0.8, 0.55))
