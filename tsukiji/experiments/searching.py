"""The stages of a search: the best network, then the recipes that suit it."""

from collections.abc import Callable

from ml_collections import ConfigDict

from tsukiji.config import search_space, stages
from tsukiji.experiments import pool, prepare
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.sweep import findings, tuning, winner
from tsukiji.report.search_data import Searched

Say = Callable[[str], None]


def search(experiment: Experiment, say: Say) -> Experiment:
  """Return the experiment in which what varied has the best values found.

  A search trains its networks and stops there; a study compresses them too, by
  recipes that it searches for once the network is found, where one varies.

  Args:
    experiment: A search or a study; trials that are done are not repeated.
    say: Is called with a sentence now and then.

  Returns:
    The experiment, which `best.py` in the workdir describes as well.
  """
  config, origin = _chosen(experiment, say)
  found, reasons = prepare.fitting(experiment._replace(config=config))
  for reason in reasons:
    origin.append(f'Left out: {reason}')
    say(origin[-1])
  winner.write(experiment.folder / 'best.py', found.config, origin)
  return found


def _chosen(experiment: Experiment, say: Say) -> tuple[ConfigDict, list[str]]:
  """Return a config in which nothing varies, and where its values are from."""
  folder, data = experiment.folder, experiment.data
  chosen, origin = stages.of_networks(experiment.config), []
  if search_space.varies(chosen):
    best = tuning.run(experiment._replace(config=chosen))
    chosen = best.config
    place = f'{best.study}, trial {best.number}, {100 * best.accuracy:.2f} %'
    origin.append(f'Best on the validation set: {place}.')
    say(origin[-1])
  name = stages.recipe_of(experiment.config)
  if name:
    dense = prepare.of(stages.alone(chosen), folder, data)
    pool.run(dense)
    # Mixtures that this network does not allow are infeasible trials.
    mixed = stages.of_recipes(experiment.config, chosen)
    second = dense._replace(config=mixed, digest=experiment.digest)
    tuning.run(second)
    kept = findings.kept(second)
    chosen = stages.with_recipes(chosen, kept, name)
    origin.append(f'Recipes {name}_1 to {name}_{len(kept)}: a Pareto set.')
    say(origin[-1])
  return chosen, origin


def test_best(experiment: Experiment) -> None:
  """Read the test set for the best trial of each study, once."""
  first = experiment._replace(config=stages.of_networks(experiment.config))
  if search_space.varies(first.config) and first.config.search.batch_size == 1:
    findings.tested(first)


def found(experiment: Experiment) -> list[Searched]:
  """Return what each stage of a search has found."""
  config = experiment.config
  first = stages.of_networks(config)
  configs = [first] if search_space.varies(first) else []
  if stages.recipe_of(config):
    configs.append(stages.of_recipes(config))
  return [findings.told(experiment._replace(config=x)) for x in configs]
