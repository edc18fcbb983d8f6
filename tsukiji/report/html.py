"""report.html: one page that needs no network and no other file.

The scripts sort and filter; without them the page reads the same. The page
itself is in `templates`, with its style sheet and scripts; what it shows is
computed here.
"""

import base64
from collections.abc import Sequence
from typing import NamedTuple

import jinja2

from tsukiji.report import search_data
from tsukiji.report.columns import (
  Cell,
  Row,
  columns,
  distinct,
  fill,
  meanings,
  number,
)
from tsukiji.report.contents import VERDICT, Contents
from tsukiji.report.device import HEAD
from tsukiji.report.summary import Line
from tsukiji.report.tables import CONTROLS, distinguishing_keys, recipe, role


class Shown(NamedTuple):
  """A recipe in the table of results.

  Attributes:
    name: Of the recipe.
    badge: Its role, in words.
    style: CSS class of the badge.
    about: What else distinguishes it.
    cells: A cell a column.
    seeds: Name and cells of each seed, where there are several.
  """

  name: str
  badge: str
  style: str
  about: str
  cells: Sequence[Cell]
  seeds: Sequence[tuple[str, Sequence[Cell]]]


class Search(NamedTuple):
  """The results of a search in words, and the table of its best trials."""

  title: str
  sentences: Sequence[str]
  best: Sequence[Sequence[str]]


def page(contents: Contents) -> str:
  """Return the report as one HTML page, its figures embedded.

  Args:
    contents: The report. All of its text is escaped.

  Returns:
    The page.
  """
  means = contents.means
  return (
    _pages()
    .get_template('page.html')
    .render(
      title=contents.title,
      facts=_facts(means),
      meanings=meanings(means),
      columns=columns(means),
      lines=_shown(contents.lines),
      budget=VERDICT,
      verdict=contents.verdict,
      sentences=contents.sentences,
      removed=contents.removed,
      on_device=HEAD,
      device=contents.device,
      searches=[
        Search(one.title, search_data.sentences(one), search_data.table(one))
        for one in contents.searched
      ],
      pictures=contents.pictures,
      notes=contents.notes,
    )
  )


def _pages() -> jinja2.Environment:
  """Return the templates; those called *.html escape what they are given."""
  out = jinja2.Environment(
    loader=jinja2.PackageLoader('tsukiji.report'),
    autoescape=jinja2.select_autoescape(['html']),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  out.filters['embedded'] = _embedded
  return out


def _embedded(png: bytes) -> str:
  """Return a PNG file as an address that holds it."""
  return f'data:image/png;base64,{base64.b64encode(png).decode()}'


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


def _shown(lines: Sequence[Line]) -> list[Shown]:
  """Return the table of results, a recipe a line."""
  means = [row for row, _ in lines]
  every, keys = columns(means), distinguishing_keys(means)
  filled = [fill(column, means) for column in every]
  return [
    Shown(
      recipe(row),
      *_badge(row),
      ' · '.join(filter(None, _words(row, keys))),
      [cells[i] for cells in filled],
      [
        (str(seed.get('seed', '?')), [column.cell(seed) for column in every])
        for seed in (seeds if len(seeds) > 1 else ())
      ],
    )
    for i, (row, seeds) in enumerate(lines)
  ]


def _words(row: Row, keys: Sequence[str]) -> list[str]:
  return [str(row.get(key) or '') for key in (*keys, 'family', 'mode')]


def _badge(row: Row) -> tuple[str, str]:
  """Return the role of a row in words, and the style of its badge."""
  kind = role(row)
  word = f'control: {CONTROLS[kind]}' if kind in CONTROLS else kind
  return word, kind if kind in ('reference', 'compressed') else 'control'
