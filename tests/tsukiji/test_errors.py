"""Messages: one line, short, the nearest name in sight."""

import warnings

import hypothesis.strategies as st
import pytest
from hypothesis import given

from compress.unchanged import warn_unchanged
from tsukiji.errors import (
  LIMIT,
  expect,
  expect_name,
  line,
  warnings_on_one_line,
)

TEXT = st.text(max_size=500)


@given(TEXT, TEXT, TEXT | st.lists(st.integers()), st.text(max_size=80))
def test_a_message_is_one_short_line(
  where: str, what: str, got: object, fix: str
) -> None:
  with pytest.raises(ValueError) as raised:
    expect(where, False, what, got, fix)
  said = str(raised.value)
  assert len(said) <= LIMIT and len(said.splitlines()) <= 1
  assert ': expected ' in said and ', got ' in said


def test_what_was_given_is_shortened_and_the_fix_stays() -> None:
  with pytest.raises(ValueError, match=r'\.\.\. .*\. Mend it.$'):
    expect('here', False, 'a word', 'x' * 60_000, 'Mend it.')


def test_the_nearest_of_many_names_is_in_sight() -> None:
  names = [f'method_{i:04}' for i in range(1000)]
  with pytest.raises(ValueError, match="Nearest: 'method_0777'.$") as raised:
    expect_name('recipe', 'methd_0777', names)
  said = str(raised.value)
  assert len(said) <= LIMIT
  assert 'expected one of method_0777, ' in said


def test_a_line_has_no_control_characters() -> None:
  assert line('a\x1b[2Jb\n  c') == 'a[2Jb c'


def test_warnings_are_one_line_on_stderr(
  capsys: pytest.CaptureFixture[str],
) -> None:
  names = [f'layer{i}/kernel' for i in range(100)]
  with warnings.catch_warnings():
    warnings.simplefilter('default')
    with warnings_on_one_line():
      warn_unchanged('lowrank.svd', names[:1], 'their full rank is below 64')
      warn_unchanged('lowrank.svd', names, 'their full rank is below 64')
      warn_unchanged('lowrank.svd', [], 'nothing to say')
  one, other = capsys.readouterr().err.splitlines()
  assert one == (
    'Warning: lowrank.svd: left layer0/kernel unchanged: their full rank is '
    'below 64.'
  )
  assert len(other) <= len('Warning: ') + LIMIT
