"""Limitations: what is asked, and answers against differences by hand."""

import pytest

from tsukiji.report.across import limitations
from tsukiji.report.across.limitations import Comparison, Results
from tsukiji.report.columns import Row

TEXT = """
[[limitation]]
says = 'a is worse'

[[limitation.rows]]
about = 'a against b'
source = 'one'
row = 'n/a'
other = 'n/b'

[[limitation.rows]]
about = 'a takes longer'
source = 'one'
row = 'n/a'
other = 'n/b'
measure = 'train_seconds'
claim = 'more'

[[limitation]]
says = 'nobody knows'
rows = []

[[limitation]]
says = 'not run yet'

[[limitation.rows]]
about = 'c'
source = 'two'
row = 'n/c'
other = 'n/d'
claim = 'any'
"""
MADE = {
  'a': {0: (0.90, 30.0), 1: (0.91, 32.0), 2: (0.92, 31.0), 7: (0.1, 1.0)},
  'b': {0: (0.93, 30.0), 1: (0.94, 30.0), 2: (0.96, 33.0)},
}
ROWS: list[Row] = [
  {
    'network': 'n',
    'recipe': recipe,
    'seed': seed,
    'accuracy': accuracy,
    'train_seconds': seconds,
    'bytes': 2000,
  }
  for recipe, seeds in MADE.items()
  for seed, (accuracy, seconds) in seeds.items()
]
SUMMARY: Row = {'network': 'n', 'recipe': 'a', 'role': 'summary'}


def lines() -> list[list[str]]:
  """Return the cells of the table about the rows, without its heads."""
  results = {'one': Results('run it', [*ROWS, SUMMARY])}
  text = limitations.markdown(limitations.parse(TEXT), results)
  found = [line[2:-2].split(' | ') for line in text.splitlines()]
  assert text.splitlines()[1].count('---:') == 4
  return found[2:]


def test_answers_are_differences_by_seed() -> None:
  first, second, *_ = lines()
  # −3, −3 and −4 points: seed 7 has no other.
  assert first == [
    *('a is worse', 'a against b'),
    'n/a: 70.75 ± 40.51 % in 2.00 kB',
    'n/b: 94.33 ± 1.53 % in 2.00 kB',
    *('−3.33 ± 0.58 points', '3', 'yes', 'run it'),
  ]
  # 0, 2 and −2 seconds; what stands above is not repeated.
  assert second[:2] == ['', 'a takes longer']
  assert second[4:7] == ['+0 ± 2 s', '3', 'within noise']


def test_no_row_is_no_answer() -> None:
  *_, unknown, missing = lines()
  assert unknown[0] == 'nobody knows' and 'no row yet' in unknown
  assert missing[:4] == ['not run yet', 'c', 'n/c', 'n/d']
  assert 'no row yet' in missing and missing[-1] == 'configs/two.py'


def test_the_sign_that_is_claimed_decides() -> None:
  apart = [0.01, 0.012, 0.011]
  words = [limitations.verdict(apart, claim) for claim in limitations.CLAIMS]
  assert words == ['no', 'yes', '']


def test_a_difference_is_clear_beyond_two_standard_errors() -> None:
  # Mean 1 and deviation d of three have an error of d / sqrt(3).
  for step, word in ((0.8, 'yes'), (0.9, 'within noise')):
    apart = [1.0 - step, 1.0, 1.0 + step]
    assert limitations.verdict(apart, 'more') == word


def test_rows_without_the_measure_have_no_answer() -> None:
  one = Comparison('x', 'y', 'one', 'n/a', 'n/b', 'less', 'r2')
  assert limitations.answer(one, Results('', ROWS))[4] == 'no row yet'


@pytest.mark.parametrize(
  ('old', 'new', 'match'),
  [
    ("claim = 'any'", "claim = 'fewer'", "one of any, less, more, got 'fewer'"),
    ("claim = 'any'", "measure = 'acuracy'", "Nearest: 'accuracy'"),
    ("claim = 'any'", "clam = 'any'", 'about, source, row, other'),
    ("about = 'c'\n", '', "limitation 'not run yet': expected about"),
  ],
)
def test_mistakes_are_named(old: str, new: str, match: str) -> None:
  with pytest.raises(ValueError, match=match):
    limitations.parse(TEXT.replace(old, new))
