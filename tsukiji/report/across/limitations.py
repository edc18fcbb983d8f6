"""What surveys call limitations of compression, and what measured rows say.

A comparison names two rows of one results file, and which of the two the survey
would expect to be ahead. The answer is computed: the mean difference over the
seeds that both have, its deviation, and whether it is clear.
"""

import math
import statistics
import tomllib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tsukiji.errors import expect, expect_name
from tsukiji.report import tables
from tsukiji.report.columns import Row, digits, number

MISSING = 'no row yet'
CLEAR = 2.0  # standard errors from which a difference is one
HEADS = (
  *('limitation', 'comparison', 'measured', 'compared with', 'difference'),
  *('seeds', 'holds here?', 'command'),
)
WANTED = ('about', 'source', 'row', 'other')
CLAIMS = {'less': -1, 'more': 1, 'any': 0}


class Measure(NamedTuple):
  """What is compared: its unit, that of differences, scale and places."""

  unit: str
  apart: str
  scale: float
  places: int


MEASURES = {
  'accuracy': Measure('%', 'points', 100, 2),
  'r2': Measure('R²', 'R²', 1, 4),
  'recall_at_1': Measure('% recall', 'points', 100, 1),
  'train_seconds': Measure('s', 's', 1, 0),
}


class Comparison(NamedTuple):
  """A limitation as a comparison of two rows.

  Attributes:
    limitation: The sentence of the survey.
    about: What is compared with what, in words.
    source: The results file, without its folder and ending.
    row: `network/recipe` that is said to be limited.
    other: `network/recipe` that it is compared with.
    claim: What the survey would expect of the first: 'less', 'more', or 'any'
      where the difference itself is the answer.
    measure: One of `MEASURES`.
  """

  limitation: str
  about: str
  source: str
  row: str
  other: str
  claim: str = 'less'
  measure: str = 'accuracy'


class Results(NamedTuple):
  """A results file: the command that repeats it, and its rows."""

  command: str
  rows: Sequence[Row]


def parse(text: str) -> list[Comparison]:
  """Read comparisons from TOML.

  Args:
    text: Tables `[[limitation]]` with `says`, and `rows`: tables of `about`,
      `source`, `row`, `other`, and where they differ from 'less' and 'accuracy'
      `claim` and `measure`. No rows are a limitation without a comparison.

  Returns:
    The comparisons, in the order of the file.

  Raises:
    ValueError: A claim or a measure is not known, or a field is.

  >>> text = '[[limitation]]\\nsays = "a"\\nrows = [{source="b", row="c/d"}]'
  >>> parse(text)[0].row
  Traceback (most recent call last):
  ValueError: limitation 'a': expected about, source, row, other, got ...
  """
  found = []
  for item in tomllib.loads(text)['limitation']:
    where = f'limitation {item["says"]!r}'
    for fields in item['rows']:
      ok = {*WANTED} <= fields.keys() <= {*WANTED, 'claim', 'measure'}
      fix = 'Besides these there are `claim` and `measure`.'
      expect(where, ok, ', '.join(WANTED), fields, fix)
      one = Comparison(item['says'], **fields)
      expect_name(where, one.claim, CLAIMS)
      expect_name(where, one.measure, MEASURES)
      found.append(one)
    if not item['rows']:
      found.append(Comparison(item['says'], *[''] * len(WANTED)))
  return found


def markdown(
  comparisons: Sequence[Comparison], results: Mapping[str, Results]
) -> str:
  """Return the answers as a Markdown table.

  Args:
    comparisons: What is asked, in the order of the table.
    results: By source; what is not there has no row yet.

  Returns:
    The table: both rows with deviation and size, the mean difference over the
    seeds that both have and its deviation, whether it is as the survey says,
    and the command that repeats the rows.
  """
  nothing = Results('', ())
  lines = [answer(one, results.get(one.source, nothing)) for one in comparisons]
  pairs = zip([[''] * len(HEADS), *lines], lines, strict=False)
  return tables.plain([HEADS, *(_shortened(*pair) for pair in pairs)], words=4)


def _shortened(above: Sequence[str], line: Sequence[str]) -> list[str]:
  """Leave out a limitation and a command that stand in the line above."""
  if above[0] != line[0]:
    return [*line]
  return ['', *line[1:-1], '' if above[-1] == line[-1] else line[-1]]


def answer(one: Comparison, results: Results) -> list[str]:
  """Return a line of the table, as texts.

  >>> rows = [
  ...   {'network': 'n', 'recipe': r, 'seed': s, 'accuracy': a + s / 100}
  ...   for r, a in (('b', 0.5), ('c', 0.75))
  ...   for s in (0, 1)
  ... ]
  >>> one = Comparison('why', 'b for c', 'a', 'n/b', 'n/c')
  >>> answer(one, Results('run', rows))[4:]
  ['−25.00 ± 0.00 points', '2', 'yes', 'run']
  """
  rows, others = (_by_seed(results.rows, x) for x in (one.row, one.other))
  named = [
    f'{name}: {_described(found, one.measure)}' if found else name
    for name, found in ((one.row, rows), (one.other, others))
  ]
  apart = differences(rows, others, one.measure)
  said = [MISSING, '', '']
  if apart:
    count = f'{len(apart)}'
    said = [_difference(apart, one.measure), count, verdict(apart, one.claim)]
  command = results.command or (one.source and f'configs/{one.source}.py')
  return [one.limitation, one.about, *named, *said, command]


def differences(
  rows: Mapping[int, Row], others: Mapping[int, Row], measure: str
) -> list[float]:
  """Return the differences of two rows, seed by seed, as fractions."""
  found = []
  for seed in sorted(rows.keys() & others.keys()):
    a, b = number(rows[seed], measure), number(others[seed], measure)
    if a is not None and b is not None:
      found.append(a - b)
  return found


def verdict(apart: Sequence[float], claim: str) -> str:
  """Say whether differences are as a survey says.

  Clear is a mean beyond `CLEAR` of its standard errors; one seed has none.

  >>> verdict([-0.02, -0.03], 'less'), verdict([0.02, 0.03], 'less')
  ('yes', 'no')
  >>> verdict([-0.02, 0.03], 'less'), verdict([0.02], 'less')
  ('within noise', 'no, one seed')
  """
  if not CLAIMS[claim]:
    return ''
  mean = statistics.fmean(apart)
  word = 'yes' if mean * CLAIMS[claim] > 0 else 'no'
  if len(apart) < 2:
    return f'{word}, one seed'
  error = statistics.stdev(apart) / math.sqrt(len(apart))
  return word if abs(mean) > CLEAR * error else 'within noise'


def _by_seed(rows: Sequence[Row], name: str) -> dict[int, Row]:
  """Return the rows of a `network/recipe`, by seed."""
  return {
    row.get('seed', 0): row
    for row in rows
    if row.get('role') != 'summary'
    and f'{row.get("network")}/{row.get("recipe")}' == name
  }


def _described(rows: Mapping[int, Row], measure: str) -> str:
  """Return a row in words: its mean, its deviation and its size."""
  unit, _, scale, places = MEASURES[measure]
  values = [number(row, measure) for row in rows.values()]
  found = [scale * value for value in values if value is not None]
  if not found:
    return MISSING
  size = statistics.fmean(number(row, 'bytes') or 0 for row in rows.values())
  kilobytes = f' in {digits(size / 1000)} kB' if size else ''
  return f'{_spread(found, places)} {unit}{kilobytes}'


def _difference(apart: Sequence[float], measure: str) -> str:
  _, unit, scale, places = MEASURES[measure]
  text = _spread([scale * value for value in apart], places, '+')
  return f'{text.replace("-", "−")} {unit}'


def _spread(values: Sequence[float], places: int, sign: str = '') -> str:
  """Return the mean of values, with their deviation if there are several."""
  mean = f'{statistics.fmean(values):{sign}.{places}f}'
  if len(values) < 2:
    return mean
  return f'{mean} ± {statistics.stdev(values):.{places}f}'
