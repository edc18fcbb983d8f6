"""Rows of several results files in one table, by family of methods.

Surveys judge a method by accuracy, parameters, bytes, latency and energy at
once. Such a table puts all of them beside each other for every family; a row
that no results file has is named, not left out.
"""

import tomllib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tsukiji.errors import expect
from tsukiji.report import summary, tables
from tsukiji.report.columns import Row, engine

MISSING = 'no row yet'
COLUMNS = (
  *('accuracy', 'difference', 'parameters', 'size', 'compression', 'MACs'),
  *('latency', 'speed-up', 'energy'),
)
MADE = ('engine', 'seeds', 'study')
WANTED = {'method', 'source', 'row'}


class Entry(NamedTuple):
  """A row of the table.

  Attributes:
    family: As surveys name it.
    method: What was done, in words.
    source: The results file, without its folder and ending.
    row: `network/recipe` in it.
  """

  family: str
  method: str
  source: str
  row: str


def parse(text: str) -> list[Entry]:
  """Read entries from TOML.

  Args:
    text: Tables `[[family]]` with `says` and `rows`: tables of `method`,
      `source` and `row`.

  Returns:
    The entries, in the order of the file.

  Raises:
    ValueError: A row has other fields.

  >>> parse('[[family]]\\nsays = "a"\\nrows = [{source="b", row="c/d"}]')
  Traceback (most recent call last):
  ValueError: family 'a': expected method, row, source, got 'source, row'.
  """
  found = []
  for item in tomllib.loads(text)['family']:
    for fields in item['rows']:
      where, known = f'family {item["says"]!r}', ', '.join(sorted(WANTED))
      expect(where, fields.keys() == WANTED, known, ', '.join(fields))
      found.append(Entry(item['says'], **fields))
  return found


def markdown(
  entries: Sequence[Entry], results: Mapping[str, Sequence[Row]]
) -> str:
  """Return the entries as a Markdown table.

  Args:
    entries: The rows that are asked for, in the order of the table.
    results: The rows of results files, by source.

  Returns:
    The table, means over seeds. Numbers that a row lacks are dashes.
  """
  rows = [_found(entry, results.get(entry.source, ())) for entry in entries]
  heads, *numbers = tables.texts(rows, COLUMNS)
  lines, before = [], ''
  for entry, row, cells in zip(entries, rows, numbers, strict=True):
    family = '' if entry.family == before else entry.family
    method = entry.method if row else f'{entry.method}: {MISSING}'
    made = [
      engine(row).partition(',')[0],
      str(row.get('n_seeds', '')),
      entry.source,
    ]
    lines.append([family, method, *cells, *made])
    before = entry.family
  return tables.plain([['family', 'method', *heads, *MADE], *lines], words=2)


def _found(entry: Entry, rows: Sequence[Row]) -> Row:
  """Return the summary of a row with its difference; {} if it is not there."""
  for row, _ in summary.lines(rows):
    if f'{row.get("network")}/{row.get("recipe")}' == entry.row:
      return row
  return {}
