"""Latencies of the artefacts of an experiment."""

from typing import Any

from tsukiji.experiments import jobs
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.store import Row
from tsukiji.measure import latency, record


def timed(experiment: Experiment, rows: list[Row]) -> list[Row]:
  """Return rows with the latencies of their artefacts.

  Each network and seed is timed with its reference, alternately, in a fresh
  process that is pinned to a core.

  Args:
    experiment: The experiment, with `config.measure`.
    rows: Rows of finished cells.
  """
  groups: dict[tuple[str, int], list[Row]] = {}
  for one in rows:
    of = jobs.reference_of(experiment.config, one['network'])
    groups.setdefault((of, one['seed']), []).append(one)
  found = [
    (_measured(experiment, *key, group), group) for key, group in groups.items()
  ]
  return [record.measured(x, times) for times, group in found for x in group]


def _measured(
  experiment: Experiment, reference: str, seed: int, rows: list[Row]
) -> dict[str, dict[str, Any]]:
  measure = experiment.config.measure
  return latency.run_pinned(
    {
      'artefacts': {
        one['name']: str(experiment.folder / one['artefact']) for one in rows
      },
      'reference': jobs.cell_name(reference, seed, jobs.DENSE),
      'batches': list(measure.batches),
      'repeats': measure.repeats,
      'engines': list(measure.engines),
      'core': latency.cores()[-1],
    }
  )
