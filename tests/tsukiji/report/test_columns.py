"""Numbers as text: units, dashes, warnings."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsukiji.report import columns
from tsukiji.report.columns import DASH, Cell, Row


def cells(row: Row) -> dict[str, Cell]:
  """Fill the columns that a row fills, by head and unit."""
  found = columns.columns([row])
  return {f'{c.head} {c.unit}'.strip(): c.cell(row) for c in found}


@given(st.floats(1e-6, 1e12))
def test_digits_keep_three_figures_and_no_exponent(value: float) -> None:
  text = columns.digits(value)
  assert 'e' not in text
  assert math.isclose(float(text.replace(',', '')), value, rel_tol=5.1e-3)


@pytest.mark.parametrize('value', [None, True, 'a', float('nan'), [1]])
def test_what_is_no_number_is_not_measured(value: object) -> None:
  assert columns.number({'bytes': value}, 'bytes') is None
  assert columns.columns([{'bytes': value}]) == []


def test_units() -> None:
  found = cells(
    {
      'accuracy': 0.91234,
      'accuracy_std': 0.0012,
      'val_accuracy': 0.92,
      'difference': -0.0021,
      'sparsity': 0.9,
      'weight_bits': 8,
      'activation_bits': 32,
      'bytes': 63_210,
      'compression_rate': 27.31,
      'macs': 4_210_000,
      'speedup_rate': 1.4,
    }
  )
  assert {head: cell.text for head, cell in found.items()} == {
    'accuracy %': '91.23',
    'difference points': '−0.21',
    'sparsity %': '90.0',
    'bits w / a': '8 / 32',
    'size kB': '63.2',
    'compression rate': '27.3×',
    'MACs million': '4.21',
    'speed-up rate': '1.40×',
  }
  assert found['accuracy %'].minor == '± 0.12'
  assert found['accuracy %'].title == 'validation 92.00 %'
  assert found['size kB'].title == '63,210 bytes'


def test_zero_is_a_number() -> None:
  assert cells({'sparsity': 0})['sparsity %'].text == '0'


@pytest.mark.parametrize(('rate', 'slow'), [(0.999, True), (1.0, False)])
def test_only_slower_is_flagged(rate: float, slow: bool) -> None:
  assert bool(cells({'speedup_rate': rate})['speed-up rate'].warning) == slow


def test_latency_names_quartiles_and_engine() -> None:
  timing = {'p25': 0.05, 'p50': 0.06, 'p75': 0.08}
  latency = {'engine': 'numpy', 'threads': 2, 'batch_64': timing}
  [(head, cell)] = cells({'latency_ms': latency}).items()
  assert (head, cell.text) == ('latency ms, batch 64', '0.0600')
  assert cell.title == 'quartiles 0.0500 to 0.0800 ms, numpy, 2 threads'


def test_each_energy_source_has_its_column() -> None:
  rows: list[Row] = [
    {'energy_uj': 2.0, 'energy_source': 'measured:rapl'},
    {'energy_uj': 3.0, 'energy_source': 'model:x'},
    {'energy_uj': 4.0},
  ]
  found = columns.columns(rows)
  assert [c.unit for c in found] == ['µJ, measured', 'µJ, model', 'µJ']
  texts = [[c.cell(row).text for c in found] for row in rows]
  assert texts[0] == ['2.00', DASH, DASH]
  assert texts[2] == [DASH, DASH, '4.00']


def test_meanings_name_engine_and_source() -> None:
  row = {
    'latency_ms': {'engine': 'onnxruntime', 'threads': 1},
    'energy_source': 'model:horowitz',
  }
  reported = dict(columns.meanings([row]))
  assert 'onnxruntime, 1 thread' in reported['Speed-up rate']
  assert 'model:horowitz' in reported['Energy']
  assert 'not measured' in dict(columns.meanings([]))['Energy']
  assert 'float32 dense' in reported['Compression rate']
