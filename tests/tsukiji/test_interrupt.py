"""Signals stop a run, where it is or at the next safe place."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tsukiji import interrupt


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
  """Reset the stop requests and handlers of a test."""
  monkeypatch.setattr(interrupt, '_sources', [])
  before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
  yield
  for signum, handler in before.items():
    signal.signal(signum, handler)


@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_recorded_and_a_second_one_acts(
  signum: signal.Signals,
) -> None:
  interrupt.listen()
  assert interrupt.requested() is None
  os.kill(os.getpid(), signum)
  assert interrupt.requested() == signum
  assert signal.getsignal(signum) == signal.SIG_DFL
  (other,) = {signal.SIGINT, signal.SIGTERM} - {signum}
  assert signal.getsignal(other) != signal.SIG_DFL


def test_sources_are_polled_until_one_requests_to_stop() -> None:
  answers: list[int | None] = [None]
  interrupt.watch(lambda: None)
  interrupt.watch(lambda: answers[0])
  interrupt.watch(lambda: 9 if answers[0] else None)
  assert interrupt.requested() is None
  answers[0] = 15
  assert interrupt.requested() == 15


def test_stopped_crosses_processes() -> None:
  stopped = pickle.loads(pickle.dumps(interrupt.Stopped(signal.SIGTERM)))
  assert isinstance(stopped, interrupt.Stopped)
  assert stopped.signum == signal.SIGTERM


def test_a_signal_raises_at_once_but_where_it_is_deferred() -> None:
  interrupt.raise_at_once()
  with pytest.raises(interrupt.Stopped):
    os.kill(os.getpid(), signal.SIGTERM)
  looked = []
  with pytest.raises(interrupt.Stopped) as raised, interrupt.deferred():
    os.kill(os.getpid(), signal.SIGINT)
    looked.append(interrupt.requested())
  assert looked == [signal.SIGINT] and raised.value.signum == signal.SIGINT
  with pytest.raises(interrupt.Stopped):
    os.kill(os.getpid(), signal.SIGTERM)


# What is computed in C lets Python run no handler for minutes.
DEAF = (
  'import hashlib, sys\n'
  'from tsukiji import interrupt\n'
  'interrupt.{how}()\n'
  'interrupt.enforce()\n'
  'try:\n'
  '  print("begun", flush=True)\n'
  '  hashlib.pbkdf2_hmac("sha256", b"x", b"y", 10**9)\n'
  'except interrupt.Stopped as e:\n'  # where it came before the long call
  '  sys.exit(128 + e.signum)\n'
)
# An import that takes its time.
SLOW = (
  'import sys, time\n'
  'class Finder:\n'
  '  def find_spec(self, name, path=None, target=None):\n'
  '    if name == "tsukiji.cli":\n'
  '      print("begun", flush=True)\n'
  '      time.sleep(600)\n'
  'sys.meta_path.insert(0, Finder())\n'
  'from tsukiji.__main__ import main\n'
  'main()\n'
)


@pytest.mark.parametrize(
  'code', [DEAF.format(how=x) for x in ('listen', 'raise_at_once')] + [SLOW]
)
@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_does_not_react_is_ended(
  code: str, signum: signal.Signals
) -> None:
  process = subprocess.Popen(
    [sys.executable, '-c', code],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout is not None
  assert process.stdout.readline() == 'begun\n'
  process.send_signal(signum)
  _, said = process.communicate(timeout=60)
  assert (process.returncode, said) == (128 + signum, '')
