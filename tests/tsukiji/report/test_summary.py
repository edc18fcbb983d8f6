"""Seeds summed up, against numpy; and what they are compared with."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tsukiji.report.test_report import study_rows
from tsukiji.report.columns import Row
from tsukiji.report.summary import lines, summarize

FRACTIONS = st.lists(st.floats(0, 1), min_size=1, max_size=6)


@given(accuracies=FRACTIONS, sizes=st.lists(st.integers(1, 10**9), max_size=6))
@settings(max_examples=50, deadline=None)
def test_mean_and_deviation_are_those_of_numpy(
  accuracies: list[float], sizes: list[int]
) -> None:
  rows = [{'recipe': 'a', 'accuracy': value} for value in accuracies]
  for row, size in zip(rows, sizes, strict=False):
    row['bytes'] = size
  [out] = summarize(rows)
  assert out['accuracy'] == pytest.approx(np.mean(accuracies))
  assert out['n_seeds'] == len(accuracies)
  if len(accuracies) > 1:
    std = np.std(accuracies, ddof=1)
    assert out['accuracy_std'] == pytest.approx(std, abs=1e-12)
  else:
    assert 'accuracy_std' not in out
  reported = sizes[: len(accuracies)]
  assert isinstance(out.get('bytes', 0), int)
  assert ('bytes' in out) == bool(reported)
  if reported:
    assert abs(out['bytes'] - np.mean(reported)) <= 0.5 + 1e-6


def test_one_row_per_network_recipe_dataset_and_role() -> None:
  out = summarize(study_rows())
  named = [(row['recipe'], row['of']) for row in out]
  assert len(named) == len(set(named)) == 7
  assert ('prune90', 'compressed') in named
  assert ('prune90', 'control_random') in named
  assert {row['role'] for row in out} == {'summary'}
  assert out[1]['family'] == 'prune'
  assert out[1]['mode'] == 'qat'


@pytest.mark.parametrize('key', ['network', 'recipe', 'dataset', 'role'])
def test_rows_that_differ_are_kept_apart(key: str) -> None:
  rows = [{'recipe': 'r', 'accuracy': 0.5, key: value} for value in 'ab']
  assert len(summarize(rows)) == 2


def test_summarizing_twice_is_summarizing() -> None:
  rows = study_rows()
  once = summarize(rows)
  assert summarize(once) == once
  assert summarize(rows + once) == once


def test_a_summary_keeps_what_its_seeds_do_not_say() -> None:
  seeds: list[Row] = [{'recipe': 'a', 'accuracy': 0.5}]
  said = {'recipe': 'a', 'role': 'summary', 'of': 'compressed', 'bytes': 7}
  [out] = summarize(seeds + [said | {'accuracy': 0.9, 'accuracy_std': 0.1}])
  assert (out['bytes'], out['accuracy'], out['n_seeds']) == (7, 0.5, 1)
  assert 'accuracy_std' not in out


def test_absent_and_infinite_values_stay_out_of_means() -> None:
  rows: list[Row] = [
    {'recipe': 'a', 'macs': 10, 'energy_uj': float('inf'), 'flag': True},
    {'recipe': 'a', 'macs': 20, 'sparsity': 0.5},
    {'recipe': 'a'},
  ]
  [out] = summarize(rows)
  assert out['macs'] == 15
  assert isinstance(out['macs'], int)
  assert out['sparsity'] == 0.5
  assert out['n_seeds'] == 3
  for key in ('energy_uj', 'flag', 'accuracy', 'bytes', 'latency_ms', 'seed'):
    assert key not in out


def _timed(engine: str, p50: float) -> Row:
  timing = {'p25': p50 - 1, 'p50': p50, 'p75': p50 + 1}
  latency = {'engine': engine, 'threads': 1, 'batch_1': timing}
  return {'recipe': 'a', 'latency_ms': latency}


def test_latency_is_averaged_per_batch_and_quartile() -> None:
  rows = [_timed('numpy', 2.0), _timed('numpy', 4.0)]
  rows[1]['latency_ms']['batch_64'] = {'p50': 90.0}
  [out] = summarize(rows)
  assert out['latency_ms'] == {
    'engine': 'numpy',
    'threads': 1,
    'batch_1': {'p25': 2.0, 'p50': 3.0, 'p75': 4.0},
    'batch_64': {'p50': 90.0},
  }


def test_times_of_two_engines_have_no_mean() -> None:
  [out] = summarize([_timed('numpy', 2.0), _timed('onnxruntime', 4.0)])
  assert out['latency_ms']['engine'] == 'numpy'
  assert out['latency_ms']['batch_1']['p50'] == 2.0


def test_energies_of_two_sources_have_no_mean() -> None:
  sources = ('measured:rapl', 'model:x')
  rows = [
    {'recipe': 'a', 'energy_uj': 1.0, 'energy_source': s} for s in sources
  ]
  assert 'energy_uj' not in summarize(rows)[0]
  assert summarize(rows[:1] * 2)[0]['energy_uj'] == 1.0


def test_the_order_is_kept_but_references_come_first() -> None:
  rows = study_rows()[::-1]
  assert [row['recipe'] for row in summarize(rows)][-1] == 'dense'
  found = [row['recipe'] for row, _ in lines(rows)]
  assert found[:2] == ['dense', 'small']


def test_difference_is_to_the_reference_of_the_same_network() -> None:
  rows: list[Row] = [
    {'recipe': 'x', 'network': 'a', 'accuracy': 0.5},
    {'recipe': 'd', 'network': 'a', 'accuracy': 0.75, 'role': 'reference'},
    {'recipe': 'd', 'network': 'b', 'accuracy': 1.0, 'role': 'reference'},
    {'recipe': 'x', 'network': 'c', 'accuracy': 0.5},
    {'recipe': 'x', 'network': 'n', 'accuracy': 0.5, 'reference': 'b'},
  ]
  found = {
    row['network']: row for row, _ in lines(rows) if row['recipe'] == 'x'
  }
  assert found['a']['difference'] == -0.25
  assert found['n']['difference'] == -0.5  # to the one it names
  assert 'difference' not in found['c']  # two references, neither its own
  [(_, _), (other, seeds)] = lines([rows[1], rows[3]])
  assert other['difference'] == seeds[0]['difference'] == -0.25


def test_another_dataset_is_no_reference() -> None:
  rows: list[Row] = [
    {'recipe': 'd', 'dataset': 'a', 'accuracy': 0.5, 'role': 'reference'},
    {'recipe': 'x', 'dataset': 'b', 'accuracy': 0.5},
  ]
  assert 'difference' not in lines(rows)[1][0]


def test_input_is_not_changed() -> None:
  rows = study_rows()
  lines(rows)
  assert rows == study_rows()
