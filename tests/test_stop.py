"""Signals become wishes."""

import os
import pickle
import signal
from collections.abc import Iterator

import pytest

from tsukiji import stop


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
  """Forget the wishes of a test, and its handlers."""
  monkeypatch.setattr(stop, '_sources', [])
  before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
  yield
  for signum, handler in before.items():
    signal.signal(signum, handler)


@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_wish_and_a_second_one_acts(
  signum: signal.Signals,
) -> None:
  stop.listen()
  assert stop.wished() is None
  os.kill(os.getpid(), signum)
  assert stop.wished() == signum
  assert signal.getsignal(signum) == signal.SIG_DFL
  (other,) = {signal.SIGINT, signal.SIGTERM} - {signum}
  assert signal.getsignal(other) != signal.SIG_DFL


def test_sources_are_asked_until_one_wishes() -> None:
  answers: list[int | None] = [None]
  stop.watch(lambda: None)
  stop.watch(lambda: answers[0])
  stop.watch(lambda: 9 if answers[0] else None)
  assert stop.wished() is None
  answers[0] = 15
  assert stop.wished() == 15


def test_stopped_crosses_processes() -> None:
  stopped = pickle.loads(pickle.dumps(stop.Stopped(signal.SIGTERM)))
  assert isinstance(stopped, stop.Stopped)
  assert stopped.signum == signal.SIGTERM
