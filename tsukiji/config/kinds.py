"""Checks that the values of a config have the types of their defaults."""

import math
from typing import Any

from ml_collections import ConfigDict

from tsukiji.errors import expect, expect_name

# Parts with known fields; other parts may have any names.
PARTS = {
  *('budget', 'cluster', 'dataset', 'export', 'finetune', 'limits'),
  *('measure', 'train'),
  *('recipe_search', 'search'),
}
WHOLE = {'batches', 'seeds'}  # tuples of whole numbers; others are of names
LARGEST = 2**31  # above all seeds


def expect_fields(where: str, config: Any, known: ConfigDict) -> None:
  """Check that a config has the fields of another, with values of their types.

  Args:
    where: Path of the config.
    config: The config.
    known: One with all fields and their defaults.

  Raises:
    ValueError: If a field is unknown, missing, or of another kind.
  """
  fix = 'Build configs from tsukiji.settings.'
  expect(where, isinstance(config, ConfigDict), 'settings', config, fix)
  for name, value in config.items():
    expect_name(where, name, known)
    expect_alike(f'{where}.{name}', value, known[name])
    if name in PARTS and known[name]:
      expect_fields(f'{where}.{name}', value, known[name])
  for name in known:
    expect(where, name in config, f'a field {name!r}', sorted(config), fix)


def expect_alike(where: str, value: Any, known: Any) -> None:
  """Check that a value is of the type of a default.

  >>> expect_alike('lr', 'fast', 0.1)
  Traceback (most recent call last):
  ValueError: lr: expected a value like 0.1, got 'fast'.
  """
  match known:
    case None:  # a number, or none
      number = isinstance(value, float | int) and not isinstance(value, bool)
      right = value is None or (number and math.isfinite(value))
    case bool():
      right = isinstance(value, bool)
    case int():
      right = _is_whole(value)
    case float():
      number = isinstance(value, float | int) and not isinstance(value, bool)
      right = number and math.isfinite(value)
    case tuple():
      right = isinstance(value, tuple) and _are_alike(where, value)
    case ConfigDict():
      right = isinstance(value, ConfigDict)
    case _:
      right = isinstance(value, type(known))
  expect(where, right, _shown(known), value)


def _shown(known: Any) -> str:
  if known is None:
    return 'a number, or None'
  return (
    'settings' if isinstance(known, ConfigDict) else f'a value like {known!r}'
  )


def _are_alike(where: str, values: tuple[Any, ...]) -> bool:
  name = where.rpartition('.')[2]
  if name == 'lines':  # pairs
    return True
  if name in WHOLE:
    return all(map(_is_whole, values))
  return all(isinstance(value, str) for value in values)


def _is_whole(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)


def expect_seeds(where: str, seeds: tuple[int, ...]) -> None:
  """Check that there are seeds without duplicates."""
  right = seeds and all(0 <= seed < LARGEST for seed in seeds)
  expect(where, right, f'whole numbers from 0 below {LARGEST}', seeds)
  expect_once(where, seeds)


def expect_once(where: str, values: tuple[Any, ...]) -> None:
  """Check that no value occurs twice."""
  expect(where, len({*values}) == len(values), 'each once', values)


def expect_least(where: str, value: float, least: int) -> None:
  """Check that a number is not below a minimum."""
  expect(where, value >= least, f'at least {least}', value)
