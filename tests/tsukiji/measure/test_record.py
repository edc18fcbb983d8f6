"""Rows before and after a measurement."""

from typing import Any

from tsukiji.measure import record

MODEL = {
  'energy_uj': 6.0,
  'energy_source': 'model:horowitz45',
  'energy_parts_uj': {'compute': 1.0, 'weights': 2.0, 'activations': 3.0},
}
ROW: dict[str, Any] = {'name': 'net', 'bytes': 100, **MODEL}
BARE = {
  'latency_ms': {'net': {'engine': 'jax', 'batch_1': {'p50': 0.1}}},
  'speedups': {},
  'batch_speedups': {},
  'energy_uj': {},
}
FULL = {
  **BARE,
  'speedups': {'net': 2.0},
  'batch_speedups': {'net': {'batch_1': 2.0, 'batch_64': 3.0}},
  'energy_uj': {'net': 8.0},
}


def test_a_modeled_energy_stays_without_counters() -> None:
  assert record.measured(ROW, BARE) == {
    **ROW,
    'latency_ms': BARE['latency_ms']['net'],
  }


def test_a_measured_energy_does_not_stand_with_the_parts_of_the_model() -> None:
  done = record.measured(ROW, FULL)
  assert (done['energy_uj'], done['energy_source']) == (8.0, 'measured:rapl')
  assert 'energy_parts_uj' not in done
  assert done['energy_model'] == MODEL
  assert sum(MODEL['energy_parts_uj'].values()) == MODEL['energy_uj']


def test_measuring_again_keeps_the_model() -> None:
  once = record.measured(ROW, FULL)
  again = record.measured(once, {**FULL, 'energy_uj': {'net': 9.0}})
  assert again == {**once, 'energy_uj': 9.0}


def test_a_rate_of_an_earlier_measurement_goes() -> None:
  done = record.measured(record.measured(ROW, FULL), BARE)
  assert not {'speedup_rate', 'speedup_rates'} & set(done)


def test_the_row_that_was_given_is_as_it_was() -> None:
  row = dict(ROW)
  record.measured(row, FULL)
  assert row == ROW
