"""The columns of a report: how a row fills them, their units and meaning.

One list serves the terminal, Markdown and HTML, so that a number reads the
same everywhere. A key that a row lacks is a dash, never a zero.
"""

import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

Row: TypeAlias = dict[str, Any]  # a row of results.json; keys may be absent

DASH = '–'
WARNING = '⚠'


class Cell(NamedTuple):
  """A formatted value: text, a less prominent addition, and a sort key."""

  text: str = DASH
  minor: str = ''
  value: float | None = None
  title: str = ''
  warning: str = ''


Fill: TypeAlias = Callable[[Row], Cell]


class Column(NamedTuple):
  """A column of numbers.

  Attributes:
    head: What is measured, in a word.
    unit: Its unit, or ''.
    about: A sentence that defines it.
    cell: Fills it from a row.
    first: The order that puts the better end on top.
    short: Head in a terminal of 100 columns; '' leaves the column out.
  """

  head: str
  unit: str
  about: str
  cell: Fill
  first: str = 'ascending'
  short: str = ''


def number(row: Row, key: str) -> float | None:
  """Read a finite number, or None where there is none.

  >>> number({'bytes': 12}, 'bytes'), number({'bytes': float('nan')}, 'bytes')
  (12.0, None)
  """
  value = row.get(key)
  if isinstance(value, bool) or not isinstance(value, numbers.Real):
    return None
  return float(value) if math.isfinite(value) else None


def digits(value: float) -> str:
  """Write a number with three significant digits, without an exponent.

  >>> [digits(value) for value in (1725.4, 27.31, 1.4, 0.04213, 0)]
  ['1,725', '27.3', '1.40', '0.0421', '0']
  """
  if value == 0:
    return '0'
  places = 2 - math.floor(math.log10(float(f'{abs(value):.2e}')))
  return f'{value:,.{min(max(places, 0), 9)}f}'


def points(difference: float) -> str:
  """Write a difference of accuracies in percentage points, with its sign.

  >>> points(-0.0021), points(0.013), points(-1e-9)
  ('−0.21', '+1.30', '0.00')
  """
  value = round(100 * difference, 2)
  return f'{value:+.2f}'.replace('-', '−') if value else '0.00'


def distinct(values: Iterable[str]) -> list[str]:
  """Return the non-empty values once each, in the order in which they came.

  >>> distinct(['b', '', 'a', 'b'])
  ['b', 'a']
  """
  return list(dict.fromkeys(filter(None, values)))


def timing(row: Row, batch: int) -> Row:
  """Return the quartiles of the latency at a batch size, in milliseconds."""
  latency = row.get('latency_ms')
  found = latency.get(f'batch_{batch}') if isinstance(latency, dict) else None
  return found if isinstance(found, dict) else {}


def engine(row: Row) -> str:
  """Say what a latency was measured with, '' where none was.

  >>> engine({'latency_ms': {'engine': 'onnxruntime', 'threads': 1}})
  'onnxruntime, 1 thread'
  """
  latency = row.get('latency_ms')
  if not isinstance(latency, dict):
    return ''
  threads = latency.get('threads')
  count = 'thread' if threads == 1 else 'threads'
  parts = [latency.get('engine'), threads and f'{threads} {count}']
  return ', '.join(str(part) for part in parts if part)


def _accuracy(row: Row) -> Cell:
  value, std = number(row, 'accuracy'), number(row, 'accuracy_std')
  if value is None:
    return Cell()
  spread = '' if std is None else f'± {100 * std:.2f}'
  checked = number(row, 'val_accuracy')
  title = '' if checked is None else f'validation {100 * checked:.2f} %'
  return Cell(f'{100 * value:.2f}', spread, value, title)


def _score(key: str, scale: float) -> Fill:
  def cell(row: Row) -> Cell:
    value, std = number(row, key), number(row, f'{key}_std')
    if value is None:
      return Cell()
    spread = '' if std is None else f'± {scale * std:.2f}'
    return Cell(f'{scale * value:.2f}', spread, value)

  return cell


def _difference(row: Row) -> Cell:
  value = number(row, 'difference')
  return Cell() if value is None else Cell(points(value), value=value)


def _plain(key: str, scale: float = 1, suffix: str = '') -> Fill:
  def cell(row: Row) -> Cell:
    value = number(row, key)
    if value is None:
      return Cell()
    exact = f'{value:,.0f} {key}' if scale < 1 else ''
    return Cell(digits(value * scale) + suffix, value=value, title=exact)

  return cell


def _bits(row: Row) -> Cell:
  weight, other = number(row, 'weight_bits'), number(row, 'activation_bits')
  if weight is None:
    return Cell()
  text = f'{weight:.3g}' + ('' if other is None else f' / {other:.3g}')
  return Cell(text, value=weight)


def _speedup(row: Row) -> Cell:
  cell = _plain('speedup_rate', suffix='×')(row)
  slower = cell.value is not None and cell.value < 1
  return cell._replace(warning=SLOWER if slower else '')


def _latency(batch: int) -> Fill:
  def cell(row: Row) -> Cell:
    quartiles = timing(row, batch)
    low, mid, high = (number(quartiles, k) for k in ('p25', 'p50', 'p75'))
    if mid is None:
      return Cell()
    spread = (
      f'quartiles {digits(low)} to {digits(high)} ms' if low and high else ''
    )
    title = ', '.join(filter(None, (spread, engine(row))))
    return Cell(digits(mid), value=mid, title=title)

  return cell


def _energy(source: str) -> Column:
  def cell(row: Row) -> Cell:
    same = (row.get('energy_source') or '') == source
    return _plain('energy_uj')(row) if same else Cell()

  about = f'Energy per inference, {source or "source not named"}.'
  how = source.partition(':')[0]  # 'measured' or 'model'
  unit = f'µJ, {how}' if how else 'µJ'
  return Column('energy', unit, about, cell, short=f'energy\n{unit}')


SLOWER = 'slower than the fastest dense float32 deployment'
ACCURACY = 'On the test set, mean ± standard deviation over the seeds.'
R2 = 'Share of the variance of the test labels that is explained.'
RECALL = 'Of test examples, whose nearest other one is of their class.'
DIFFERENCE = 'The difference is to the reference, in percentage points.'
PARAMS = (
  'Numbers that the file stores: weights, whether 0 or not, scales and biases.'
)
SIZE = 'Bytes of the packed file; 1 kB is 1000 bytes.'
COMPRESSION = (
  'Bytes of the float32 dense file ÷ bytes of this file. A file holds all'
  ' that is needed: values, indices, codebooks, scales, the network.'
)
SPEEDUP = (
  'Wall-clock time of the fastest dense float32 deployment ÷ time of this'
  ' one, batch 1, one thread unless said otherwise. Below 1 it is slower,'
  f' marked {WARNING}.'
)
UNKNOWN = (
  'Not measured; or a rate that cannot differ from 1: a mask on dense kernels'
  ' runs the program of the dense network.'
)
CONTROLS = (
  'What compression has to beat: a small dense network of equal bytes trained'
  ' from scratch, and a random mask of equal density.'
)
MACS = 'Multiply-accumulates of one example; 1 MAC is 2 FLOP.'
COLUMNS = (
  Column('accuracy', '%', ACCURACY, _accuracy, 'descending', 'accuracy\n%'),
  Column(
    'difference', 'points', DIFFERENCE, _difference, 'descending', 'diff.\npts'
  ),
  Column('R²', '', R2, _score('r2', 1), 'descending', 'R²'),
  Column(
    'recall@1',
    '%',
    RECALL,
    _score('recall_at_1', 100),
    'descending',
    'recall\n%',
  ),
  Column('sparsity', '%', 'Weights that are 0.', _plain('sparsity', 100)),
  Column('bits', 'w / a', 'Of weights and activations.', _bits),
  Column('parameters', 'thousand', PARAMS, _plain('params', 1e-3)),
  Column('size', 'kB', SIZE, _plain('bytes', 1e-3), short='size\nkB'),
  Column(
    'compression',
    'rate',
    COMPRESSION,
    _plain('compression_rate', suffix='×'),
    'descending',
    'smaller\nrate',
  ),
  Column('MACs', 'million', MACS, _plain('macs', 1e-6), short='MACs\n10⁶'),
  Column('latency', 'ms', 'Median, batch 1.', _latency(1), short='time\nms'),
  Column('latency', 'ms, batch 64', 'Median, batch 64.', _latency(64)),
  Column('speed-up', 'rate', SPEEDUP, _speedup, 'descending', 'faster\nrate'),
)


def columns(rows: Sequence[Row]) -> list[Column]:
  """List the columns that at least one row fills, energy once per source."""
  sources = dict.fromkeys(row.get('energy_source') or '' for row in rows)
  every = [*COLUMNS, *(_energy(str(source)) for source in sources)]
  return [c for c in every if any(c.cell(r).value is not None for r in rows)]


def fill(column: Column, rows: Sequence[Row]) -> list[Cell]:
  """Fill a column; a deviation that only some rows have is a dash elsewhere.

  >>> rows = [{'accuracy': 0.5, 'accuracy_std': 0.1}, {'accuracy': 0.5}]
  >>> [cell.minor for cell in fill(COLUMNS[0], rows)]
  ['± 10.00', '±     –']
  """
  cells = [column.cell(row) for row in rows]
  width = max((len(cell.minor) for cell in cells), default=0)
  blank = f'±{DASH:>{width - 1}}' if width else ''
  filled = [cell._replace(minor=cell.minor or blank) for cell in cells]
  return [full if full.value is not None else Cell() for full in filled]


def meanings(rows: Sequence[Row]) -> list[tuple[str, str]]:
  """Define the words of the table, as pairs of a term and a sentence."""
  engines = distinct(engine(row) for row in rows)
  timed = f' Measured with {"; ".join(engines)}.' if engines else ''
  sources = distinct(str(row.get('energy_source') or '') for row in rows)
  energy = ', '.join(sources) or 'not measured here'
  return [
    ('Compression rate', COMPRESSION),
    ('Speed-up rate', SPEEDUP + timed),
    ('MACs', MACS),
    ('Energy', f'Microjoules per inference; source: {energy}.'),
    ('Accuracy', f'{ACCURACY} {DIFFERENCE}'),
    ('Controls', CONTROLS),
    (DASH, UNKNOWN),
  ]
