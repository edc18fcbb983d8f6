"""Families: rows of several results files in one table."""

import pytest

from tsukiji.report.across import families
from tsukiji.report.columns import Row

TEXT = """
[[family]]
says = 'none'
rows = [{ method = 'dense', source = 'one', row = 'n/dense' }]

[[family]]
says = 'quantization'
rows = [
  { method = '8 bits', source = 'one', row = 'n/int8' },
  { method = '4 bits', source = 'two', row = 'm/int4' },
]
"""


def rows(network: str, recipe: str, role: str, size: int) -> list[Row]:
  """Return two seeds, of accuracies 0.8 and 0.9 less a tenth per kilobyte."""
  latency = {'engine': 'jax', 'threads': 1, 'batch_1': {'p50': size / 1e4}}
  common = {'network': network, 'recipe': recipe, 'role': role, 'bytes': size}
  measured = {'params': 2 * size, 'macs': 3e6, 'compression_rate': 4000 / size}
  timed = {'latency_ms': latency, 'speedup_rate': 2.0, 'energy_uj': 5.0}
  return [
    {**common, **measured, **timed, 'seed': seed, 'accuracy': accuracy}
    for seed, accuracy in enumerate((0.8 - size / 1e5, 0.9 - size / 1e5))
  ]


RESULTS = {
  'one': [
    *rows('n', 'dense', 'reference', 4000),
    *rows('n', 'int8', 'compressed', 1000),
  ]
}


def lines() -> list[list[str]]:
  text = families.markdown(families.parse(TEXT), RESULTS)
  return [line[2:-2].split(' | ') for line in text.splitlines()]


def test_rows_are_means_over_seeds() -> None:
  heads, _, dense, int8, _ = lines()
  assert heads[:4] == ['family', 'method', 'accuracy, %', 'difference, points']
  assert dense[:4] == ['none', 'dense', '81.00 ± 7.07', '0.00']
  assert int8[:4] == ['quantization', '8 bits', '84.00 ± 7.07', '+3.00']
  # Parameters in thousands, kB, rate, MACs in millions, ms, speed-up, µJ.
  assert int8[4:11] == [
    '2.00',
    '1.00',
    '4.00×',
    '3.00',
    '0.100',
    '2.00×',
    '5.00',
  ]
  assert int8[11:] == ['jax', '2', 'one']


def test_rows_that_are_missing_are_named() -> None:
  *_, last = lines()
  assert last[:3] == ['', f'4 bits: {families.MISSING}', '–']
  assert last[-1] == 'two'


@pytest.mark.parametrize('field', ['method', 'source', 'row'])
def test_mistakes_are_named(field: str) -> None:
  match = "family 'none': expected method, row, source, got"
  with pytest.raises(ValueError, match=match):
    families.parse(TEXT.replace(f'{field} =', 'other ='))
