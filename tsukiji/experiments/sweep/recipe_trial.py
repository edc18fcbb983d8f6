"""Trials of recipes: a trained network is compressed for a few epochs.

Within a budget the network is one of the trial too, and is trained for a few
epochs before.
"""

from ml_collections import ConfigDict

from compress import recipe
from search.designer import Values
from search.space import Space
from tsukiji import interrupt
from tsukiji.config import budget, search_space, settings, stages
from tsukiji.experiments import cell, identity, jobs, row
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.row import Trained
from tsukiji.experiments.sweep import inside, trial
from tsukiji.training import evaluate, teacher
from tsukiji.training.loop import OnEpoch, ignore


def run(
  experiment: Experiment,
  space: Space,
  config: ConfigDict,
  on_epoch: OnEpoch = ignore,
) -> Values:
  """Compress a network by the recipe of a suggestion.

  Objectives are those of the packed file, read back.

  Args:
    experiment: The second stage of a study, whose dense network is trained in
      its folder if it is missing; or the stage of a study with a budget.
    space: Of the config.
    config: A suggestion.
    on_epoch: See `loop.fit`.

  Returns:
    The objectives of `config.search`, an error in place of an accuracy, and
    what is beyond the budget; see `inside.excess`.

  Raises:
    FloatingPointError: If the loss is not finite.
    ValueError: If the methods cannot be chained.
    interrupt.Stopped: On SIGINT or SIGTERM; the trial has a checkpoint.
  """
  interrupt.stop_if_requested()
  name = stages.recipe_of(experiment.config)
  config = search_space.with_defaults(space, config)
  network, seed = settings.searched(config), config.seeds[0]
  short, title = shortened(experiment, config, name)
  dense = _dense(experiment, config)
  taught = {
    other: cell.trained(experiment, other, seed).variables
    for other in jobs.taught_by(short.config, title)
  }
  with trial.exclusive(short.folder / f'{title}.lock'):
    done = cell.compressed(
      short,
      network,
      seed,
      title,
      dense.variables,
      on_epoch=on_epoch,
      known=taught,
    )
  method = teacher.method_of(short.config, title)
  meta = row.meta_of(short.data, title, method)
  shipped = trial.shipped(experiment, done, meta)
  split, loss = experiment.data.validation, experiment.config.train.loss
  error = trial.error_of(evaluate.scored(shipped.artefact.run, split, loss))
  found = {**shipped.costs, 'val_accuracy': error}
  return Values(
    tuple(found[x] for x in experiment.config.search.objectives),
    inside.excess(experiment, config, found),
  )


def _dense(experiment: Experiment, config: ConfigDict) -> Trained:
  """Return the network that a trial compresses, trained if it is not yet."""
  if budget.limits(config):
    return trial.trained(experiment, config)[1]
  network, seed = settings.searched(config), config.seeds[0]
  place = experiment.folder / 'trials' / f'{network}-{seed}.lock'
  with trial.exclusive(place):
    return cell.trained(experiment, network, seed)


def shortened(
  experiment: Experiment, config: ConfigDict, name: str
) -> tuple[Experiment, str]:
  """Return the experiment of a trial, and its name of the recipe.

  The name identifies the recipe, so that a repeated trial resumes from its
  checkpoint, in a folder that all trials share.
  """
  item = config.recipes[name].copy_and_resolve_references()
  item.epochs = config.recipe_search.epochs or item.epochs
  taught = recipe.parse(recipe.filled(item.method, item.parts)).requires
  item.teacher = item.teacher if taught else ()
  network = settings.searched(config)
  short = settings.default('compress')
  short.dataset, short.measure = config.dataset, config.measure
  short.train, short.finetune = config.train, config.finetune
  short.helper, short.seeds = config.helper, (config.seeds[0],)
  short.networks = {network: config.networks[network]}
  short.recipes = {name: item}
  title = f'{name}_{identity.digest(short)}'
  short.recipes = {title: item}
  names = (*jobs.taught_by(short, title), network)
  specs = {one: experiment.specs[one] for one in names}
  if budget.limits(config):
    specs[network] = trial.spec_of(experiment, config)
  folder = experiment.folder / 'trials'
  return jobs.Experiment(short, folder, experiment.data, specs), title
