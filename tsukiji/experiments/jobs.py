"""The jobs of an experiment: networks x seeds, and a cell for each recipe.

A *cell* is one network, seed and recipe; cells of one network and seed start
from the same dense network. Every cell is resumable and leaves an artefact
and a row.
"""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict

from compress import recipe
from tsukiji.config import settings
from tsukiji.data import batches
from tsukiji.data.datasets import Data, Split
from tsukiji.experiments import store
from tsukiji.models import zoo
from tsukiji.models.spec import Spec
from tsukiji.training import step, teacher
from tsukiji.training.step import Plan
from tsukiji.training.teacher import Teacher

Job = tuple[str, int]  # network, seed
Cell = tuple[str, int, str]  # network, seed, recipe
Moments = tuple[tuple[float, ...], tuple[float, ...]]  # mean, deviation
DENSE = 'dense'  # the recipe that changes nothing


class Experiment(NamedTuple):
  """A checked config with its data and networks.

  Attributes:
    config: The resolved config.
    folder: The workdir.
    data: The data set.
    specs: The networks by their names in the config.
    digest: Of the config as given, before a search fixes its fields: it names
      the studies in a storage that experiments share.
  """

  config: ConfigDict
  folder: pathlib.Path
  data: Data
  specs: dict[str, Spec]
  digest: str = ''


class Length(NamedTuple):
  """The length of a run: its settings and their number of steps."""

  settings: ConfigDict
  steps: int


def specs_of(
  config: ConfigDict, loaded: Data, moments: Moments
) -> dict[str, Spec]:
  """Build the networks of a config for some data, of given moments."""
  return {
    name: zoo.build(
      item.kind,
      loaded.train.x.shape[1:],
      item.outputs or len(loaded.classes),
      moments,
      name=name,
      **item.sizes,
    )
    for name, item in config.networks.items()
  }


def plan_of(
  experiment: Experiment,
  network: str,
  name: str,
  spec: Spec,
  length: Length,
  own: Callable[[str], Teacher] | None = None,
) -> Plan:
  """Return the plan of a run of one recipe.

  Args:
    experiment: The experiment.
    network: Name in the config.
    name: Of the recipe, or `DENSE`.
    spec: The network as the run begins.
    length: Settings and steps of the run.
    own: A network of the experiment as a teacher, by default untrained.
  """
  plan = step.plain(spec, *length)
  if name == DENSE:
    return plan
  item, specs = experiment.config.recipes[name], experiment.specs
  made = recipe.parse(teacher.method_of(experiment.config, name))
  plan = plan._replace(method=made, label_weight=item.label_weight)
  if not made.requires:
    return plan
  if item.train_teacher:
    other = step.plain(specs[item.teacher[0]], *length)
    return plan._replace(joint_teacher=other)
  own = own or (lambda name: teacher.untrained(specs[name]))
  size = spec.input_shape
  return plan._replace(teacher=teacher.teacher_of(item, network, size, own))


def cells(config: ConfigDict, network: str, seed: int) -> tuple[str, ...]:
  """Return the recipes of a network that make rows, the dense one first."""
  own = (DENSE,) if config.networks[network].dense else ()
  return own + settings.recipes_of(config, network, seed)


def unfinished(experiment: Experiment) -> list[Cell]:
  """Return the cells without a row and what they need, the dense ones first."""
  config, folder = experiment.config, experiment.folder
  every = [
    (network, seed, name)
    for network, seed in of(config)
    for name in cells(config, network, seed)
  ]
  left = [one for one in every if not store.cell(folder, cell_name(*one))]
  # A dense network may be a start or a teacher without a row of its own.
  found = {*every}
  dense = [
    need
    for one in left
    for need in sorted(needed(config, one))
    if need not in found
  ]
  return sorted(dict.fromkeys([*dense, *left]), key=lambda one: one[2] != DENSE)


def needed(config: ConfigDict, one: Cell) -> set[Cell]:
  """Return the cells that a cell waits for: its start and its teachers."""
  network, seed, name = one
  if name == DENSE:
    return set()
  taught = {(other, seed, DENSE) for other in taught_by(config, name)}
  return {(network, seed, start_of(config, name)), *taught}


def light(experiment: Experiment) -> Experiment:
  """Return an experiment without examples, to be sent to workers."""
  data = experiment.data
  none = Split(data.train.x[:0], data.train.y[:0])
  return experiment._replace(
    folder=experiment.folder.absolute(),
    data=data._replace(train=none, validation=none, test=none),
  )


def start_of(config: ConfigDict, name: str) -> str:
  """Return the recipe that one starts from, or `DENSE`."""
  start = config.recipes[name].start
  return DENSE if start in settings.STARTS else start


def taught_by(config: ConfigDict, name: str) -> tuple[str, ...]:
  """Return the networks that have to be trained before a recipe starts."""
  item = config.recipes[name]
  if item.train_teacher:
    return ()
  return tuple(x for x in item.teacher if not teacher.is_outside(x))


def of(config: ConfigDict) -> list[Job]:
  """Return every network and seed, the first seed of all networks first."""
  return sorted(
    (
      (name, seed)
      for name, item in config.networks.items()
      for seed in item.seeds or config.seeds
    ),
    key=lambda job: job[1],
  )


def cell_name(network: str, seed: int, recipe_name: str) -> str:
  """Return the name of a cell, as 'tsukijinet-0-int8'."""
  return f'{network}-{seed}-{recipe_name}'


def steps_of(experiment: Experiment, network: str, name: str) -> Length:
  """Return the training settings of a recipe and the steps they make."""
  config = experiment.config
  if name == DENSE:
    chosen = settings.training_of(config, network)
  else:
    chosen = settings.finetuning_of(config, name)
  examples = len(experiment.data.train.y)
  count = batches.steps_per_epoch(examples, chosen.batch_size)
  return Length(chosen, chosen.epochs * count)


def reference_of(config: ConfigDict, network: str) -> str:
  """Return the network whose dense form a network is compared with."""
  return config.networks[network].of or network
