"""An experiment: networks x seeds x recipes, from data to rows.

A *cell* is one network, seed and recipe; cells of one network and seed start
from the same dense network. Every cell is resumable and leaves an artefact
and a row.
"""

import dataclasses
import functools
import itertools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from compress import method, recipe, tree
from tsukiji import (
  batches,
  data,
  evaluation,
  optimise,
  probe,
  settings,
  train,
  workdir,
  zoo,
)
from tsukiji.data import Data, Split
from tsukiji.deploy import artefact, pack
from tsukiji.deploy.lower import Variables, lower
from tsukiji.deploy.shrink import shrink
from tsukiji.fit import Run, Tell, fit
from tsukiji.measure import cost, energy
from tsukiji.spec import Spec, output_shape
from tsukiji.train import Plan, State
from tsukiji.workdir import Row

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


class Trained(NamedTuple):
  """A network at the end of its training, and the seconds that took."""

  spec: Spec
  variables: Variables
  seconds: float


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
  config, spec = experiment.config, experiment.specs[network]
  x, y = (part[:8] for part in experiment.data.train)
  size = output_shape(spec)

  def start(plan: Plan, variables: Variables) -> State:
    seen = Split(x, y)
    stats = evaluation.calibrate(spec, variables, seen)
    asked = probe.probe(spec, variables, seen)
    return train.init_state(plan, variables, 0, stats, asked)

  for name in _recipes_of_any_seed(config, network):
    text = config.recipes[name].method
    plan = _plan(spec, text, config.finetune, 1, None)._replace(
      teacher=lambda x: jnp.zeros((len(x), *size))
    )
    try:
      begin = functools.partial(start, plan)
      fresh = functools.partial(train.init_variables, spec, 0)
      state = method.traced(begin, train.shapes(spec), fresh)
      jax.eval_shape(train.make_step(plan), state, x, y)
    except ValueError as e:
      raise ValueError(f'config.recipes.{name} on {network}: {e}') from e


def _recipes_of_any_seed(config: ConfigDict, network: str) -> list[str]:
  seeds = config.networks[network].seeds or config.seeds
  found = (settings.recipes_of(config, network, seed) for seed in seeds)
  return list(dict.fromkeys(itertools.chain(*found)))


def _plan(
  spec: Spec,
  text: str,
  chosen: ConfigDict,
  steps: int,
  dense: Variables | None,
) -> Plan:
  """Return the plan of a run; the dense network, if any, teaches."""
  return Plan(
    spec,
    recipe.parse(text),
    optimise.optimiser(chosen, steps),
    steps,
    chosen.label_smoothing,
    evaluation.predictor(spec, dense) if dense else None,
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
    _steps(experiment, r)[1]
    for r in (DENSE, *settings.recipes_of(experiment.config, network, seed))
  )


def _steps(experiment: Experiment, name: str) -> tuple[ConfigDict, int]:
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


def run_network(
  experiment: Experiment,
  network: str,
  seed: int,
  tell: Tell,
) -> None:
  """Train one network with one seed and compress it by all its recipes.

  Args:
    experiment: The experiment.
    network: Name in the config.
    seed: Seed of the initial weights, the order and the noise.
    tell: See `fit.fit`.
  """
  dense: Trained | None = None
  for name in cells(experiment.config, network, seed):
    total = _steps(experiment, name)[1]
    if workdir.cell(experiment.folder, cell_name(network, seed, name)):
      tell(cell_name(network, seed, name), total)
      continue
    if dense is None:
      dense = _fit(experiment, network, seed, DENSE, None, tell)
    done = dense
    if name != DENSE:
      done = _fit(experiment, network, seed, name, dense.variables, tell)
    row = _finish(experiment, network, seed, name, done)
    workdir.write_cell(experiment.folder, row)


def _fit(
  experiment: Experiment,
  network: str,
  seed: int,
  name: str,
  dense: Variables | None,
  tell: Tell,
) -> Trained:
  """Train a dense network from scratch, or fine-tune it under a recipe."""
  spec, split = experiment.specs[network], experiment.data.train
  chosen, steps = _steps(experiment, name)
  text = '' if dense is None else experiment.config.recipes[name].method
  plan = _plan(spec, text, chosen, steps, dense)
  stats = asked = None
  if dense is None:
    dense = train.init_variables(spec, seed)
  else:
    stats = evaluation.calibrate(spec, dense, split)
    asked = probe.probe(spec, dense, split)
  start = train.init_state(plan, dense, seed, stats, asked)
  plan, start = _shrunk(plan, start, split)
  if not steps:  # post-training compression
    variables = {'params': start.params, 'batch_stats': start.batch_stats}
    return Trained(plan.spec, variables, 0.0)
  title = cell_name(network, seed, name)
  run = Run(title, plan, start, experiment.data, chosen, seed)
  return Trained(plan.spec, *fit(run, experiment.folder, tell))


def _shrunk(plan: Plan, start: State, split: Split) -> tuple[Plan, State]:
  """Take removed channels out before training: it is faster on what is left."""
  variables = {'params': start.params, 'batch_stats': start.batch_stats}
  spec, small = shrink(plan.spec, variables)
  if spec == plan.spec:
    return plan, start
  small = evaluation.recalibrate(spec, small, split)
  free, _ = tree.split(small['params'])
  opt = plan.tx.init(free)
  return plan._replace(spec=spec), dataclasses.replace(start, opt=opt, **small)


def _finish(
  experiment: Experiment,
  network: str,
  seed: int,
  name: str,
  done: Trained,
) -> Row:
  """Pack a network and measure the file: what is shipped is what counts."""
  title = cell_name(network, seed, name)
  spec, small = lower(done.spec, done.variables)
  meta = {
    'name': title,
    'dataset': experiment.data.name,
    'classes': list(experiment.data.classes),
    'recipe': _method(experiment.config, name),
  }
  blob = pack.pack(spec, small, meta)
  path = experiment.folder / 'artefacts' / f'{title}.tsk'
  artefact.save(path, blob)
  shipped = artefact.load(path)
  scored = {
    key: evaluation.evaluate(shipped.spec, shipped.variables, split).accuracy
    for key, split in (
      ('val_accuracy', experiment.data.validation),
      ('accuracy', experiment.data.test),
    )
  }
  params = shipped.variables['params']
  joules = energy.model(shipped.spec, params, len(blob))
  dense = experiment.specs[network]
  return {
    'name': title,
    'dataset': experiment.data.name,
    'network': network,
    'seed': seed,
    **_labels(experiment.config, network, name),
    **scored,
    'params_trained': cost.params(train.shapes(dense)['params']),
    **cost.summary(shipped.spec, params),
    'mac_fraction': cost.macs(shipped.spec) / cost.macs(dense),
    'bytes': len(blob),
    'energy_uj': joules.total,
    'energy_source': joules.source,
    'energy_parts_uj': {
      'compute': joules.compute,
      'weights': joules.weights,
      'activations': joules.activations,
    },
    'train_seconds': round(done.seconds, 1),
    'artefact': f'artefacts/{title}.tsk',
  }


def _method(config: ConfigDict, name: str) -> str:
  return '' if name == DENSE else config.recipes[name].method


def _labels(config: ConfigDict, network: str, name: str) -> dict[str, Any]:
  """Return what kind of row this is."""
  control = config.networks[network].role != 'reference'
  role = config.networks[network].role
  if name == DENSE:
    return {'recipe': DENSE, 'role': role, 'mode': 'scratch'}
  item = config.recipes[name]
  return {
    'recipe': name,
    'role': role if control else item.role,
    'method': item.method,
    'family': item.family,
    'mode': item.mode,
  }


def reference_of(config: ConfigDict, network: str) -> str:
  """Return the network whose dense form a network is compared with."""
  return config.networks[network].of or network
