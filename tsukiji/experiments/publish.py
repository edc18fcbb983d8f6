"""Publishing: the results of a finished experiment, and tables in pages."""

import json
import pathlib
import re
import shutil
import tomllib
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from tsukiji import report
from tsukiji.experiments import store
from tsukiji.experiments.store import Row
from tsukiji.report import search_data
from tsukiji.report.across import families, limitations
from tsukiji.report.search_data import Searched

ROOT = pathlib.Path(__file__).parents[2]
MARKER = re.compile(
  r'(?P<head><!-- table: (?P<source>\S+)(?: columns=(?P<columns>\S+))?'
  r'(?: (?P<named>[^\n]+?))? -->\n)(?P<text>.*?)<!-- end -->',
  re.DOTALL,
)


def publish(
  folder: pathlib.Path,
  rows: list[Row],
  root: pathlib.Path = ROOT,
  searched: Sequence[Searched] = (),
) -> pathlib.Path:
  """Write results/NAME.json and figures, and the tables of all pages.

  Args:
    folder: A finished workdir; NAME is its last part.
    rows: Its rows, one per seed.
    root: The checkout to write to.
    searched: The results of its searches.

  Returns:
    The path of the JSON file.
  """
  name = folder.resolve().name
  path = root / 'results' / f'{name}.json'
  (root / 'results' / 'figures').mkdir(parents=True, exist_ok=True)
  made = store.provenance_of(folder)
  seconds = sum(row.get('train_seconds', 0) for row in rows)
  content: dict[str, Any] = {
    'command': made['command'],
    'machine': made['machine'],
    'commit': made['commit'],
    'minutes': round(seconds / 60, 1),  # of training, one core
    'versions': made['versions'],
    'rows': [*rows, *report.summarize(rows)],
  }
  if searched:
    content['searches'] = [_search(one) for one in searched]
  store.write_json(path, content)
  for picture in (folder / 'figures').glob('*.png'):
    shutil.copy(picture, root / 'results/figures' / f'{name}_{picture.name}')
  for page in pages(root):
    text = quoted(page.read_text(), f'results/{name}.json', rows)
    page.write_text(answered(text, root))
  return path


def _search(searched: Searched) -> dict[str, Any]:
  """Return a search as JSON: its trials, and sentences about them."""
  return {
    'search': searched.name,
    'told': search_data.sentences(searched),
    'tested': {
      name: [one._asdict() for one in seeds]
      for name, seeds in searched.tested.items()
    },
    'importances': dict(searched.importances),
    'trials': [
      {**one._asdict(), 'values': dict(one.values), 'params': dict(one.params)}
      for one in searched.trials
    ],
  }


def pages(root: pathlib.Path) -> list[pathlib.Path]:
  """Return the pages that may quote tables: the README and what is in docs."""
  return [root / 'README.md', *sorted((root / 'docs').rglob('*.md'))]


class Table(NamedTuple):
  """A table that a page quotes.

  Attributes:
    source: The results file, relative to the checkout.
    heads: Beginnings of the headings of the columns shown; () for all.
    named: Regular expression for the names of the rows shown; '' for all.
    text: The table as it stands on the page.
  """

  source: str
  heads: tuple[str, ...]
  named: str
  text: str


def tables(text: str) -> list[Table]:
  """Return the tables that a page quotes.

  >>> page = '<!-- table: a.json columns=size ^int8 -->\\nold\\n<!-- end -->'
  >>> tables(page)
  [Table(source='a.json', heads=('size',), named='^int8', text='old\\n')]
  """
  return [_table(found) for found in MARKER.finditer(text)]


def quoted(text: str, source: str, rows: list[Row]) -> str:
  """Return a page with the tables of one results file brought up to date.

  A table is the text between `<!-- table: FILE -->` and `<!-- end -->`.
  Behind FILE, `columns=accuracy,size` chooses and orders the columns, and a
  regular expression the rows, by name.

  Args:
    text: The page.
    source: The results file whose tables are written anew.
    rows: Its rows.

  Returns:
    The page; tables of other files do not change.

  >>> rows = [{'recipe': 'dense', 'role': 'reference', 'bytes': 1000}]
  >>> page = '<!-- table: a.json -->\\nold\\n<!-- end -->'
  >>> 'old' in quoted(page, 'a.json', rows)
  False
  """

  def written(found: re.Match[str]) -> str:
    table = _table(found)
    if table.source != source:
      return found[0]
    new = report.markdown(rows, table.named, table.heads).strip()
    return f'{found["head"]}{new}\n<!-- end -->'

  return MARKER.sub(written, text)


def answered(text: str, root: pathlib.Path) -> str:
  """Return a page with its tables over several results brought up to date.

  Such a table asks, in a `*.toml`, about rows of any file.

  Args:
    text: The page.
    root: The checkout.

  Returns:
    The page; other tables do not change.
  """

  def written(found: re.Match[str]) -> str:
    if not found['source'].endswith('.toml'):
      return found[0]
    return f'{found["head"]}{answers(root, found["source"])}<!-- end -->'

  return MARKER.sub(written, text)


def answers(root: pathlib.Path, source: str) -> str:
  """Return the table that a TOML file asks for, as Markdown.

  It is one of `limitations` or one of `families`.
  """
  text = (root / source).read_text()
  if 'family' in tomllib.loads(text):
    entries = families.parse(text)
    made = _made(root, {one.source for one in entries})
    return families.markdown(entries, {k: v.rows for k, v in made.items()})
  asked = limitations.parse(text)
  return limitations.markdown(asked, _made(root, {x.source for x in asked}))


def _made(
  root: pathlib.Path, sources: Collection[str]
) -> dict[str, limitations.Results]:
  """Read those of some results files that are there."""
  paths = {name: root / 'results' / f'{name}.json' for name in sources}
  files = {
    name: json.loads(path.read_text())
    for name, path in paths.items()
    if path.is_file()
  }
  return {
    name: limitations.Results(file['command'], file['rows'])
    for name, file in files.items()
  }


def rows_of(path: pathlib.Path) -> list[Row]:
  """Return the rows of a committed results file.

  Args:
    path: Of a file that `publish` or `benchmarks.deploy` wrote.

  Returns:
    Its rows; those of the benchmark converted, without its
    floors, which are no files.
  """
  rows: list[Row] = json.loads(path.read_text())['rows']
  files = [row for row in rows if 'recipe' in row or 'sizes' in row]
  return [row if 'recipe' in row else _benchmarked(row) for row in files]


def _benchmarked(row: Row) -> Row:
  """Return a row of `benchmarks.deploy` in the form of a published one."""
  network, _, recipe = str(row['name']).split('-', 2)
  timed = {key: row[key] for key in row if key.startswith('batch_')}
  return {
    'name': row['name'],
    'network': network,
    'recipe': recipe,
    'role': 'reference' if recipe == 'dense' else 'compressed',
    'bytes': row['sizes']['bytes'],
    'latency_ms': {
      'engine': row['batch_1']['engine'],
      'threads': row['threads'],
      **timed,
    },
    'speedup_rate': row['batch_1']['speedup_rate'],
  }


def _table(found: re.Match[str]) -> Table:
  heads = tuple(filter(None, (found['columns'] or '').split(',')))
  return Table(found['source'], heads, found['named'] or '', found['text'])
