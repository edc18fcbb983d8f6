"""When an experiment is finished, and what can be done with it then."""

import pathlib
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tsukiji.experiments.test_rows import tiny
from tests.tsukiji.experiments.test_store import row
from tsukiji.data.datasets import Split
from tsukiji.deploy import artefact
from tsukiji.experiments import experiment as ex
from tsukiji.experiments import jobs, lock, results, shipping, store, timing
from tsukiji.measure import latency


def finished_with(folder: pathlib.Path, *recipes: str) -> jobs.Experiment:
  """Return an experiment with rows of some recipes."""
  made: Any = [row(f'net-0-{name}') | {'recipe': name} for name in recipes]
  if made:
    store.write_rows(folder, made)
  config = tiny(int8='quantize.int8()')
  return jobs.Experiment(config, folder, None, {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
  ('task', 'recipes', 'expected'),
  [
    ('train', (), False),
    ('train', ('dense',), True),
    ('train', ('dense', 'int8'), True),
    ('compress', ('dense',), False),
    ('compress', ('dense', 'int8'), True),
    ('search', ('dense',), True),
    ('study', ('dense',), False),
    ('study', ('dense', 'int8'), True),
    ('study', (), False),
  ],
)
def test_what_was_only_trained_is_still_to_be_compressed(
  task: str, recipes: tuple[str, ...], expected: bool, tmp_path: pathlib.Path
) -> None:
  experiment = finished_with(tmp_path, *recipes)
  experiment.config.task = task
  assert results.finished(experiment) == expected


def test_a_missing_cell_is_named(tmp_path: pathlib.Path) -> None:
  with pytest.raises(ValueError, match='net-0-dense.json: expected the row'):
    results.gather(finished_with(tmp_path))


def test_rates_are_against_the_reference(tmp_path: pathlib.Path) -> None:
  experiment = finished_with(tmp_path)
  store.write_cell(tmp_path, row('net-0-dense'))
  store.write_cell(tmp_path, row('net-0-int8') | {'bytes': 25})
  found = results.gather(experiment)
  assert [x['compression_rate'] for x in found] == [1, 4]
  assert {x['reference'] for x in found} == {'net'}


def test_times_are_put_into_rows(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  requested: list[Any] = []

  def measured(job: dict[str, Any]) -> dict[str, Any]:
    requested.append(job)
    names = [*job['artefacts']]
    return {
      'latency_ms': {name: {'batch_1': {'p50': 2.0}} for name in names},
      'speedups': dict.fromkeys(names, 1.5),
      'batch_speedups': {name: {'batch_1': 1.5} for name in names},
      'energy_uj': {},
    }

  monkeypatch.setattr(latency, 'run_pinned', measured)
  experiment = finished_with(tmp_path, 'dense', 'int8')
  found = timing.timed(experiment, store.rows(tmp_path))
  assert [x['name'] for x in found] == ['net-0-dense', 'net-0-int8']
  assert all(x['speedup_rate'] == 1.5 for x in found)
  assert all(x['latency_ms'] == {'batch_1': {'p50': 2.0}} for x in found)
  assert 'speedup_rates' not in found[0] and 'energy_uj' not in found[0]
  (job,) = requested
  assert job['reference'] == 'net-0-dense'


@pytest.mark.parametrize(('accuracy', 'same'), [(0.5, True), (0.25, False)])
def test_an_artefact_that_is_not_as_in_its_row_is_a_mistake(
  accuracy: float,
  same: bool,
  tmp_path: pathlib.Path,
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  class Shipped:
    @staticmethod
    def run(x: jax.Array) -> jax.Array:
      return jnp.zeros((len(x), 2)).at[:, 0].set(1.0)  # the first label

  test = Split(np.zeros((2, 4, 4, 1), np.float32), np.array([0, 1]))
  monkeypatch.setattr(artefact, 'load', lambda path: Shipped)
  data = SimpleNamespace(test=test)
  experiment = finished_with(tmp_path)._replace(data=data)
  store.write_rows(tmp_path, [row('net-0-dense') | {'accuracy': accuracy}])
  said: list[str] = []
  if same:
    shipping.evaluate(experiment, said.append)
    assert said == ['net-0-dense: 50.00 % as in results.json']
  else:
    with pytest.raises(ValueError, match='got .others: net-0-dense'):
      shipping.evaluate(experiment, said.append)
    assert said == ['net-0-dense: 50.00 % NOT as in results.json']


def test_a_second_command_ends_before_it_begins(
  tmp_path: pathlib.Path,
) -> None:
  with lock.held(tmp_path), pytest.raises(ValueError, match='no other command'):
    ex.opened(tiny(), tmp_path).__enter__()
  assert not (tmp_path / 'config.json').exists()
