"""Spaces: a config with leaves in place of the values that a search may vary.

  config.lr = search.log(1e-4, 1e-1)
  config.optimiser = search.choice('sgd', 'adam')
  config.momentum = search.float(0.0, 0.99, when={'optimiser': 'sgd'})

All else is constant. Where its condition does not hold a parameter is None.
`--config.lr=0.01` on the command line pins one: what is no leaf is constant.
"""

import builtins
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from ml_collections import ConfigDict, FieldReference, FrozenConfigDict

When: TypeAlias = Mapping[str, Any]  # path -> the value, or a tuple of values

MIDDLE = 0.5  # where what does not matter is put


@dataclasses.dataclass(frozen=True)
class Leaf:
  """A parameter to be varied.

  Attributes:
    low: Least value; of a choice 0.
    high: Largest value; of a choice the number of options - 1.
    log: Whether the logarithm is uniform.
    whole: Whether values are integers.
    options: What a choice is between; else empty.
    when: Pairs of a path and the values it must have one of, or it is None.
  """

  low: builtins.float
  high: builtins.float
  log: bool = False
  whole: bool = False
  options: tuple[Any, ...] = ()
  when: tuple[tuple[str, tuple[Any, ...]], ...] = ()


def log(
  low: builtins.float, high: builtins.float, when: When | None = None
) -> FieldReference:
  """Return a float whose logarithm is uniform.

  Args:
    low: Least value, above 0.
    high: Largest value.
    when: Path -> value or tuple of values; None where it does not hold.

  Returns:
    A leaf, as a reference, which a flag of the command line may overwrite.

  Raises:
    ValueError: If not 0 < low < high.

  >>> log(1e-4, 1e-1).get().high
  0.1
  """
  _expect_rising('log', low, high)
  if low <= 0:
    raise ValueError(
      f'log: expected low > 0, got {low!r}. 0 has no logarithm; use float.'
    )
  return _leaf(low, high, when, log=True)


def float(
  low: builtins.float, high: builtins.float, when: When | None = None
) -> FieldReference:
  """Return a uniform float; see `log` for arguments."""
  _expect_rising('float', low, high)
  return _leaf(low, high, when)


def integer(
  low: int, high: int, log: bool = False, when: When | None = None
) -> FieldReference:
  """Return a uniform integer, both ends included; see `log` for arguments.

  Raises:
    ValueError: If the ends are no integers, do not rise, or are not above 0
      and the logarithm is to be uniform.
  """
  _expect_rising('integer', low, high)
  if int(low) != low or int(high) != high:
    raise ValueError(
      f'integer: expected whole ends, got {(low, high)!r}. Use float.'
    )
  if log and low < 1:
    raise ValueError(
      f'integer: expected low > 0, got {low!r}. 0 has no logarithm.'
    )
  return _leaf(int(low), int(high), when, log=log, whole=True)


def choice(*options: Any, when: When | None = None) -> FieldReference:
  """Return one of some options, none nearer to one than to another.

  Raises:
    ValueError: If there are fewer than two, or two that are equal.

  >>> choice('sgd', 'adam').get().options
  ('sgd', 'adam')
  """
  if len(options) < 2:
    raise ValueError(
      f'choice: expected two options or more, got {options!r}. Write a '
      'constant as the value itself.'
    )
  if any(o in options[:i] for i, o in enumerate(options)):
    raise ValueError(f'choice: expected different options, got {options!r}.')
  return _leaf(0, len(options) - 1, when, whole=True, options=options)


class Space(NamedTuple):
  """What may vary, and all that does not.

  Attributes:
    names: Dotted paths, a parent before what depends on it.
    leaves: One for each path.
    base: The config, with its leaves.
  """

  names: tuple[str, ...]
  leaves: tuple[Leaf, ...]
  base: FrozenConfigDict


def of(config: ConfigDict | FrozenConfigDict) -> Space:
  """Return the space that a config describes.

  Args:
    config: Values, and leaves in place of those that vary.

  Returns:
    The space.

  Raises:
    ValueError: If nothing varies, a condition names no parameter or a value
      that it never has, or conditions go in a circle.

  >>> config = ConfigDict({'epochs': 5})
  >>> config.lr = log(1e-4, 1e-1)
  >>> of(config).names
  ('lr',)
  """
  plain = ConfigDict(config).copy_and_resolve_references()
  found = dict(_leaves(plain))
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
  """Move points to the middle of the cells of their integers and choices.

  Args:
    space: The space of d parameters.
    units: Points of the unit cube, `[n, d]`.

  Returns:
    `[n, d]`, of which equal rows are equal values of all parameters; what is
    not active is at 0.5.
  """
  found = np.array(units, np.float64)
  for i, leaf in enumerate(space.leaves):
    if leaf.whole:
      found[:, i] = _to_unit(leaf, _from_unit(leaf, found[:, i]))
  return np.where(active(space, found), found, MIDDLE)


def active(space: Space, units: np.ndarray) -> np.ndarray:
  """Tell which parameters matter at some points.

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
      level = _from_unit(above, units[:, p])
      right = [above.options.index(v) if above.options else v for v in values]
      found[:, i] &= found[:, p] & np.isin(level, right)
  return found


def to_config(space: Space, unit: np.ndarray) -> ConfigDict:
  """Return the config at a point.

  Args:
    space: The space of d parameters.
    unit: A point of the unit cube, `[d]`.

  Returns:
    A config without leaves; None for what is not active.

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
      owner[last] = value(leaf, builtins.float(u)) if on else None
  return config


def to_unit(space: Space, config: ConfigDict | FrozenConfigDict) -> np.ndarray:
  """Return the point of a config; what is not active is in the middle.

  Args:
    space: The space of d parameters.
    config: A config of the same fields, without leaves.

  Returns:
    `[d]`.

  Raises:
    ValueError: If a value is outside of the space.
  """
  unit = np.full(len(space.names), MIDDLE)
  for i, (name, leaf) in enumerate(zip(space.names, space.leaves, strict=True)):
    if active(space, unit[None])[0, i]:
      got = at(config, name)
      _expect_inside(name, leaf, got)
      unit[i] = unit_of(leaf, got)
  return unit


def unit_of(leaf: Leaf, got: Any) -> builtins.float:
  """Return the point in [0, 1] of a value of a leaf.

  >>> unit_of(choice('a', 'b').get(), 'b')
  0.75
  """
  level = leaf.options.index(got) if leaf.options else got
  return builtins.float(_to_unit(leaf, np.array([level], np.float64))[0])


def value(leaf: Leaf, unit: builtins.float) -> Any:
  """Return the value of a leaf at a point in [0, 1].

  >>> value(integer(1, 4).get(), 0.9)
  4
  """
  level = _from_unit(leaf, np.array([unit]))[0]
  if leaf.options:
    return leaf.options[int(level)]
  return int(level) if leaf.whole else builtins.float(level)


def levels(leaf: Leaf) -> int:
  """Return how many values a leaf has; 0 if they are not countable."""
  return int(leaf.high - leaf.low) + 1 if leaf.whole else 0


def _leaf(
  low: builtins.float,
  high: builtins.float,
  when: When | None,
  **settings: Any,
) -> FieldReference:
  pairs = tuple(
    (path, v if isinstance(v, tuple) else (v,))
    for path, v in sorted((when or {}).items())
  )
  leaf = Leaf(low, high, when=pairs, **settings)
  return FieldReference(leaf, field_type=object)


def _leaves(config: ConfigDict, above: str = '') -> list[tuple[str, Leaf]]:
  found = []
  for name in config:
    if isinstance(config[name], ConfigDict):
      found += _leaves(config[name], f'{above}{name}.')
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
  """Return what is at a dotted path of a config."""
  for part in path.split('.'):
    config = config[part]
  return config


def _edges(leaf: Leaf) -> tuple[builtins.float, builtins.float]:
  """Return the ends of the scale on which the unit interval is laid."""
  half = 0.5 if leaf.whole else 0.0
  low, high = leaf.low - half, leaf.high + half
  return (math.log(low), math.log(high)) if leaf.log else (low, high)


def _from_unit(leaf: Leaf, unit: np.ndarray) -> np.ndarray:
  low, high = _edges(leaf)
  scaled = low + np.clip(unit, 0.0, 1.0) * (high - low)
  level = np.exp(scaled) if leaf.log else scaled
  level = np.floor(level + 0.5) if leaf.whole else level
  return np.clip(level, leaf.low, leaf.high)


def _to_unit(leaf: Leaf, level: np.ndarray) -> np.ndarray:
  low, high = _edges(leaf)
  return ((np.log(level) if leaf.log else level) - low) / (high - low)


def _expect_rising(
  where: str, low: builtins.float, high: builtins.float
) -> None:
  if not (math.isfinite(low) and math.isfinite(high) and low < high):
    raise ValueError(
      f'{where}: expected finite low < high, got {(low, high)!r}. Write a '
      'constant as the value itself.'
    )


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
      _expect_inside(f'{name}: when {parent}', above, v)


def _expect_inside(where: str, leaf: Leaf, got: Any) -> None:
  if leaf.options:
    right, what = got in leaf.options, f'one of {leaf.options}'
  else:
    right = isinstance(got, int | builtins.float) and (
      leaf.low <= got <= leaf.high and (not leaf.whole or got == int(got))
    )
    kind = 'an integer' if leaf.whole else 'a value'
    what = f'{kind} in [{leaf.low}, {leaf.high}]'
  if not right:
    raise ValueError(f'{where}: expected {what}, got {got!r}.')
