"""Leaves: ranges and options in place of a value of a config."""

import builtins
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from ml_collections import FieldReference

When: TypeAlias = Mapping[str, Any]  # path -> the value, or a tuple of values


@dataclasses.dataclass(frozen=True)
class Leaf:
  """A parameter of a search.

  Attributes:
    low: Least value; of a choice 0.
    high: Largest value; of a choice the number of options - 1.
    log: Whether the logarithm is uniform.
    whole: Whether values are integers.
    options: Options of a choice; else empty.
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
      f'integer: expected integer ends, got {(low, high)!r}. Use float.'
    )
  if log and low < 1:
    raise ValueError(
      f'integer: expected low > 0, got {low!r}. 0 has no logarithm.'
    )
  return _leaf(int(low), int(high), when, log=log, whole=True)


def choice(*options: Any, when: When | None = None) -> FieldReference:
  """Return a categorical choice.

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


def unit_of(leaf: Leaf, got: Any) -> builtins.float:
  """Return the point in [0, 1] of a value of a leaf.

  >>> unit_of(choice('a', 'b').get(), 'b')
  0.75
  """
  level = leaf.options.index(got) if leaf.options else got
  return builtins.float(units_of(leaf, np.array([level], np.float64))[0])


def value(leaf: Leaf, unit: builtins.float) -> Any:
  """Return the value of a leaf at a point in [0, 1].

  >>> value(integer(1, 4).get(), 0.9)
  4
  """
  level = levels_at(leaf, np.array([unit]))[0]
  if leaf.options:
    return leaf.options[int(level)]
  return int(level) if leaf.whole else builtins.float(level)


def levels(leaf: Leaf) -> int:
  """Return the number of values of a leaf; 0 if it is continuous."""
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


def _edges(leaf: Leaf) -> tuple[builtins.float, builtins.float]:
  """Return the ends of the scale that the unit interval maps to."""
  half = 0.5 if leaf.whole else 0.0
  low, high = leaf.low - half, leaf.high + half
  return (math.log(low), math.log(high)) if leaf.log else (low, high)


def levels_at(leaf: Leaf, unit: np.ndarray) -> np.ndarray:
  """Return the levels at points in [0, 1]: values, or indices of options."""
  low, high = _edges(leaf)
  scaled = low + np.clip(unit, 0.0, 1.0) * (high - low)
  level = np.exp(scaled) if leaf.log else scaled
  level = np.floor(level + 0.5) if leaf.whole else level
  return np.clip(level, leaf.low, leaf.high)


def units_of(leaf: Leaf, level: np.ndarray) -> np.ndarray:
  """Return the points of levels, those of integers in the middle of cells."""
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


def expect_inside(where: str, leaf: Leaf, got: Any) -> None:
  """Raise a ValueError unless a leaf has a value."""
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
