"""Text is printed as it is, but for control characters."""

import io

import hypothesis.strategies as st
import pytest
from hypothesis import given
from rich.console import Console

from tsukiji.console import passing_bars, plain, printable


@given(st.text())
def test_no_control_characters_are_left(text: str) -> None:
  out = printable(text)
  assert not {c for c in out if ord(c) < 32 or 127 <= ord(c) < 160}
  out.encode()


def test_words_stay() -> None:
  text = 'Tsukiji 築地 é [/x] :smile: a\tb\nc'
  assert printable(text) == 'Tsukiji 築地 é [/x] :smile: a b c'
  assert printable('\x1b[31mred\u202e\ud800') == '[31mred'


def test_rich_prints_the_text() -> None:
  file = io.StringIO()
  console = Console(file=file, force_terminal=True, width=80)
  console.print(plain('[/x] [red]:smile:[/] \x1b]0;'))
  assert file.getvalue() == '[/x] [red]:smile:[/] ]0;\n'


def test_passing_bars_leave_nothing(capsys: pytest.CaptureFixture[str]) -> None:
  for hidden in (False, True):
    with passing_bars(hidden) as shown:
      shown.advance(shown.add_task('checking', total=2))
  assert not capsys.readouterr().out
