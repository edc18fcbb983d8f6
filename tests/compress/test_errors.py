"""Checks of arguments: what they let through, and messages of one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress import errors


@given(st.text(), st.integers(9, 300))
def test_shortened_texts_are_lines_within_their_width(
  text: str, width: int
) -> None:
  short = errors.shorten(text, width)
  line = ' '.join(text.split())
  assert len(short) <= width
  assert '\n' not in short
  if len(line) <= width:
    assert short == line
  else:
    assert len(short) == width
    start, end = short.split(' ... ', 1)[0], short.rsplit(' ... ', 1)[1]
    assert line.startswith(start)
    assert line.endswith(end)


def test_messages_name_the_nearest_and_stay_short() -> None:
  names = [f'score_{i}' for i in range(500)]
  errors.expect_name('prune.weights', 'score', 'score_7', names)
  with pytest.raises(ValueError, match="Nearest: 'score_499'") as caught:
    errors.expect_name('prune.weights', 'score', 'scor_499', names)
  assert len(str(caught.value)) <= 300
  with pytest.raises(ValueError, match='expected a score of') as caught:
    errors.expect_name('prune.weights', 'score', 'x' * 10_000, names)
  assert len(str(caught.value)) <= 300


@pytest.mark.parametrize('sparsity', [-0.1, 1, 1.5, float('nan')])
def test_sparsities_outside_their_range_are_refused(sparsity: float) -> None:
  errors.expect_sparsity('here', 0)
  with pytest.raises(
    ValueError, match=r'here: expected a sparsity in \[0, 1\)'
  ):
    errors.expect_sparsity('here', sparsity)


def test_what_cannot_be_called_is_no_schedule() -> None:
  errors.expect_schedule('here', abs)
  with pytest.raises(ValueError, match='here: expected a schedule, got 0.5'):
    errors.expect_schedule('here', 0.5)
