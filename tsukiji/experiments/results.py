"""The rows of an experiment: which are there, and their rates."""

from tsukiji.experiments import jobs, row, store
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.store import Row


def finished(experiment: Experiment) -> bool:
  """Tell whether results.json has all that the task makes.

  What was trained alone is not finished where it is to be compressed too. Of
  a search, whose networks and recipes are found on the way, results.json has
  either all or nothing of what a stage makes.
  """
  config, rows = experiment.config, store.rows(experiment.folder)
  if config.task in ('search', 'study'):
    compressed = any(one['recipe'] != jobs.DENSE for one in rows)
    wants_more = config.task == 'study' and len(config.recipes) > 0
    return bool(rows) and (compressed or not wants_more)
  have = {one['name'] for one in rows}
  return bool(rows) and have >= {jobs.cell_name(*x) for x in _cells(experiment)}


def gather(experiment: Experiment) -> list[Row]:
  """Return the rows of all cells, with their rates against the reference."""
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
