"""The stages of a search: the best network, then recipes for it."""

from collections.abc import Callable

from ml_collections import ConfigDict

from tsukiji.config import search_space, stages
from tsukiji.experiments import prepare, running
from tsukiji.experiments.executor import Executors
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.sweep import driver, findings, winner
from tsukiji.report.search_data import Searched

Log = Callable[[str], None]


def search(
  experiment: Experiment, executors: Executors, log: Log
) -> Experiment:
  """Return the experiment with the best values found for varying fields.

  A search trains its networks and stops there; a study compresses them too, by
  recipes that it searches for once the network is found, where one varies.

  Args:
    experiment: A search or a study; finished trials are not repeated.
    executors: See `placement.opened`.
    log: Called with messages of progress.

  Returns:
    The experiment, which is also written to `best.py` in the workdir.
  """
  config, origin = _chosen(experiment, executors, log)
  found, reasons = prepare.fitting(experiment._replace(config=config))
  for reason in reasons:
    origin.append(f'Left out: {reason}')
    log(origin[-1])
  winner.write(experiment.folder / 'best.py', found.config, origin)
  return found


def _chosen(
  experiment: Experiment, executors: Executors, log: Log
) -> tuple[ConfigDict, list[str]]:
  """Return a config without ranges, and the origin of its values."""
  folder, data = experiment.folder, experiment.data
  chosen, origin = stages.of_networks(experiment.config), []
  if search_space.varies(chosen):
    best = driver.run(experiment._replace(config=chosen), executors)
    chosen = best.config
    place = f'{best.study}, trial {best.number}, {100 * best.accuracy:.2f} %'
    origin.append(f'Best on the validation set: {place}.')
    log(origin[-1])
  name = stages.recipe_of(experiment.config)
  if name:
    dense = prepare.of(stages.dense_only(chosen), folder, data)
    running.run(dense, executors)
    # Mixtures that this network does not allow are infeasible trials.
    mixed = stages.of_recipes(experiment.config, chosen)
    second = dense._replace(config=mixed, digest=experiment.digest)
    driver.run(second, executors)
    kept = findings.pareto_recipes(second)
    chosen = stages.with_recipes(chosen, kept, name)
    origin.append(f'Recipes {name}_1 to {name}_{len(kept)}: a Pareto set.')
    log(origin[-1])
  return chosen, origin


def test_best(experiment: Experiment) -> None:
  """Read the test set for the best trial of each study, once."""
  first = experiment._replace(config=stages.of_networks(experiment.config))
  if search_space.varies(first.config) and first.config.search.batch_size == 1:
    findings.tested(first)


def found(experiment: Experiment) -> list[Searched]:
  """Return the results of each stage of a search."""
  config = experiment.config
  first = stages.of_networks(config)
  configs = [first] if search_space.varies(first) else []
  if stages.recipe_of(config):
    configs.append(stages.of_recipes(config))
  return [findings.searched(experiment._replace(config=x)) for x in configs]
