"""Spaces: configs with leaves in place of the values that a search varies.

  config.lr = search.log(1e-4, 1e-1)
  config.optimizer = search.choice('sgd', 'adam')
  config.momentum = search.float(0.0, 0.99, when={'optimizer': 'sgd'})

Everything else is constant. A parameter whose condition does not hold is None.
`--config.lr=0.01` on the command line pins one: what is no leaf is constant.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from search.parameter import (
  Leaf,
  expect_inside,
  levels_at,
  unit_of,
  units_of,
  value,
)

MIDDLE = 0.5  # where what does not matter is put


class Space(NamedTuple):
  """The varying and the constant fields of a config.

  Attributes:
    names: Dotted paths, parents before the parameters that depend on them.
    leaves: One for each path.
    base: The config, with its leaves.
  """

  names: tuple[str, ...]
  leaves: tuple[Leaf, ...]
  base: FrozenConfigDict


def of(config: ConfigDict | FrozenConfigDict) -> Space:
  """Return the space that a config describes.

  Args:
    config: Values, with leaves for those that vary.

  Returns:
    The space.

  Raises:
    ValueError: If nothing varies, a condition names no parameter or a value
      that it never has, or conditions are circular.

  >>> from search.parameter import log
  >>> config = ConfigDict({'epochs': 5})
  >>> config.lr = log(1e-4, 1e-1)
  >>> of(config).names
  ('lr',)
  """
  plain = ConfigDict(config).copy_and_resolve_references()
  found = dict(varying(plain))
  if not found:
    raise ValueError(
      'space: expected at least one parameter that varies, got none. Put a '
      'leaf in the config, as config.lr = search.log(1e-4, 1e-1).'
    )
  for name, leaf in found.items():
    for parent, values in leaf.when:
      _expect_parent(name, parent, values, plain, found)
  names = _sorted(found)
  leaves = tuple(found[name] for name in names)
  return Space(names, leaves, FrozenConfigDict(plain))


def snap(space: Space, units: np.ndarray) -> np.ndarray:
  """Move points to the middle of the cells of integers and choices.

  Args:
    space: The space of d parameters.
    units: Points of the unit cube, `[n, d]`.

  Returns:
    `[n, d]`, with equal rows for equal values of all parameters; 0.5 for
    inactive parameters.
  """
  found = np.array(units, np.float64)
  for i, leaf in enumerate(space.leaves):
    if leaf.whole:
      found[:, i] = units_of(leaf, levels_at(leaf, found[:, i]))
  return np.where(active(space, found), found, MIDDLE)


def active(space: Space, units: np.ndarray) -> np.ndarray:
  """Return which parameters are active at some points.

  Args:
    space: The space of d parameters.
    units: Points of the unit cube, `[n, d]`.

  Returns:
    `[n, d]`, bool.
  """
  found = np.ones(units.shape, bool)
  place = {name: i for i, name in enumerate(space.names)}
  for i, leaf in enumerate(space.leaves):
    for parent, values in leaf.when:
      if parent not in place:
        found[:, i] &= at(space.base, parent) in values
        continue
      p = place[parent]
      above = space.leaves[p]
      level = levels_at(above, units[:, p])
      right = [above.options.index(v) if above.options else v for v in values]
      found[:, i] &= found[:, p] & np.isin(level, right)
  return found


def to_config(space: Space, unit: np.ndarray) -> ConfigDict:
  """Return the config at a point.

  Args:
    space: The space of d parameters.
    unit: A point of the unit cube, `[d]`.

  Returns:
    A config without leaves; None for inactive parameters.

  >>> from search.parameter import log
  >>> config = ConfigDict({'lr': log(1e-4, 1e-1), 'epochs': 5})
  >>> config = to_config(of(config), np.array([1.0]))
  >>> round(config.lr, 9), config.epochs
  (0.1, 5)
  """
  config = space.base.as_configdict().copy_and_resolve_references()
  live = active(space, unit[None])[0]
  with config.unlocked(), config.ignore_type():
    for name, leaf, u, on in zip(
      space.names, space.leaves, unit, live, strict=True
    ):
      *folders, last = name.split('.')
      owner = config
      for folder in folders:
        owner = owner[folder]
      owner[last] = value(leaf, float(u)) if on else None
  return config


def to_unit(space: Space, config: ConfigDict | FrozenConfigDict) -> np.ndarray:
  """Return the point of a config, 0.5 for inactive parameters.

  Args:
    space: The space of d parameters.
    config: A config of the same fields, without leaves.

  Returns:
    `[d]`.

  Raises:
    ValueError: If a value is outside the space.
  """
  unit = np.full(len(space.names), MIDDLE)
  for i, (name, leaf) in enumerate(zip(space.names, space.leaves, strict=True)):
    if active(space, unit[None])[0, i]:
      got = at(config, name)
      expect_inside(name, leaf, got)
      unit[i] = unit_of(leaf, got)
  return unit


def placed(space: Space, values: Mapping[str, Any]) -> ConfigDict:
  """Return the config of some values, the rest in the middle of its ranges.

  Args:
    space: The space.
    values: By dotted path; those of parameters that are not active are ignored.

  Raises:
    ValueError: If a value is outside the space.

  >>> from search.parameter import choice, integer
  >>> config = ConfigDict({'bits': integer(2, 8), 'kind': choice('a', 'b')})
  >>> placed(of(config), {'kind': 'b'})
  bits: 5
  kind: b
  <BLANKLINE>
  """
  unit = np.full(len(space.names), MIDDLE)
  for i, (name, leaf) in enumerate(zip(space.names, space.leaves, strict=True)):
    if name in values:
      expect_inside(name, leaf, values[name])
      unit[i] = unit_of(leaf, values[name])
  return to_config(space, snap(space, unit[None])[0])


def varying(config: ConfigDict, above: str = '') -> list[tuple[str, Leaf]]:
  """Return the leaves of a config with their dotted paths.

  >>> varying(ConfigDict({'a': {'epochs': 5}}))
  []
  """
  found = []
  for name in config:
    if isinstance(config[name], ConfigDict):
      found += varying(config[name], f'{above}{name}.')
    elif isinstance(config[name], Leaf):
      found.append((above + name, config[name]))
  return found


def _sorted(found: dict[str, Leaf]) -> tuple[str, ...]:
  names: list[str] = []
  while len(names) < len(found):
    ready = [
      name
      for name, leaf in found.items()
      if name not in names
      and all(p in names or p not in found for p, _ in leaf.when)
    ]
    if not ready:
      left = ', '.join(sorted(set(found) - set(names)))
      raise ValueError(
        f'space: expected conditions that end, got a circle of {left}. Let one '
        'of them be unconditional.'
      )
    names += ready
  return tuple(names)


def at(config: Any, path: str) -> Any:
  """Return the value at a dotted path of a config."""
  for part in path.split('.'):
    config = config[part]
  return config


def _expect_parent(
  name: str,
  parent: str,
  values: tuple[Any, ...],
  plain: ConfigDict,
  found: dict[str, Leaf],
) -> None:
  try:
    above = at(plain, parent)
  except (KeyError, AttributeError, TypeError):
    raise ValueError(
      f'{name}: expected a condition on a field of the config, got {parent!r}. '
      f'Parameters are {", ".join(found)}.'
    ) from None
  if isinstance(above, Leaf):
    for v in values:
      expect_inside(f'{name}: when {parent}', above, v)
