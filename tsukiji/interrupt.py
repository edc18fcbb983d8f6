"""Clean interruption: signals, and the points at which a run may stop.

A signal raises `Stopped` at once, or, while networks are trained, is noted
and looked at before every step, so that a checkpoint is written first.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 1.5  # seconds after which a process that does not react is ended

# Handlers reach only globals.
_sources: list[Callable[[], int | None]] = []
_reacted = threading.Event()
_unsaved = threading.Lock()


class Stopped(BaseException):
  """A signal stopped a run, which has written its checkpoint.

  It is a KeyboardInterrupt so that handlers of `Exception` do not catch it.

  Attributes:
    signum: The signal.
  """

  def __init__(self, signum: int):
    super().__init__(signum)
    self.signum = signum


def raise_at_once() -> None:
  """Let SIGINT and SIGTERM raise `Stopped` wherever the main thread is."""
  for signum in SIGNALS:
    signal.signal(signum, _raise)


def _raise(signum: int, frame: FrameType | None) -> None:
  del frame
  _reacted.set()
  raise Stopped(signum)


def listen() -> None:
  """Record SIGINT and SIGTERM for `requested`; a second one acts at once."""
  for signum in SIGNALS:
    signal.signal(signum, _note)


def _note(signum: int, frame: FrameType | None) -> None:
  del frame
  watch(lambda: signum)
  signal.signal(signum, signal.SIG_DFL)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
  """Record signals in this context, instead of the handlers outside.

  Raises:
    Stopped: At the end, if a signal was recorded and not raised yet.
  """
  if threading.current_thread() is not threading.main_thread():
    yield  # where no handler can be set
    return
  before = {signum: signal.getsignal(signum) for signum in SIGNALS}
  listen()
  try:
    yield
  finally:
    for signum, handler in before.items():
      signal.signal(signum, handler)
  stop_if_requested()


def watch(source: Callable[[], int | None]) -> None:
  """Add a source of stop requests, called before every step.

  Args:
    source: Returns the signal to stop with, or None to go on.
  """
  _sources.append(source)


@contextlib.contextmanager
def watched(source: Callable[[], int | None]) -> Iterator[None]:
  """Watch a source of stop requests in this context; see `watch`."""
  watch(source)
  try:
    yield
  finally:
    _sources.remove(source)


def requested() -> int | None:
  """Return the signal that requests to stop, if any."""
  found = next((s for s in (ask() for ask in _sources) if s is not None), None)
  if found is not None:
    _reacted.set()
  return found


def stop_if_requested() -> None:
  """Raise `Stopped` if a signal requests to stop."""
  signum = requested()
  if signum is not None:
    raise Stopped(signum)


@contextlib.contextmanager
def saving() -> Iterator[None]:
  """Keep a process that does not react to a signal alive while it is saving."""
  with _unsaved:
    yield


def enforce() -> None:
  """Exit this process `GRACE` seconds after a signal without a reaction.

  Python runs handlers only between instructions: compiling a program may take
  long. A thread learns of the signal from the system.
  """
  reading, writing = os.pipe()
  os.set_blocking(writing, False)
  signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

  def follow() -> None:
    while signum := os.read(reading, 1):
      if signum[0] in SIGNALS:
        end_unless_reacted(signum[0])

  threading.Thread(target=follow, daemon=True).start()


def end_unless_reacted(signum: int) -> None:
  """Wait for a reaction to a signal; exit this process if there is none."""
  if not _reacted.wait(GRACE):
    with _unsaved:
      if not _reacted.is_set():
        os._exit(128 + signum)
