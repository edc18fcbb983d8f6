"""Spaces: what they refuse, and that points and configs are one another."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict, config_flags

import search
from search import space as spaces
from search.features import categories, features


def config() -> ConfigDict:
  """Return a config with every kind of leaf, nested and conditional."""
  made = ConfigDict({'epochs': 5, 'train': {'seed': 0}})
  made.train.lr = search.log(1e-4, 1e-1)
  made.train.momentum = search.float(0.0, 0.9, when={'kind': 'sgd'})
  made.train.nesterov = search.choice(
    True, False, when={'kind': 'sgd', 'train.momentum': (0.0, 0.9)}
  )
  made.kind = search.choice('sgd', 'adam', (1, 2))
  made.width = search.integer(8, 512, log=True)
  made.depth = search.integer(1, 4)
  return made


@given(units=st.lists(st.floats(0, 1), min_size=6, max_size=6))
@settings(max_examples=60, deadline=None)
def test_points_survive_being_configs(units: list[float]) -> None:
  space = spaces.of(config())
  point = spaces.snap(space, np.array([units]))[0]
  made = spaces.to_config(space, point)
  np.testing.assert_allclose(spaces.to_unit(space, made), point, atol=1e-9)
  assert made.kind in ('sgd', 'adam', (1, 2))
  assert made.depth in range(1, 5) and 8 <= made.width <= 512
  assert 1e-4 <= made.train.lr <= 1e-1 and made.epochs == 5
  assert (made.train.momentum is None) == (made.kind != 'sgd')


def test_levels_are_equally_likely() -> None:
  leaf = search.integer(1, 4).get()
  found = [spaces.value(leaf, u) for u in (np.arange(400) + 0.5) / 400]
  assert [found.count(v) for v in range(1, 5)] == [100] * 4


def test_configs_do_not_share_what_is_in_them() -> None:
  space = spaces.of(config())
  one, other = (spaces.to_config(space, np.full(6, 0.2)) for _ in range(2))
  one.train.lr = 7.0
  assert other.train.lr != 7.0


def test_a_flag_pins_a_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
  line = ['test', '--config.train.lr=0.01', '--config.kind="sgd"']
  monkeypatch.setattr(sys, 'argv', line)
  values = flags.FlagValues()
  holder = config_flags.DEFINE_config_dict(
    'config', config(), flag_values=values
  )
  values(line)
  space = spaces.of(holder.value)
  assert set(space.names) == {
    *('train.momentum', 'train.nesterov', 'width', 'depth')
  }
  assert spaces.to_config(space, np.full(4, 0.5)).train.lr == 0.01
  assert spaces.active(space, np.full((1, 4), 0.5))[0, 0]


def test_features_encode_each_condition_once() -> None:
  made = ConfigDict({'kind': search.choice('a', 'b')})
  made.one = search.float(0.0, 1.0, when={'kind': 'a'})
  made.two = search.float(0.0, 1.0, when={'kind': 'a'})
  space = spaces.of(made)
  points = np.array([[0.25, 0.1, 0.2], [0.75, 0.1, 0.2]])
  found = features(space, spaces.snap(space, points))
  assert found.tolist() == [[0.25, 0.1, 0.2, 1.0], [0.75, 0.5, 0.5, 0.0]]
  assert categories(space).tolist() == [True, False, False, False]


def circle() -> spaces.Space:
  """Return nothing: two parameters wait for each other."""
  made = ConfigDict()
  made.a = search.integer(0, 1, when={'b': 1})
  made.b = search.integer(0, 1, when={'a': 1})
  return spaces.of(made)


def orphan(when: dict[str, Any]) -> Callable[[], spaces.Space]:
  """Return the space of a parameter with a wrong condition."""
  made = ConfigDict({'kind': search.choice('a', 'b')})
  made.x = search.float(0.0, 1.0, when=when)
  return lambda: spaces.of(made)


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: spaces.of(ConfigDict({'a': 1})), 'at least one parameter'),
    (lambda: search.float(1.0, 0.0), r'float: .* low < high, got \(1.0, 0.0\)'),
    (lambda: search.float(1.0, float('nan')), 'finite'),
    (lambda: search.log(0.0, 1.0), 'log: expected low > 0, got 0.0'),
    (lambda: search.integer(0, 8, log=True), 'integer: expected low > 0'),
    (lambda: search.integer(0, 1.5), 'integer ends'),  # type: ignore[arg-type]
    (lambda: search.choice('a'), 'two options or more'),
    (lambda: search.choice('a', 'a'), 'different options'),
    (orphan({'none': 1}), "x: expected a condition on a field .* 'none'"),
    (orphan({'kind': 'c'}), "x: when kind: expected one of .* got 'c'"),
    (circle, 'a circle of a, b'),
  ],
)
def test_what_makes_no_sense_is_refused(
  make: Callable[[], Any], message: str
) -> None:
  with pytest.raises(ValueError, match=message):
    make()


def test_values_outside_are_refused() -> None:
  space = spaces.of(ConfigDict({'n': search.integer(1, 4)}))
  with pytest.raises(ValueError, match=r'n: expected an integer in \[1, 4\]'):
    spaces.to_unit(space, ConfigDict({'n': 2.5}))


def test_values_are_placed_and_the_rest_is_in_the_middle() -> None:
  space = spaces.of(config())
  made = spaces.placed(
    space, {'kind': 'adam', 'depth': 4, 'train.momentum': 0.3, 'other': 1}
  )
  assert (made.kind, made.depth, made.epochs) == ('adam', 4, 5)
  assert made.train.momentum is None and made.train.nesterov is None
  assert made.train.lr == pytest.approx(10**-2.5)
  with pytest.raises(ValueError, match=r'depth: expected an integer in \[1, 4'):
    spaces.placed(space, {'depth': 5})
