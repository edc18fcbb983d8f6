"""Publishing: a finished experiment becomes what the README quotes."""

import pathlib
import re
import shutil
from collections.abc import Sequence
from typing import Any

from tsukiji import report
from tsukiji.experiments import store
from tsukiji.experiments.store import Row
from tsukiji.report import trials
from tsukiji.report.trials import Searched

ROOT = pathlib.Path(__file__).parents[2]


def publish(
  folder: pathlib.Path,
  rows: list[Row],
  root: pathlib.Path = ROOT,
  searched: Sequence[Searched] = (),
) -> pathlib.Path:
  """Write results/NAME.json and figures, and the README's tables.

  Args:
    folder: A finished workdir; NAME is its last part.
    rows: Its rows, one a seed.
    root: The checkout to write to.
    searched: What its searches have found.

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
    'rows': [*rows, *report.summarise(rows)],
  }
  if searched:
    content['searches'] = [_search(one) for one in searched]
  store.write_json(path, content)
  for picture in (folder / 'figures').glob('*.png'):
    shutil.copy(picture, root / 'results/figures' / f'{name}_{picture.name}')
  readme = root / 'README.md'
  readme.write_text(quoted(readme.read_text(), f'results/{name}.json', rows))
  return path


def _search(searched: Searched) -> dict[str, Any]:
  """Return a search as JSON: its trials, and what is said of them."""
  return {
    'search': searched.name,
    'told': trials.sentences(searched),
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


def quoted(text: str, source: str, rows: list[Row]) -> str:
  """Return a README with the tables of one results file brought up to date.

  A table is what stands between `<!-- table: FILE -->` and `<!-- end -->`; a
  regular expression behind FILE shows the rows whose names it finds.

  >>> rows = [{'recipe': 'dense', 'role': 'reference', 'bytes': 1000}]
  >>> page = '<!-- table: a.json -->\\nold\\n<!-- end -->'
  >>> 'old' in quoted(page, 'a.json', rows)
  False
  """
  pattern = re.compile(
    rf'(<!-- table: {re.escape(source)}(?: ([^\n]+?))? -->\n).*?<!-- end -->',
    re.DOTALL,
  )
  return pattern.sub(
    lambda found: (
      f'{found[1]}{report.markdown(rows, found[2] or "").strip()}\n<!-- end -->'
    ),
    text,
  )
