"""Summary rows as a table for a terminal or in Markdown."""

import difflib
import re
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from tsukiji.report.columns import (
  WARNING,
  Cell,
  Column,
  Row,
  columns,
  distinct,
  engine,
  fill,
)

CONTROLS = {
  'control_scratch': 'from scratch',
  'control_random': 'random mask',
}


def role(row: Row) -> str:
  """Return the role of a row, or of the rows that it sums up.

  >>> role({'role': 'summary', 'of': 'reference'})
  'reference'
  """
  kind = str(row.get('of') or row.get('role') or 'compressed')
  return 'compressed' if kind == 'summary' else kind


def recipe(row: Row) -> str:
  """Return the name of a row on one line."""
  return ' '.join(str(row.get('recipe') or row.get('name') or '?').split())


def distinguishing_keys(rows: Sequence[Row]) -> list[str]:
  """Return which of network and dataset are needed to distinguish rows."""
  own = [row for row in rows if role(row) not in CONTROLS]
  keys = ('network', 'dataset')
  return [key for key in keys if len({str(row.get(key)) for row in own}) > 1]


def names(rows: Sequence[Row]) -> list[str]:
  """Return unique names: the recipe, with network, dataset or role if needed.

  >>> names([{'recipe': 'dense', 'role': 'reference'}, {'recipe': 'int8'}])
  ['dense (reference)', 'int8']
  """
  words = {'reference': 'reference', 'searched': 'searched', **CONTROLS}
  keys = distinguishing_keys(rows)

  def name(row: Row) -> str:
    extra = [str(row[key]) for key in keys if key in row]
    extra += [words[role(row)]] if role(row) in words else []
    return recipe(row) + (f' ({", ".join(extra)})' if extra else '')

  found = [name(row) for row in rows]
  # Several networks may be trained as controls.
  return [
    f'{text[:-1]}, {row.get("network")})' if found.count(text) > 1 else text
    for text, row in zip(found, rows, strict=True)
  ]


def terminal(rows: Sequence[Row]) -> Table:
  """Lay out summarized rows for a terminal of 100 columns."""
  shown = [column for column in columns(rows) if column.short]
  out = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
  out.caption = Text('\n'.join(_sources(rows)))
  out.add_column('recipe', overflow='fold')
  for column in shown:
    out.add_column(Text(column.short), justify='right', no_wrap=True)
  cells = [[_text(cell) for cell in fill(c, rows)] for c in shown]
  for name, row, *texts in zip(names(rows), rows, *cells, strict=True):
    out.add_row(Text(name), *texts, style=_style(row))
  return out


def markdown(
  rows: Sequence[Row], named: str = '', heads: Sequence[str] = ()
) -> str:
  """Lay out summarized rows as a table of GitHub Markdown.

  Args:
    rows: The rows.
    named: Regular expression for the names of those to show; '' for all.
    heads: Beginnings of the headings of the columns to show, in order, as
      'latency' or 'latency, ms, batch 64'; () for all columns.

  Returns:
    The table.

  Raises:
    ValueError: If no column has such a heading.
  """
  labels = names(rows)
  at = [i for i, name in enumerate(labels) if re.search(named, name)]
  titles, *lines = texts([rows[i] for i in at], heads)
  named_lines = [[labels[i], *line] for i, line in zip(at, lines, strict=True)]
  return plain([['recipe', *titles], *named_lines])


def texts(rows: Sequence[Row], heads: Sequence[str] = ()) -> list[list[str]]:
  """Return the headings of the columns, then the cells of each row.

  Args:
    rows: Summarized rows; one that is empty has dashes.
    heads: See `markdown`.

  Raises:
    ValueError: If no column has such a heading.
  """
  shown = _chosen(columns(rows), heads)
  cells = [[str(_text(cell)) for cell in fill(c, rows)] for c in shown]
  lines = [[column[i] for column in cells] for i in range(len(rows))]
  return [[heading(column) for column in shown], *lines]


def heading(column: Column) -> str:
  """Return the heading of a column: what it is, and its unit."""
  return ', '.join(filter(None, (column.head, column.unit)))


def _chosen(shown: list[Column], heads: Sequence[str]) -> list[Column]:
  """Return the first column under each heading, or all of them."""
  if not heads:
    return shown
  titles = [heading(column) for column in shown]
  found = []
  for head in heads:
    at = [i for i, title in enumerate(titles) if title.startswith(head)]
    if not at:
      near = difflib.get_close_matches(head, titles, n=1, cutoff=0.0)
      raise ValueError(
        f'table: expected a column of {"; ".join(titles)}, got {head!r}. '
        f'Nearest: {(near or ["none"])[0]!r}.'
      )
    found.append(shown[at[0]])
  return found


def plain(rows: Sequence[Sequence[str]], words: int = 1) -> str:
  """Lay out texts as a table of GitHub Markdown, the first row its heads.

  Args:
    rows: Texts, as many in each row.
    words: Columns at the left that are words; the others are numbers.

  Returns:
    The table.

  >>> print(plain([['a', 'b'], ['x', '1']]), end='')
  | a | b |
  | --- | ---: |
  | x | 1 |
  """
  heads, *lines = [[*map(escape, row)] for row in rows]
  rule = ['---'] * words + ['---:'] * (len(heads) - words)
  return ''.join(f'| {" | ".join(x)} |\n' for x in (heads, rule, *lines))


def escape(text: str) -> str:
  r"""Escape what Markdown, or HTML inside it, would take for its own.

  >>> print(escape('a|b <i> 2*2 low_rank'))
  a\|b &lt;i&gt; 2\*2 low_rank
  """
  text = ' '.join(text.replace('&', '&amp;').split())
  text = text.replace('<', '&lt;').replace('>', '&gt;')
  return re.sub(r'[\\`*\[\]|~]|(?<!\w)_|_(?!\w)', r'\\\g<0>', text)


def _sources(rows: Sequence[Row]) -> list[str]:
  """Return the sources of times and energies."""
  times = '; '.join(distinct(engine(row) for row in rows))
  energies = '; '.join(distinct(str(r.get('energy_source', '')) for r in rows))
  out = [f'time: batch 1, {times}'] if times else []
  return out + ([f'energy: {energies}'] if energies else [])


def _style(row: Row) -> str:
  if role(row) == 'reference':
    return 'bold'
  return 'dim' if role(row) in CONTROLS else ''


def _text(cell: Cell) -> Text:
  mark = f'{WARNING} ' if cell.warning else ''
  text = Text(mark + cell.text, style='yellow' if mark else '')
  return text.append(f' {cell.minor}' if cell.minor else '', style='dim')
