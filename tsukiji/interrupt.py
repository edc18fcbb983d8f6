"""Stopping cleanly: a signal is a wish that the training loop looks at."""

import signal
from collections.abc import Callable
from types import FrameType

_sources: list[Callable[[], int | None]] = []  # handlers reach only globals


class Stopped(BaseException):
  """A run was asked to stop and has written its checkpoint.

  As a KeyboardInterrupt it is no error, which somebody might catch as one.

  Attributes:
    signum: The signal that asked.
  """

  def __init__(self, signum: int):
    super().__init__(signum)
    self.signum = signum


def listen() -> None:
  """Turn SIGINT and SIGTERM into wishes; a second one acts at once."""
  for signum in (signal.SIGINT, signal.SIGTERM):
    signal.signal(signum, _note)


def _note(signum: int, frame: FrameType | None) -> None:
  del frame
  watch(lambda: signum)
  signal.signal(signum, signal.SIG_DFL)


def watch(source: Callable[[], int | None]) -> None:
  """Ask this function too, before every step.

  Args:
    source: Returns the signal to stop with, or None to go on.
  """
  _sources.append(source)


def wished() -> int | None:
  """Return the signal that asked to stop, if any."""
  return next((s for s in (ask() for ask in _sources) if s is not None), None)


def obey() -> None:
  """Raise `Stopped` if a signal asked to stop."""
  signum = wished()
  if signum is not None:
    raise Stopped(signum)
