"""Signals become wishes."""

import os
import pickle
import signal
from collections.abc import Iterator

import pytest

from tsukiji import interrupt


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
  """Forget the wishes of a test, and its handlers."""
  monkeypatch.setattr(interrupt, '_sources', [])
  before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
  yield
  for signum, handler in before.items():
    signal.signal(signum, handler)


@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_wish_and_a_second_one_acts(
  signum: signal.Signals,
) -> None:
  interrupt.listen()
  assert interrupt.requested() is None
  os.kill(os.getpid(), signum)
  assert interrupt.requested() == signum
  assert signal.getsignal(signum) == signal.SIG_DFL
  (other,) = {signal.SIGINT, signal.SIGTERM} - {signum}
  assert signal.getsignal(other) != signal.SIG_DFL


def test_sources_are_asked_until_one_wishes() -> None:
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
