"""An experiment: networks x seeds x recipes, from data to rows.

A *cell* is one network, seed and recipe; cells of one network and seed start
from the same dense network. Every cell is resumable and leaves an artefact
and a row.
"""

import functools
import itertools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from compress import method, recipe
from compress.tree import Array
from tsukiji import (
  batches,
  data,
  evaluation,
  optimise,
  probe,
  settings,
  shallow,
  train,
  zoo,
)
from tsukiji.data import Data, Split
from tsukiji.deploy.lower import Variables
from tsukiji.errors import expect
from tsukiji.spec import Shape, Spec, output_shape
from tsukiji.train import Plan, State

Job = tuple[str, int]  # network, seed
DENSE = 'dense'  # the recipe that changes nothing


class Experiment(NamedTuple):
  """A checked config with its data and networks.

  Attributes:
    config: The resolved config.
    folder: The workdir.
    data: The data set.
    specs: The networks by their names in the config.
  """

  config: ConfigDict
  folder: pathlib.Path
  data: Data
  specs: dict[str, Spec]


def prepare(config: ConfigDict, folder: pathlib.Path) -> Experiment:
  """Load the data, build the networks, and try every method on them.

  Args:
    config: The resolved config.
    folder: The workdir.

  Returns:
    The experiment, ready to run.

  Raises:
    ValueError: If anything the user chose cannot work.
  """
  settings.check(config)
  if config.distributed:
    jax.distributed.initialize()
  loaded = load_data(config)
  moments = data.moments(loaded.train.x)
  specs = {
    name: zoo.build(
      item.kind,
      loaded.train.x.shape[1:],
      len(loaded.classes),
      moments,
      name=name,
      **item.sizes,
    )
    for name, item in config.networks.items()
  }
  experiment = Experiment(config, folder, loaded, specs)
  for name in specs:
    _try_methods(experiment, name)
  return experiment


def load_data(config: ConfigDict) -> Data:
  """Return the data set of a config."""
  return data.load(
    config.dataset.name,
    validation=config.dataset.validation,
    seed=config.dataset.seed,
    folder=config.dataset.folder,
    cache=config.dataset.cache,
  )


def _try_methods(experiment: Experiment, network: str) -> None:
  """Trace one step of each recipe: mistakes show before training."""
  config, dense = experiment.config, experiment.specs[network]
  x, y = (part[:8] for part in experiment.data.train)

  def start(spec: Spec, plan: Plan, variables: Variables) -> State:
    seen = Split(x, y)
    stats = evaluation.calibrate(spec, variables, seen)
    asked = probe.probe(spec, variables, seen)
    return train.init_state(plan, variables, 0, stats, asked)

  for name in _recipes_of_any_seed(config, network):
    item = config.recipes[name]
    teacher = functools.partial(_silent, output_shape(dense))
    plan = plan_of(dense, item.method, config.finetune, 1, teacher)
    try:
      spec = shallow.cut(dense, item.without)
      _expect_fewer(spec, item.fewer)
      plan = plan._replace(spec=spec)
      begin = functools.partial(start, spec, plan)
      fresh = functools.partial(train.init_variables, spec, 0)
      state = method.traced(begin, train.shapes(spec), fresh)
      jax.eval_shape(train.make_step(plan), state, x, y)
    except ValueError as e:
      raise ValueError(f'config.recipes.{name} on {network}: {e}') from e


def _expect_fewer(spec: Spec, count: int) -> None:
  able = list(shallow.removable(spec) or shallow.removable(spec, reshape=True))
  what = f'at most {len(able)} units to go ({", ".join(able)})'
  expect('fewer', count <= len(able), what, count)


def _silent(size: Shape, x: Array) -> Array:
  """Return logits of the shape that a teacher's have."""
  return jnp.zeros((len(x), *size))


def _recipes_of_any_seed(config: ConfigDict, network: str) -> list[str]:
  seeds = config.networks[network].seeds or config.seeds
  found = (settings.recipes_of(config, network, seed) for seed in seeds)
  return list(dict.fromkeys(itertools.chain(*found)))


def plan_of(
  spec: Spec,
  text: str,
  chosen: ConfigDict,
  steps: int,
  teacher: Callable[[Array], Array] | None,
) -> Plan:
  """Return the plan of a run of one recipe."""
  return Plan(
    spec,
    recipe.parse(text),
    optimise.optimiser(chosen, steps),
    steps,
    chosen.label_smoothing,
    teacher,
    chosen.loss,
  )


def cells(config: ConfigDict, network: str, seed: int) -> tuple[str, ...]:
  """Return the recipes that a network gets rows for, the dense one first."""
  own = (DENSE,) if config.networks[network].dense else ()
  return own + settings.recipes_of(config, network, seed)


def jobs(config: ConfigDict) -> list[Job]:
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


def batches_of(experiment: Experiment, network: str, seed: int) -> int:
  """Return the training steps of all cells of one network and seed."""
  return sum(
    steps_of(experiment, r)[1]
    for r in (DENSE, *settings.recipes_of(experiment.config, network, seed))
  )


def steps_of(experiment: Experiment, name: str) -> tuple[ConfigDict, int]:
  """Return the training settings of a recipe and the steps they make."""
  config = experiment.config
  if name == DENSE:
    chosen = config.train
  else:
    chosen = config.finetune.copy_and_resolve_references()
    item = config.recipes[name]
    chosen.epochs = item.epochs if item.epochs >= 0 else chosen.epochs
    chosen.lr = item.lr or chosen.lr
  examples = len(experiment.data.train.y)
  count = batches.steps_per_epoch(examples, chosen.batch_size)
  return chosen, chosen.epochs * count


def reference_of(config: ConfigDict, network: str) -> str:
  """Return the network whose dense form a network is compared with."""
  return config.networks[network].of or network
