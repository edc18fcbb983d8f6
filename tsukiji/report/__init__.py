"""The report of a study: a terminal table, report.md, report.html, figures.

rows, one per seed -> summary.lines, one per recipe -> words, tables, figures
"""

import pathlib
from collections.abc import Iterable, Sequence

from rich.table import Table

from tsukiji import atomic
from tsukiji.report import device, search_data, tables
from tsukiji.report import html as report_html
from tsukiji.report.columns import Row, digits, meanings, number, points
from tsukiji.report.contents import VERDICT, Contents, Extras
from tsukiji.report.figures import draw
from tsukiji.report.removed_layers import removed
from tsukiji.report.scatter import pareto
from tsukiji.report.summary import lines, summarize

__all__ = [
  'Extras',
  'markdown',
  'pareto',
  'removed',
  'sentences',
  'summarize',
  'table',
  'write',
]


def table(rows: Sequence[Row]) -> Table:
  """Return rows, summarized by recipe, as a table for 100 columns."""
  return tables.terminal([row for row, _ in lines(rows)])


def markdown(
  rows: Sequence[Row], named: str = '', heads: Sequence[str] = ()
) -> str:
  """Return rows, summarized by recipe, as a Markdown table.

  Args:
    rows: Rows of results.json.
    named: Regular expression for the names of those to show; '' for all.
    heads: Beginnings of the headings of the columns to show; () for all.

  Returns:
    The table.
  """
  means = [row for row, _ in lines(rows)]
  return tables.markdown(means, named, heads)


def sentences(rows: Sequence[Row]) -> list[str]:
  """Describe each recipe relative to its reference.

  Args:
    rows: Rows of results.json.

  Returns:
    A line for each compressed row of which something was measured.

  >>> dense = {'recipe': 'dense', 'role': 'reference', 'accuracy': 0.92}
  >>> int8 = {'recipe': 'int8', 'accuracy': 0.919, 'compression_rate': 3.9}
  >>> sentences([dense, int8 | {'speedup_rate': 0.5}])
  ['int8: 3.90x smaller, -0.10 points, 2.00x slower']
  """
  means = [row for row, _ in lines(rows)]
  named = zip(tables.names(means), means, strict=True)
  made = ('compressed', 'searched')
  found = ((n, _words(r)) for n, r in named if tables.role(r) in made)
  return [f'{name}: {", ".join(words)}' for name, words in found if words]


def write(
  workdir: pathlib.Path, rows: Sequence[Row], extras: Extras
) -> pathlib.Path:
  """Write report.md, report.html and figures/*.png, each atomically.

  Args:
    workdir: Where to write; created if it does not exist.
    rows: Rows of results.json.
    extras: Title, curves, notes, figures and searches.

  Returns:
    The path of report.html, which is self-contained.
  """
  found = lines(rows)
  means = [row for row, _ in found]
  contents = Contents(
    extras.title,
    found,
    sentences(rows),
    removed(rows),
    draw(means, extras.curves, extras.figures, extras.searched),
    extras.notes,
    extras.searched,
    extras.verdict,
    device.table(found),
  )
  for picture in contents.pictures:
    _replace(workdir / picture.path, picture.light)
  _replace(workdir / 'report.md', _markdown(contents).encode())
  page = report_html.page(contents)
  return _replace(workdir / 'report.html', page.encode())


def _words(row: Row) -> list[str]:
  difference = number(row, 'difference')
  accuracy = '' if difference is None else f'{points(difference)} points'
  words = (
    _times(number(row, 'compression_rate'), 'smaller', 'larger'),
    accuracy.replace('−', '-'),
    _times(number(row, 'speedup_rate'), 'faster', 'slower'),
  )
  return [word for word in words if word]


def _times(rate: float | None, more: str, less: str) -> str:
  """Return a rate in words, of at least 1: 0.5 is '2.00x slower'."""
  if rate is None or rate <= 0:
    return ''
  return (
    f'{digits(rate)}x {more}' if rate >= 1 else f'{digits(1 / rate)}x {less}'
  )


def _markdown(contents: Contents) -> str:
  means = contents.means
  words = [f'**{term}**: {text}' for term, text in meanings(means)]
  parts = [f'# {tables.escape(contents.title)}']
  parts += [_bullets(VERDICT, map(tables.escape, contents.verdict))]
  parts += ['## Results']
  parts += [tables.markdown(means)]
  parts += [_bullets('In words', map(tables.escape, contents.sentences))]
  parts += [_bullets('What was removed', map(tables.escape, contents.removed))]
  if contents.device:
    parts += [f'## {device.HEAD}\n\n{tables.plain(contents.device)}']
  parts += [_bullets('How to read', words)]
  for one in contents.searched:
    found = map(tables.escape, search_data.sentences(one))
    parts += [_bullets(one.title, found)]
    best = search_data.table(one)
    parts += [f'### Best trials\n\n{tables.plain(best)}'] if best else []
  parts += [
    f'## {p.title}\n\n![{tables.escape(p.alt)}]({p.path})'
    for p in contents.pictures
  ]
  parts += [_bullets('Notes', map(tables.escape, contents.notes))]
  return '\n\n'.join(part.strip() for part in parts if part) + '\n'


def _bullets(head: str, items: Iterable[str]) -> str:
  text = '\n'.join(f'- {item}' for item in items)
  return f'## {head}\n\n{text}' if text else ''


def _replace(path: pathlib.Path, content: bytes) -> pathlib.Path:
  """Write a file atomically."""
  with atomic.replacing(path) as file:
    file.write(content)
  return path
