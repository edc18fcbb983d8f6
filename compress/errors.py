"""Checks of arguments and their error messages."""

import difflib
import re
from collections.abc import Iterable


def shorten(text: object, width: int) -> str:
  """Return a text on one line, with its middle left out if it is too long.

  >>> shorten('prune.weights(0.9)', 13)
  'prun ... 0.9)'
  """
  line = ' '.join(f'{text}'.split())
  if len(line) <= width:
    return line
  start = (width - 4) // 2
  return f'{line[:start]} ... {line[start + 5 - width :]}'


def nearest(name: str, names: Iterable[str], count: int = 1) -> list[str]:
  """Return the valid names that are most similar to a name.

  >>> nearest('globl', ['layer', 'global'])
  ['global']
  """
  short = shorten(str(name), 60)
  return difflib.get_close_matches(short, [*names], n=count, cutoff=0.0)


def meant(got: object, names: Iterable[str]) -> str:
  """Return what a name that is not known may stand for, as a sentence.

  >>> meant('globl', ['layer', 'global']), meant('mine:late', ['global'])
  ("Nearest: 'global'.", 'Write mine:late without quotes.')
  """
  if isinstance(got, str) and re.fullmatch(r'[\w.]+:\w+', got):
    return f'Write {shorten(got, 60)} without quotes.'
  return f'Nearest: {nearest(str(got), names)[0]!r}.'


def expect_name(
  where: str, what: str, got: object, names: Iterable[str]
) -> None:
  """Check a name.

  Raises:
    ValueError: If it is not one of the names.
  """
  known = [*names]
  if got not in known:
    raise ValueError(
      f'{where}: expected a {what} of {shorten(", ".join(known), 120)}, got '
      f'{shorten(repr(got), 60)}. {meant(got, known)}'
    )


def expect_sparsity(where: str, sparsity: float) -> None:
  """Check a fraction of weights.

  Raises:
    ValueError: If it is outside [0, 1).
  """
  if not 0 <= sparsity < 1:
    raise ValueError(
      f'{where}: expected a sparsity in [0, 1), got {sparsity!r}. It is the '
      'fraction of weights that become 0.'
    )


def expect_schedule(where: str, schedule: object) -> None:
  """Check a schedule.

  Raises:
    ValueError: If it is not callable.
  """
  if not callable(schedule):
    raise ValueError(
      f'{where}: expected a schedule, got {schedule!r}. Call one of '
      'compress.schedule, as cubic(0.0, 0.5).'
    )
