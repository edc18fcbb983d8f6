"""Error messages of one form: `where: expected X, got Y. Fix.`"""

import contextlib
import difflib
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from compress.errors import shorten
from tsukiji.console import printable

LIMIT = 300  # characters of a message


def expect(
  where: str, right: object, what: str, got: object, fix: str = ''
) -> None:
  """Raise a ValueError unless a condition holds.

  Args:
    where: The argument, file, field or layer.
    right: The condition.
    what: What was expected.
    got: What was given.
    fix: How to fix it, a sentence.

  Raises:
    ValueError: If `right` is false; its message has at most `LIMIT` characters.

  >>> expect('y', False, 'labels >= 0', -1, 'Count classes from 0.')
  Traceback (most recent call last):
  ValueError: y: expected labels >= 0, got -1. Count classes from 0.
  """
  if not right:
    head = f'{shorten(where, 90)}: expected {shorten(what, 130)}, got '
    tail = f'. {fix}'.rstrip()
    room = max(20, LIMIT - len(head) - len(tail))
    raise ValueError(line(f'{head}{shorten(repr(got), room)}{tail}'))


def expect_name(
  where: str, name: str, known: Iterable[str], what: str = 'one'
) -> None:
  """Raise a ValueError with the nearest name unless a name is known.

  Args:
    where: See `expect`.
    name: What was given.
    known: The valid names; if there are many, the nearest are listed.
    what: What was expected, before the names.

  Raises:
    ValueError: If the name is not one of them.

  >>> expect_name('task', 'trian', ('train', 'bench'))
  Traceback (most recent call last):
  ValueError: task: expected one of bench, train, got 'trian'. Nearest: 'train'.
  """
  names = sorted(known)
  if name in names:
    return
  near = difflib.get_close_matches(str(name), names, n=4, cutoff=0.0)
  listed = ', '.join(names)
  if len(listed) > 100:
    listed = ', '.join((*near, '...'))
  fix = f'Nearest: {near[0]!r}.' if near else ''
  expect(where, False, f'{what} of {listed}', name, fix)


def line(error: object) -> str:
  """Return a message on one line of at most `LIMIT` printable characters.

  >>> len(line(ValueError('x ' * 1000)))
  300
  """
  return shorten(printable(error), LIMIT)


@contextlib.contextmanager
def warnings_on_one_line() -> Iterator[None]:
  """Print warnings like errors: on one line, without a source location."""

  def show(message: Warning | str, *_: Any, **__: Any) -> None:
    print('Warning:', line(message), file=sys.stderr)

  with warnings.catch_warnings():
    warnings.showwarning = show
    yield
