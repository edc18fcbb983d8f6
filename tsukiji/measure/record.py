"""Measurements as keys of a results row."""

from typing import Any

from tsukiji.measure import energy

RATES = ('speedup_rate', 'speedup_rates')
MODEL = ('energy_uj', 'energy_source', 'energy_parts_uj')


def measured(row: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
  """Return a row with the measurements of its network.

  Args:
    row: A row of results.json, perhaps with earlier measurements.
    found: The result of `latency.measure`.

  Returns:
    The row with `latency_ms`, and with the rates and the energy that were
    measured. A rate that was not measured is absent. A measured energy takes
    the place of the modeled one, which is kept with its parts and its source
    in `energy_model`.

  >>> modeled = {'energy_uj': 3.0, 'energy_source': 'model:x'}
  >>> row = {'name': 'a', **modeled}
  >>> times = {'latency_ms': {'a': {}}, 'speedups': {}, 'batch_speedups': {}}
  >>> done = measured(row, {**times, 'energy_uj': {'a': 2.0}})
  >>> done['energy_uj'], done['energy_source'], done['energy_model']
  (2.0, 'measured:rapl', {'energy_uj': 3.0, 'energy_source': 'model:x'})
  """
  name = row['name']
  done = {key: value for key, value in row.items() if key not in RATES}
  done['latency_ms'] = found['latency_ms'][name]
  if name in found['speedups']:
    done['speedup_rate'] = found['speedups'][name]
  if len(found['batch_speedups'].get(name, ())) > 1:
    done['speedup_rates'] = found['batch_speedups'][name]
  if name in found['energy_uj']:
    done = _with_energy(done, found['energy_uj'][name])
  return done


def _with_energy(row: dict[str, Any], microjoules: float) -> dict[str, Any]:
  """Return a row with a measured energy, the model of its energy set aside."""
  kept = {key: value for key, value in row.items() if key not in MODEL}
  if row.get('energy_source') != energy.MEASURED:
    modeled = {key: row[key] for key in MODEL if key in row}
    kept |= {'energy_model': modeled} if modeled else {}
  return {
    **kept,
    'energy_uj': microjoules,
    'energy_source': energy.MEASURED,
  }
