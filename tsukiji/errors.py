"""The one form in which a mistake of the user is told."""

import difflib
from collections.abc import Iterable


def expect(
  where: str, right: object, what: str, got: object, fix: str = ''
) -> None:
  """Raise unless all is well.

  Args:
    where: The argument, file, field or layer at fault.
    right: Whether all is well.
    what: What was expected.
    got: What was given.
    fix: How to mend it, a sentence.

  Raises:
    ValueError: If `right` is false.

  >>> expect('y', False, 'labels >= 0', -1, 'Count classes from 0.')
  Traceback (most recent call last):
  ValueError: y: expected labels >= 0, got -1. Count classes from 0.
  """
  if not right:
    raise ValueError(f'{where}: expected {what}, got {got!r}. {fix}'.rstrip())


def expect_name(
  where: str, name: str, known: Iterable[str], what: str = 'one'
) -> None:
  """Raise unless a name is known; tell the nearest one.

  Args:
    where: As `expect`.
    name: What was given.
    known: All that could be given.
    what: What was expected, before the names.

  Raises:
    ValueError: If the name is none of them.

  >>> expect_name('task', 'trian', ('train', 'bench'))
  Traceback (most recent call last):
  ValueError: task: expected one of bench, train, got 'trian'. Nearest: 'train'.
  """
  names = sorted(known)
  near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.0)
  fix = f'Nearest: {near[0]!r}.' if near else ''
  expect(where, name in names, f'{what} of {", ".join(names)}', name, fix)
