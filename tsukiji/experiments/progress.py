"""Bars of progress."""

from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TextColumn,
  TimeElapsedColumn,
  TimeRemainingColumn,
)


def bars() -> Progress:
  """Return what shows bars: a name, how much is done, how long it takes."""
  return Progress(
    TextColumn('{task.description:<40}', markup=False),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
  )
