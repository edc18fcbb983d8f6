"""Print text of unknown origin without markup or control characters; bars."""

import unicodedata

import rich
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  ProgressColumn,
  TextColumn,
  TimeElapsedColumn,
  TimeRemainingColumn,
)
from rich.text import Text

# Control characters, format characters such as a change of the direction of
# writing, and surrogates, which UTF-8 cannot encode.
HIDDEN = ('Cc', 'Cf', 'Cs')


def printable(text: object) -> str:
  """Return text on one line, without control characters.

  Args:
    text: A name, a message or metadata; it may come from a file.

  Returns:
    The text, with a space for each tab and line break.

  >>> printable('a' + chr(27) + '[2J' + chr(10) + 'b')
  'a[2J b'
  """
  kept = (c for c in str(text) if c in '\t\n\r' or not _is_hidden(c))
  return ''.join(' ' if c.isspace() else c for c in kept)


def plain(text: object, style: str = '') -> Text:
  """Return `printable(text)` for Rich, which does not parse it as markup.

  >>> plain('[red]').plain
  '[red]'
  """
  return Text(printable(text), style)


def _is_hidden(c: str) -> bool:
  return unicodedata.category(c) in HIDDEN


def progress_bars() -> Progress:
  """Return what shows bars: a name, how much is done, how long it takes."""
  return Progress(*_columns())


def passing_bars(hidden: bool = False) -> Progress:
  """Return what shows bars that leave nothing behind, and none in a file.

  Args:
    hidden: Whether to show nothing at all.
  """
  seen = not hidden and rich.get_console().is_interactive
  return Progress(*_columns(), transient=True, disable=not seen)


def _columns() -> list[ProgressColumn]:
  return [
    TextColumn('{task.description:<40}', markup=False),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
  ]
