"""The rows of an experiment and their rates."""

from tsukiji.experiments import jobs, row, store
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.store import Row


def finished(experiment: Experiment) -> bool:
  """Return whether results.json has all rows of the task.

  An experiment that was trained is not finished if it is to be compressed too.
  Of a search, whose networks and recipes are not known before, results.json has
  all rows of a stage or none.
  """
  config, rows = experiment.config, store.rows(experiment.folder)
  if config.task in ('search', 'study'):
    compressed = any(one['recipe'] != jobs.DENSE for one in rows)
    wants_more = config.task == 'study' and len(config.recipes) > 0
    return bool(rows) and (compressed or not wants_more)
  have = {one['name'] for one in rows}
  return bool(rows) and have >= {jobs.cell_name(*x) for x in _cells(experiment)}


def gather(experiment: Experiment) -> list[Row]:
  """Return the rows of all cells, with their rates over the reference."""
  return [_gathered(experiment, *one) for one in _cells(experiment)]


def _cells(experiment: Experiment) -> list[tuple[str, int, str]]:
  config = experiment.config
  return [
    (network, seed, name)
    for network, seed in jobs.of(config)
    for name in jobs.cells(config, network, seed)
  ]


def _gathered(
  experiment: Experiment, network: str, seed: int, name: str
) -> Row:
  title = jobs.cell_name(network, seed, name)
  found = store.cell(experiment.folder, title)
  if found is None:
    raise ValueError(
      f'{experiment.folder}/cells/{title}.json: expected the row of a finished '
      'run, got no file. Run the command again.'
    )
  of = jobs.reference_of(experiment.config, network)
  dense = store.cell(experiment.folder, jobs.cell_name(of, seed, jobs.DENSE))
  return row.with_rates(found, dense) if dense else found
