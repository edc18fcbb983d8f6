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
from ml_collections import ConfigDict

from compress import method, recipe
from tsukiji import (
  batches,
  check,
  compact,
  data,
  evaluation,
  probe,
  ranges,
  settings,
  shallow,
  signs,
  teach,
  train,
  workdir,
  zoo,
)
from tsukiji.data import Data, Split
from tsukiji.deploy.lower import lower
from tsukiji.deploy.shrink import Variables, shrink
from tsukiji.errors import expect
from tsukiji.goals import goal_of
from tsukiji.spec import Spec
from tsukiji.teach import Teacher
from tsukiji.train import Plan, State

Job = tuple[str, int]  # network, seed
Moments = tuple[tuple[float, ...], tuple[float, ...]]  # mean, deviation
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
  check.check(config)
  if config.distributed:
    jax.distributed.initialize()
  return of(config, folder, load_data(config))


def of(config: ConfigDict, folder: pathlib.Path, loaded: Data) -> Experiment:
  """Return an experiment on data that are there; see `prepare`.

  Where fields of the config vary, its networks are those of the first of
  `ranges.examples`.
  """
  first, *others = ranges.examples(config)
  moments = data.moments(loaded.train.x)
  specs = specs_of(first, loaded, moments)
  for other in others:
    specs_of(other, loaded, moments)
  _check_labels(first.train.loss, loaded)
  experiment = Experiment(first, folder, loaded, specs)
  tried: list[ConfigDict] = []
  for example in (first, *others):
    fresh = {k for k, item in example.recipes.items() if item not in tried}
    for name in specs:
      _try_methods(experiment._replace(config=example), name, fresh)
    tried += [example.recipes[name] for name in fresh]
  return experiment._replace(config=config)


def fitting(experiment: Experiment) -> tuple[Experiment, list[str]]:
  """Leave out the recipes that networks do not allow.

  For networks that nobody knew when the config was written: a search has found
  them.

  Args:
    experiment: One in which nothing varies; its networks are built anew.

  Returns:
    The experiment, and why each recipe was left out.
  """
  config = experiment.config.copy_and_resolve_references()
  moments = data.moments(experiment.data.train.x)
  specs = specs_of(config, experiment.data, moments)
  found = experiment._replace(config=config, specs=specs)
  reasons = []
  for network in specs:
    kept = []
    for name in _recipes_of_any_seed(config, network):
      try:
        _try_method(found, network, name)
        kept.append(name)
      except ValueError as e:
        reasons.append(str(e))
    config.networks[network].recipes = tuple(kept)
  return found, reasons


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


def _check_labels(loss: str, loaded: Data) -> None:
  kinds = {False: 'classes', True: 'real numbers'}
  wanted, found = goal_of(loss).real, loaded.train.y.dtype.kind == 'f'
  fix = 'squared_error is for numbers, cross_entropy for classes.'
  what = f'a loss of {kinds[found]}, which {loaded.name} has as labels'
  expect('config.train.loss', wanted == found, what, loss, fix)


def load_data(config: ConfigDict) -> Data:
  """Return the data set of a config."""
  return data.load(
    config.dataset.name,
    validation=config.dataset.validation,
    seed=config.dataset.seed,
    folder=config.dataset.folder,
    cache=config.dataset.cache,
  )


def _try_methods(experiment: Experiment, network: str, fresh: set[str]) -> None:
  """Trace one step of recipes: mistakes show before training.

  Args:
    experiment: One in which nothing varies.
    network: Name in the config.
    fresh: The recipes that were not tried before.
  """
  for name in _recipes_of_any_seed(experiment.config, network):
    if name in fresh:
      _try_method(experiment, network, name)


def _try_method(experiment: Experiment, network: str, name: str) -> None:
  """Trace one step of a recipe, unless it has a row."""
  if _has_worked(experiment, network, name):
    return
  try:
    sketch = _sketched(experiment, network, name)
    begin = functools.partial(_begin, experiment, network, sketch.plan)
    state = method.traced(begin, sketch.shapes, sketch.values)
    signs.expect_both(sketch.plan.spec, state.variables['params'])
    step = train.make_step(sketch.plan)
    jax.eval_shape(step, state, *_seen(experiment))
  except ValueError as e:
    raise ValueError(f'config.recipes.{name} on {network}: {e}') from e


def _has_worked(experiment: Experiment, network: str, name: str) -> bool:
  """Tell whether a recipe has a row: what worked once need not be tried."""
  config = experiment.config
  seeds = config.networks[network].seeds or config.seeds
  return any(
    workdir.cell(experiment.folder, cell_name(network, seed, name))
    for seed in seeds
  )


class _Sketch(NamedTuple):
  """A recipe's plan and what it starts from: shapes, and values if need be."""

  plan: Plan
  shapes: Variables
  values: Callable[[], Variables]


def _sketched(experiment: Experiment, network: str, name: str) -> _Sketch:
  """Return a recipe on an untrained network."""
  config, dense = experiment.config, experiment.specs[network]
  item = config.recipes[name]
  if item.start in settings.STARTS:
    spec = compact.rewritten(shallow.cut(dense, item.without), item.compact)
    shapes = train.shapes(spec)
    values: Callable[[], Variables] = functools.partial(
      train.init_variables, spec, 0
    )
  else:
    before = _sketched(experiment, network, item.start)
    state = _begin(experiment, network, before.plan, before.values())
    spec, small = shrink(before.plan.spec, state.variables)
    if item.compact:
      spec, small = compact.compact(spec, small, item.compact, 0)
    shapes, values = jax.eval_shape(lambda: small), lambda: small
  _expect_fewer(spec, item.fewer)
  if item.start == 'folded':
    spec, folded = lower(spec, values())
    shapes, values = jax.eval_shape(lambda: folded), lambda: folded
  plan = plan_of(experiment, network, name, spec, config.finetune, 1)
  return _Sketch(plan, shapes, values)


def _begin(
  experiment: Experiment, network: str, plan: Plan, variables: Variables
) -> State:
  seen = Split(*_seen(experiment))
  stats = evaluation.calibrate(plan.spec, variables, seen)
  asked = probe.probe(
    plan.spec,
    variables,
    seen,
    dense=experiment.specs[network],
    clock=lambda *_: 0.0,
    loss=plan.loss,
  )
  return train.init_state(plan, variables, 0, stats, asked)


def _seen(experiment: Experiment) -> Split:
  return Split(*(part[:8] for part in experiment.data.train))


def _expect_fewer(spec: Spec, count: int) -> None:
  able = list(shallow.removable(spec) or shallow.removable(spec, reshape=True))
  what = f'at most {len(able)} units to go ({", ".join(able)})'
  expect('fewer', count <= len(able), what, count)


def _recipes_of_any_seed(config: ConfigDict, network: str) -> list[str]:
  seeds = config.networks[network].seeds or config.seeds
  found = (settings.recipes_of(config, network, seed) for seed in seeds)
  return list(dict.fromkeys(itertools.chain(*found)))


def plan_of(
  experiment: Experiment,
  network: str,
  name: str,
  spec: Spec,
  chosen: ConfigDict,
  steps: int,
  own: Callable[[str], Teacher] | None = None,
) -> Plan:
  """Return the plan of a run of one recipe.

  Args:
    experiment: The experiment.
    network: Name in the config.
    name: Of the recipe, or `DENSE`.
    spec: The network as the run begins.
    chosen: Settings of the run.
    steps: Its length.
    own: A network of the experiment as a teacher, by default untrained.
  """
  plan = train.plain(spec, chosen, steps)
  if name == DENSE:
    return plan
  item, specs = experiment.config.recipes[name], experiment.specs
  made = recipe.parse(teach.method_of(experiment.config, name))
  plan = plan._replace(method=made, labels=item.labels)
  if not made.asks:
    return plan
  if item.joint:
    other = train.plain(specs[item.teacher[0]], chosen, steps)
    return plan._replace(beside=other)
  own = own or (lambda name: teach.silent(specs[name]))
  size = spec.input_shape
  return plan._replace(teacher=teach.teacher_of(item, network, size, own))


def cells(config: ConfigDict, network: str, seed: int) -> tuple[str, ...]:
  """Return the recipes that a network gets rows for, the dense one first."""
  own = (DENSE,) if config.networks[network].dense else ()
  return own + settings.recipes_of(config, network, seed)


def after(
  config: ConfigDict, network: str, seed: int, done: str
) -> tuple[str, ...]:
  """Return the recipes that can start once one is done, in order."""

  every = settings.recipes_of(config, network, seed)
  return tuple(name for name in every if start_of(config, name) == done)


def start_of(config: ConfigDict, name: str) -> str:
  """Return the recipe that one starts from, or `DENSE`."""
  start = config.recipes[name].start
  return DENSE if start in settings.STARTS else start


def taught_by(config: ConfigDict, name: str) -> tuple[str, ...]:
  """Return the networks that have to be trained for a recipe to begin."""
  item = config.recipes[name]
  if item.joint:
    return ()
  return tuple(x for x in item.teacher if not settings.is_outside(x))


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
    steps_of(experiment, network, r)[1]
    for r in (DENSE, *settings.recipes_of(experiment.config, network, seed))
  )


def steps_of(
  experiment: Experiment, network: str, name: str
) -> tuple[ConfigDict, int]:
  """Return the training settings of a recipe and the steps they make."""
  config = experiment.config
  if name == DENSE:
    chosen = settings.training_of(config, network)
  else:
    chosen = settings.finetuning_of(config, name)
  examples = len(experiment.data.train.y)
  count = batches.steps_per_epoch(examples, chosen.batch_size)
  return chosen, chosen.epochs * count


def reference_of(config: ConfigDict, network: str) -> str:
  """Return the network whose dense form a network is compared with."""
  return config.networks[network].of or network
