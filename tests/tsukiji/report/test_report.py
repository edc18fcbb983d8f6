"""The report: its files and their contents."""

import html.parser
import io
import pathlib
from typing import Any

import numpy as np
import pytest
import rich.console

from tsukiji import report
from tsukiji.report.columns import Row

DENSE = {'recipe': 'dense', 'role': 'reference', 'accuracy': 0.9201}
LATENCY = {'p25': 0.05, 'p50': 0.06, 'p75': 0.08}
NASTY = '<script>alert("1")</script> | $\\frac$ & 築地'
FIGURES = {'accuracy_bytes.png', 'accuracy_latency.png', 'training.png'}


def study_rows(seeds: int = 3) -> list[Row]:
  """Fabricate the rows of a small study: four recipes and two controls."""
  table = [
    ('dense', 'reference', None, 0.918, 1_724_310, 0.142),
    ('prune90', 'compressed', 'prune', 0.919, 210_500, 0.139),
    ('prune90', 'control_random', 'prune', 0.897, 210_700, 0.139),
    ('int8', 'compressed', 'quantize', 0.917, 434_800, 0.088),
    ('int4', 'compressed', 'quantize', 0.703, 219_900, 0.151),
    ('prune90+int8', 'compressed', 'combined', 0.916, 63_200, 0.101),
    ('small', 'control_scratch', None, 0.900, 212_400, 0.048),
  ]
  noise = np.random.default_rng(0).normal(0, 0.002, (len(table), seeds))
  return [
    _row(*line, seed, float(noise[i, seed]))
    for i, line in enumerate(table)
    for seed in range(seeds)
  ]


def _row(
  recipe: str,
  role: str,
  family: str | None,
  accuracy: float,
  size: int,
  time: float,
  seed: int,
  noise: float,
) -> Row:
  quartiles = {'p25': 0.96 * time, 'p50': time, 'p75': 1.07 * time}
  row = {
    'name': f'tsukijinet/{recipe}/{seed}',
    'recipe': recipe,
    'role': role,
    'seed': seed,
    'dataset': 'fashion_mnist',
    'network': 'tsukijinet',
    'accuracy': accuracy + noise,
    'val_accuracy': accuracy + 0.004,
    'bytes': size + seed,
    'compression_rate': 1_724_310 / size,
    'speedup_rate': 0.142 / time,
    'macs': 4_210_000,
    'latency_ms': {'engine': 'onnxruntime', 'threads': 1, 'batch_1': quartiles},
    'energy_uj': 12.4,
    'energy_source': 'model:horowitz',
  }
  return row | ({'family': family, 'mode': 'qat'} if family else {})


def study_curves() -> dict[str, list[Row]]:
  """Fabricate the training curves of two runs."""
  return {
    name: [
      {
        'step': 10 * epoch,
        'epoch': epoch,
        'split': split,
        'loss': rate / epoch,
        'accuracy': 1 - 0.5 / epoch,
      }
      for epoch in range(1, 6)
      for split in ('train', 'validation')
    ]
    for name, rate in (('dense', 1.0), ('prune90', 1.2))
  }


class Page(html.parser.HTMLParser):
  """Read a page: its tags with their attributes, its text, its balance."""

  VOID = ('meta', 'link', 'br', 'img', 'source')

  def __init__(self, text: str) -> None:
    super().__init__()
    self.tags: list[tuple[str, dict[str, Any]]] = []
    self.open: list[str] = []
    self.text = ''
    self.feed(text)
    self.close()

  def handle_starttag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
    """Note a tag."""
    self.tags.append((tag, dict(attrs)))
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_endtag(self, tag: str) -> None:
    """Check that the innermost open tag is closed first."""
    assert self.open.pop() == tag

  def handle_data(self, data: str) -> None:
    """Note a text."""
    self.text += data

  def all(self, tag: str) -> list[dict[str, Any]]:
    """Return the attributes of each tag of a kind."""
    return [attributes for name, attributes in self.tags if name == tag]


def printed(rows: list[Row], width: int = 100) -> str:
  """Print the terminal table to a string."""
  console = rich.console.Console(width=width, file=io.StringIO())
  console.print(report.table(rows))
  return console.file.getvalue()


@pytest.fixture(scope='module')
def written(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """Write the report of the study, with a name and notes that need care."""
  rows = study_rows()
  rows[3:6] = [row | {'recipe': NASTY} for row in rows[3:6]]
  workdir = tmp_path_factory.mktemp('study') / 'new'
  notes = ['Repeat it: make study', NASTY]
  path = report.write(
    workdir, rows, report.Extras(f'Title {NASTY}', study_curves(), notes)
  )
  assert path == workdir / 'report.html'
  return workdir


@pytest.mark.slow
def test_writes_the_files_and_leaves_no_other(written: pathlib.Path) -> None:
  files = {path.name for path in written.rglob('*') if path.is_file()}
  assert files == {'report.html', 'report.md'} | FIGURES


def test_figures_are_png_with_something_in_them(written: pathlib.Path) -> None:
  for name in FIGURES:
    content = (written / 'figures' / name).read_bytes()
    assert content.startswith(b'\x89PNG\r\n\x1a\n')
    assert len(content) > 20_000


def test_page_is_balanced_and_needs_nothing_else(written: pathlib.Path) -> None:
  page = Page((written / 'report.html').read_text())
  assert page.open == []
  links = [
    value
    for _, attributes in page.tags
    for key, value in attributes.items()
    if key in ('src', 'srcset', 'href', 'data', 'action')
  ]
  assert len(links) == 7  # an icon, three figures in light and dark
  assert all(link.startswith('data:') for link in links)
  assert 'http' not in (written / 'report.html').read_text()
  assert '@import' not in (written / 'report.html').read_text()


def test_page_escapes_what_it_is_given(written: pathlib.Path) -> None:
  text = (written / 'report.html').read_text()
  assert '<script>alert' not in text
  page = Page(text)
  assert len(page.all('script')) == 4  # two charts, and what draws and sorts
  assert page.text.count(NASTY) >= 4  # title, heading, row, note


def test_markdown_has_the_table_the_figures_and_the_notes(
  written: pathlib.Path,
) -> None:
  text = (written / 'report.md').read_text()
  assert '<script>' not in text
  assert 'Repeat it: make study' in text
  for name in FIGURES:
    assert f'](figures/{name})' in text
  table = [line for line in text.splitlines() if line.startswith('|')]
  assert len(table) == 2 + 7


def test_writing_again_replaces(tmp_path: pathlib.Path) -> None:
  for title in ('first', 'second'):
    report.write(tmp_path, [], report.Extras(title))
  assert 'second' in (tmp_path / 'report.html').read_text()
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    'report.html',
    'report.md',
  ]


def test_a_failed_write_keeps_the_old_file(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  report.write(tmp_path, [], report.Extras('first'))

  def fail(*_: object) -> None:
    raise OSError('disk full')

  monkeypatch.setattr('os.replace', fail)
  with pytest.raises(OSError, match='disk full'):
    report.write(tmp_path, [], report.Extras('second'))
  assert 'first' in (tmp_path / 'report.md').read_text()
  assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
  'rows',
  [
    [],
    [{}],
    [{'role': 'summary'}],
    [{'recipe': 'int8', 'accuracy': float('nan'), 'bytes': None}],
    [DENSE, {'recipe': 'int8', 'bytes': 0, 'speedup_rate': 0.0}],
    [{'latency_ms': {'engine': 'numpy'}}, {'latency_ms': None}],
  ],
)
def test_little_data_is_no_failure(
  tmp_path: pathlib.Path, rows: list[Row]
) -> None:
  curves = {'dense': [{'step': 1, 'split': 'train', 'loss': float('nan')}]}
  text = report.write(
    tmp_path, rows, report.Extras('Little', curves)
  ).read_text()
  assert Page(text).open == []
  assert 'nan' not in Page(text).text.lower().split()
  assert not (tmp_path / 'figures').exists()
  assert 'nan' not in printed(rows)


def test_terminal_table_fits_100_columns() -> None:
  text = printed(study_rows())
  assert max(map(len, text.splitlines())) <= 100
  assert '…' not in text
  for word in ('dense (reference)', 'small (from scratch)', '⚠ 0.940×'):
    assert word in text
  assert len(text.splitlines()) == 3 + 7 + 2  # each row is one line


def test_sentences_are_plain_words() -> None:
  rows = [
    DENSE,
    {'recipe': 'a', 'accuracy': 0.918, 'compression_rate': 27.31},
    {'recipe': 'b', 'compression_rate': 0.5, 'speedup_rate': 1.4},
    {'recipe': 'c', 'accuracy': 0.9301, 'speedup_rate': 0.8},
    {'recipe': 'd'},
    {'recipe': 'e', 'role': 'control_random', 'accuracy': 0.5},
  ]
  assert report.sentences(rows) == [
    'a: 27.3x smaller, -0.21 points',
    'b: 2.00x larger, 1.40x faster',
    'c: +1.00 points, 1.25x slower',
  ]


def test_sentences_speak_of_means() -> None:
  rows = [
    DENSE,
    *({'recipe': 'a', 'accuracy': 0.9201 + d} for d in (0.0, -0.01)),
  ]
  assert report.sentences(rows) == ['a: -0.50 points']
