"""What the pages quote is what the experiment left."""

import json
import pathlib

import pytest

from tests.tsukiji.experiments.test_rows import tiny
from tests.tsukiji.report.test_search_data import searched
from tsukiji import report
from tsukiji.experiments import store
from tsukiji.experiments.publish import (
  answers,
  publish,
  quoted,
  rows_of,
  tables,
)
from tsukiji.report import search_data

ROWS = [
  {
    'name': f'net-{seed}-dense',
    'network': 'net',
    'recipe': 'dense',
    'role': 'reference',
    'dataset': 'digits',
    'seed': seed,
    'accuracy': accuracy,
    'bytes': 1000,
    'train_seconds': 90,
  }
  for seed, accuracy in ((0, 0.9), (1, 0.8))
]


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
  (tmp_path / 'README.md').write_text(
    'Before\n<!-- table: results/run.json -->\nold\n<!-- end -->\nAfter\n'
  )
  return tmp_path


def test_rows_summaries_figures_and_table(root: pathlib.Path) -> None:
  folder = root / 'runs' / 'run'
  store.claim(folder, tiny())
  (folder / 'figures' / 'accuracy_bytes.png').write_bytes(b'png')
  path = publish(folder, ROWS, root)
  found = json.loads(path.read_text())
  assert found['rows'][:2] == ROWS
  assert found['rows'][2]['role'] == 'summary'
  assert found['rows'][2]['accuracy'] == pytest.approx(0.85)
  assert found['minutes'] == 3
  assert found.keys() >= {'command', 'machine', 'commit', 'versions'}
  figures = root / 'results' / 'figures'
  assert (figures / 'run_accuracy_bytes.png').read_bytes() == b'png'
  text = (root / 'README.md').read_text()
  assert report.markdown(ROWS).strip() in text
  assert text.startswith('Before') and text.endswith('After\n')


def test_a_search_is_published_with_its_trials(root: pathlib.Path) -> None:
  folder, made = root / 'runs' / 'run', searched()
  store.claim(folder, tiny())
  path = publish(folder, ROWS, root, [made])
  (found,) = json.loads(path.read_text())['searches']
  assert found['told'] == search_data.sentences(made)
  assert len(found['trials']) == len(made.trials)
  assert found['trials'][0].keys() >= {'designer', 'seed', 'values', 'params'}


def test_a_table_of_another_file_stays(root: pathlib.Path) -> None:
  text = (root / 'README.md').read_text()
  assert quoted(text, 'results/other.json', ROWS) == text


def test_a_table_may_show_a_part(root: pathlib.Path) -> None:
  part = [{**row, 'recipe': 'half', 'role': 'compressed'} for row in ROWS]
  page = '<!-- table: a.json half|none -->\nold\n<!-- end -->'
  found = quoted(page, 'a.json', [*ROWS, *part])
  assert len(found.splitlines()) == 2 + 3
  assert '| half |' in found and 'dense' not in found
  assert quoted(found, 'a.json', [*ROWS, *part]) == found


def test_quoting_twice_changes_nothing(root: pathlib.Path) -> None:
  text = (root / 'README.md').read_text()
  once = quoted(text, 'results/run.json', ROWS)
  assert once != text
  assert quoted(once, 'results/run.json', ROWS) == once


def test_tables_of_all_pages_are_written(root: pathlib.Path) -> None:
  page = root / 'docs' / 'results' / 'run.md'
  page.parent.mkdir(parents=True)
  page.write_text('<!-- table: results/run.json -->\nold\n<!-- end -->\n')
  folder = root / 'runs' / 'run'
  store.claim(folder, tiny())
  publish(folder, ROWS, root)
  for path in (page, root / 'README.md'):
    (table,) = tables(path.read_text())
    assert table.text.strip() == report.markdown(ROWS).strip()


def test_answers_to_limitations_follow_the_rows(root: pathlib.Path) -> None:
  (root / 'docs').mkdir()
  rows = [*ROWS, *({**row, 'recipe': 'half', 'accuracy': 1.0} for row in ROWS)]
  fields = "about = 'b'\nsource = 'run'\nrow = 'net/half'\nother = 'net/dense'"
  text = f"[[limitation]]\nsays = 'a'\n[[limitation.rows]]\n{fields}\n"
  (root / 'docs' / 'asked.toml').write_text(text)
  page = root / 'docs' / 'asked.md'
  page.write_text('<!-- table: docs/asked.toml -->\nold\n<!-- end -->\n')
  assert 'no row yet' in answers(root, 'docs/asked.toml')
  folder = root / 'runs' / 'run'
  store.claim(folder, tiny())
  publish(folder, rows, root)
  (table,) = tables(page.read_text())
  assert table.text == answers(root, 'docs/asked.toml')
  assert '+15.00 ± 7.07 points | 2 | no' in table.text


def test_a_table_may_choose_its_columns() -> None:
  page = '<!-- table: a.json columns=size,accuracy ^d -->\nold\n<!-- end -->'
  (table,) = tables(page)
  assert (table.heads, table.named) == (('size', 'accuracy'), '^d')
  found = quoted(page, 'a.json', ROWS)
  assert '| recipe | size, kB | accuracy, % |' in found
  assert '| 1.00 | 85.00 ± 7.07 |' in found  # 1000 bytes; of 0.9 and 0.8
  assert quoted(found, 'a.json', ROWS) == found


def test_a_column_that_is_not_there_is_named() -> None:
  page = '<!-- table: a.json columns=sise -->\n<!-- end -->'
  with pytest.raises(ValueError, match="got 'sise'. Nearest: 'size, kB'"):
    quoted(page, 'a.json', ROWS)


def test_rows_of_the_benchmark_are_rows_of_files(
  tmp_path: pathlib.Path,
) -> None:
  timed = {'p25': 1.0, 'p50': 2.0, 'p75': 3.0}
  first = {**timed, 'engine': 'onnxruntime', 'speedup_rate': 1.5}
  row = {'name': 'net-0-int8', 'threads': 1, 'sizes': {'bytes': 1000}}
  rows = [{**row, 'batch_1': first}, {'name': 'floor', 'batch_1': first}]
  path = tmp_path / 'a.json'
  path.write_text(json.dumps({'rows': rows}))
  (found,) = rows_of(path)
  table = report.markdown([found])
  assert table.splitlines()[-1] == '| int8 | 1.00 | 2.00 | 1.50× |'
  path.write_text(json.dumps({'rows': ROWS}))
  assert rows_of(path) == ROWS
