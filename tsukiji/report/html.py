"""report.html: one page that needs no network, no other file, no script.

The script only sorts; without it the page reads the same.
"""

import base64
from collections.abc import Sequence
from html import escape

from tsukiji.report import search_data
from tsukiji.report.columns import (
  WARNING,
  Cell,
  Column,
  Row,
  columns,
  distinct,
  fill,
  meanings,
  number,
)
from tsukiji.report.contents import Contents
from tsukiji.report.figures import Picture
from tsukiji.report.search_data import Searched
from tsukiji.report.style import SCRIPT, STYLE
from tsukiji.report.summary import Line
from tsukiji.report.tables import CONTROLS, distinguishing_keys, recipe, role

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p class="facts">{facts}</p>
</header>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


def page(contents: Contents) -> str:
  """Return the report as one HTML page, its figures embedded.

  Args:
    contents: The report. All of its text is escaped.

  Returns:
    The page.
  """
  means = contents.means
  body = [_definitions(means), _table(contents.lines)]
  body += [_list('In words', contents.sentences, 'short')]
  body += [_list('What was removed', contents.removed)]
  body += map(_search, contents.searched)
  body += [_figures(contents.pictures), _list('Notes', contents.notes)]
  return PAGE.format(
    title=escape(contents.title),
    style=STYLE,
    facts=escape(_facts(means)),
    body='\n'.join(filter(None, body)),
    script=SCRIPT,
  )


def _facts(means: Sequence[Row]) -> str:
  """Return datasets, networks, and the number of recipes and seeds."""
  own = [row for row in means if role(row) not in CONTROLS]
  keys = ('dataset', 'network')
  found = [distinct(str(row.get(key, '')) for row in own) for key in keys]
  seeds = {int(number(row, 'n_seeds') or 1) for row in means} or {0}
  count = ' to '.join(f'{n}' for n in sorted({min(seeds), max(seeds)}))
  facts = [', '.join(names) for names in found]
  facts += [_count(f'{len(means)}', 'recipe'), _count(count, 'seed') + ' each']
  return ' · '.join(filter(None, facts))


def _count(many: str, thing: str) -> str:
  return f'{many} {thing}' if many == '1' else f'{many} {thing}s'


def _definitions(means: Sequence[Row]) -> str:
  items = ''.join(
    f'<div><dt>{escape(term)}</dt> <dd>{escape(text)}</dd></div>'
    for term, text in meanings(means)
  )
  return (
    f'<section class="card read"><h2>How to read</h2><dl>{items}</dl></section>'
  )


def _table(lines: Sequence[Line]) -> str:
  if not lines:
    return '<h2>Results</h2><p>There are no rows yet.</p>'
  means = [row for row, _ in lines]
  shown, keys = columns(means), distinguishing_keys(means)
  filled = [fill(column, means) for column in shown]
  heads = ''.join(map(_head, shown))
  bodies = '\n'.join(
    _body(row, seeds, shown, [cells[i] for cells in filled], keys)
    for i, (row, seeds) in enumerate(lines)
  )
  return (
    '<h2>Results</h2>\n<div class="card scroll"><table>\n'
    '<thead><tr><th scope="col" aria-sort="none" data-kind="text"'
    ' data-first="ascending"><button type="button"><b>recipe</b></button></th>'
    f'{heads}</tr></thead>\n{bodies}\n</table></div>'
  )


def _head(column: Column) -> str:
  unit = f'<small>{escape(column.unit)}</small>' if column.unit else ''
  return (
    f'<th scope="col" aria-sort="none" data-first="{column.first}"'
    f' title="{escape(column.about)}">'
    f'<button type="button"><b>{escape(column.head)}</b>{unit}</button></th>'
  )


def _body(
  row: Row,
  seeds: Sequence[Row],
  shown: Sequence[Column],
  cells: Sequence[Cell],
  keys: Sequence[str],
) -> str:
  """Write a recipe as a table body: its summary, then its seeds, folded."""
  several = seeds if len(seeds) > 1 else []
  out = [f'<tr>{_name(row, several, keys)}{"".join(map(_cell, cells))}</tr>']
  for seed in several:
    name = escape(f'seed {seed.get("seed", "?")}')
    line = ''.join(
      _cell(column.cell(seed), of.minor)
      for column, of in zip(shown, cells, strict=True)
    )
    out.append(f'<tr class="seed"><th scope="row">{name}</th>{line}</tr>')
  return f'<tbody>{"".join(out)}</tbody>'


def _name(row: Row, seeds: Sequence[Row], keys: Sequence[str]) -> str:
  """Write the name of a row, its badge, what it is, and how many seeds."""
  name = escape(recipe(row))
  words = [str(row.get(key) or '') for key in (*keys, 'family', 'mode')]
  about = escape(' · '.join(filter(None, words)))
  about = f'<small>{about}</small>' if about else ''
  return (
    f'<th scope="row" data-value="{name}"><span class="name">{name}</span>'
    f'{_badge(row)}<div class="about">{about}{_fold(seeds)}'
    '</div></th>'
  )


def _badge(row: Row) -> str:
  kind = role(row)
  word = f'control: {CONTROLS[kind]}' if kind in CONTROLS else kind
  style = kind if kind in ('reference', 'compressed') else 'control'
  return f'<span class="badge {style}">{escape(word)}</span>'


def _fold(seeds: Sequence[Row]) -> str:
  """Write what unfolds the seeds; a style rule shows them when it is open."""
  if not seeds:
    return ''
  return f'<details><summary>{len(seeds)} seeds</summary></details>'


def _cell(cell: Cell, room: str = '') -> str:
  """Write a cell, with room for the deviation that stands above it."""
  if cell.value is None:
    return f'<td class="none" title="not measured">{cell.text}</td>'
  title = f' title="{escape(cell.title)}"' if cell.title else ''
  minor = f' <small>{escape(cell.minor)}</small>' if cell.minor else ''
  space = f' <small class="room" aria-hidden="true">{room}</small>'
  minor = minor or (space if room else '')
  text = _warning(cell.warning) + escape(cell.text) + minor
  return f'<td data-value="{cell.value:.9g}"{title}>{text}</td>'


def _warning(text: str) -> str:
  if not text:
    return ''
  title = escape(text)
  return (
    f'<span class="warn" role="img" aria-label="{title}"'
    f' title="{title}">{WARNING}</span> '
  )


def _list(head: str, items: Sequence[str], style: str = '') -> str:
  text = ''.join(f'<li>{escape(item)}</li>' for item in items)
  return f'<h2>{head}</h2>\n<ul class="{style}">{text}</ul>' if items else ''


def _search(searched: Searched) -> str:
  """Write the results of a search."""
  words = _list(searched.title, search_data.sentences(searched))
  return words + _plain('Best trials', search_data.table(searched))


def _plain(head: str, rows: Sequence[Sequence[str]]) -> str:
  """Write a table of texts."""
  if not rows:
    return ''
  heads, *lines = rows
  top = ''.join(f'<th scope="col">{escape(text)}</th>' for text in heads)
  body = '\n'.join(
    f'<tbody><tr><th scope="row">{escape(name)}</th>'
    f'{"".join(f"<td>{escape(text)}</td>" for text in texts)}</tr></tbody>'
    for name, *texts in lines
  )
  return (
    f'<h2>{escape(head)}</h2>\n<div class="card scroll"><table class="plain">\n'
    f'<thead><tr>{top}</tr></thead>\n{body}\n</table></div>'
  )


def _figures(pictures: Sequence[Picture]) -> str:
  shown = '\n'.join(_figure(picture) for picture in pictures)
  return f'<h2>Figures</h2>\n{shown}' if shown else ''


def _figure(picture: Picture) -> str:
  """Embed a figure; browsers that prefer dark pages take the dark one."""
  light, dark = (
    f'data:image/png;base64,{base64.b64encode(png).decode()}'
    for png in (picture.light, picture.dark)
  )
  return (
    '<figure class="card"><picture>'
    f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
    f'<img src="{light}" width="960" alt="{escape(picture.alt)}">'
    '</picture></figure>'
  )
