"""The stages of a search: the best network, then recipes for it, or both."""

from collections.abc import Callable

from ml_collections import ConfigDict

from tsukiji.config import budget, search_space, stages
from tsukiji.experiments import prepare, results, running, shipping
from tsukiji.experiments.executor import Executors
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.store import Row
from tsukiji.experiments.sweep import driver, finalists, findings, winner
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
  if budget.limits(experiment.config):
    return _within(experiment, executors, log)
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


def _within(
  experiment: Experiment, executors: Executors, log: Log
) -> Experiment:
  """Return the experiment with the best networks inside the budget.

  One of which longer training makes a file too large is no longer inside: more
  are trained until one is.
  """
  config, folder, data = experiment.config, experiment.folder, experiment.data
  beside = stages.beside(config)
  if beside.networks:
    running.run(prepare.of(beside, folder, data), executors)
  joint = experiment._replace(config=stages.first(config))
  driver.run(joint, executors)
  found = finalists.ranked(joint)
  for count in range(min(config.search.keep, len(found)), len(found) + 1):
    chosen = stages.within(config, [one.config for one in found[:count]])
    last, _ = prepare.fitting(experiment._replace(config=chosen))
    running.run(last, executors)
    if finalists.judged(config, results.gather(last))[0].inside:
      break
  log(f'Trained in full: the best {count} of {len(found)} that differ.')
  return last


def deliver(
  experiment: Experiment, found: Experiment, rows: list[Row], log: Log
) -> None:
  """Export the best network inside a budget, and write its config.

  Args:
    experiment: The study.
    found: What `search` returned.
    rows: Its rows, with latencies.
    log: Called with messages of progress.
  """
  best = finalists.judged(experiment.config, rows)[0]
  alone = finalists.alone(found.config, best)
  alone.export.formats = budget.formats(experiment.config)
  origin = finalists.sentences(experiment, rows)
  winner.write(experiment.folder / 'best.py', alone, origin)
  shipping.export_row(found._replace(config=alone), best.row, log)


def verdict(experiment: Experiment, rows: list[Row]) -> list[str]:
  """Return sentences on the best network inside a budget; none without one."""
  if not budget.limits(experiment.config):
    return []
  return finalists.sentences(experiment, rows)


def test_best(experiment: Experiment) -> None:
  """Read the test set for the best trial of each study, once."""
  if budget.limits(experiment.config):
    return  # those trained in full have rows
  first = experiment._replace(config=stages.of_networks(experiment.config))
  if search_space.varies(first.config) and first.config.search.batch_size == 1:
    findings.tested(first)


def found(experiment: Experiment) -> list[Searched]:
  """Return the results of each stage of a search."""
  return [
    findings.searched(experiment._replace(config=one))
    for one in stages.of(experiment.config)
  ]
