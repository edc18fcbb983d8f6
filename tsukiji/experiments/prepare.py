"""Preparation of an experiment: data, networks, and a trace of every recipe.

Errors of a config are raised before any training starts.
"""

import functools
import itertools
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from compress import method
from compress.state import bare
from search import space as spaces
from tsukiji import console
from tsukiji.config import (
  budget,
  fields,
  search_space,
  settings,
  sign_inputs,
  stages,
  validate,
)
from tsukiji.data import datasets
from tsukiji.data.datasets import Data, Split
from tsukiji.deploy.passes import fold
from tsukiji.deploy.passes.shrink import Variables, shrink
from tsukiji.deploy.tsk import kinds
from tsukiji.errors import expect
from tsukiji.experiments import capacity, identity, store
from tsukiji.experiments.jobs import (
  Experiment,
  Length,
  cell_name,
  plan_of,
  specs_of,
)
from tsukiji.experiments.sweep import inert, inside, tuning
from tsukiji.models import compact_filters, drop_layers
from tsukiji.models import net as net_lib
from tsukiji.models.spec import Spec, is_own
from tsukiji.training import probe
from tsukiji.training import step as step_lib
from tsukiji.training.metrics import goal_of
from tsukiji.training.step import Plan, State

MANY = 8  # recipes that take long enough to check for a bar


def prepare(config: ConfigDict, folder: pathlib.Path) -> Experiment:
  """Load the data, build the networks, and trace every method on them.

  Args:
    config: The resolved config.
    folder: The workdir.

  Returns:
    The experiment, ready to run.

  Raises:
    ValueError: If a setting is not valid.
  """
  config = fields.adopt(config)
  validate.check(config)
  if config.distributed:
    jax.distributed.initialize()
  data, digest = load_data(config), identity.digest(config)
  config = inert.pinned(config, data) if budget.limits(config) else config
  experiment = of(config, folder, data)._replace(digest=digest)
  first = experiment._replace(config=stages.first(config))
  if not budget.limits(config) and search_space.varies(first.config):
    tuning.expect_allowed(first)
  return experiment


def of(config: ConfigDict, folder: pathlib.Path, loaded: Data) -> Experiment:
  """Return an experiment on loaded data; see `prepare`.

  Where fields of the config vary, its networks are those of the first of
  `ranges.examples`.
  """
  first, *others = search_space.examples(config)
  moments = datasets.moments(loaded.train.x)
  specs = specs_of(first, loaded, moments)
  experiment = Experiment(first, folder, loaded, specs)
  capacity.check(experiment)
  for other in others:
    found = specs_of(other, loaded, moments)
    capacity.check(Experiment(other, folder, loaded, found))
  _check_labels(first.train.loss, loaded)
  tried: list[ConfigDict] = []
  mixed = stages.recipe_of(config) if budget.limits(config) else ''
  if mixed:
    inside.expect_possible(experiment._replace(config=config))
  if mixed and not (folder / 'trials').exists():
    space = spaces.of(config)
    begin = [
      search_space.with_defaults(space, one)
      for one in tuning.enqueued(experiment._replace(config=config))
    ]
    _try_any(experiment, mixed, (*begin, first, *others))
  todo: list[_Check] = []
  for example in (first, *others):
    fresh = {k for k, item in example.recipes.items() if item not in tried}
    fresh -= {mixed}
    one = experiment._replace(config=example)
    todo += [
      _Check(one, network, name)
      for network in specs
      for name in _recipes_of_any_seed(example, network)
      if name in fresh
    ]
    tried += [example.recipes[name] for name in fresh]
  _try_methods(todo)
  return experiment._replace(config=config)


def fitting(experiment: Experiment) -> tuple[Experiment, list[str]]:
  """Leave out the recipes that do not apply to the networks.

  For networks that a search has found, which the author of the config did not
  know.

  Args:
    experiment: An experiment without ranges; its networks are rebuilt.

  Returns:
    The experiment, and the reason for each recipe that was left out.
  """
  config = experiment.config.copy_and_resolve_references()
  moments = datasets.moments(experiment.data.train.x)
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


def _check_labels(loss: str, loaded: Data) -> None:
  kinds = {False: 'classes', True: 'real numbers'}
  wanted, found = goal_of(loss).real, loaded.train.y.dtype.kind == 'f'
  fix = 'squared_error is for numbers, cross_entropy for classes.'
  what = f'a loss of {kinds[found]}, which {loaded.name} has as labels'
  expect('config.train.loss', wanted == found, what, loss, fix)


def load_data(config: ConfigDict) -> Data:
  """Return the data set of a config."""
  return datasets.load(
    config.dataset.name,
    validation=config.dataset.validation,
    seed=config.dataset.seed,
    folder=config.dataset.folder,
    cache=config.dataset.cache,
  )


class _Check(NamedTuple):
  """A recipe to trace on a network, in an experiment where nothing varies."""

  experiment: Experiment
  network: str
  name: str


def _try_methods(todo: Sequence[_Check]) -> None:
  """Trace one step of recipes, to find errors before training."""
  with console.passing_bars(hidden=len(todo) < MANY) as shown:
    bar = shown.add_task('', total=len(todo))
    for one in todo:
      shown.update(bar, description=f'checking {one.name}')
      _try_method(*one)
      shown.advance(bar)


def _try_any(
  experiment: Experiment, name: str, examples: Sequence[ConfigDict]
) -> None:
  """Trace a recipe until one of its examples works.

  Within a budget, a recipe that a network does not allow is a trial that fails.
  """
  network, errors = settings.searched(experiment.config), []
  moments = datasets.moments(experiment.data.train.x)
  for example in examples:
    specs = specs_of(example, experiment.data, moments)
    one = experiment._replace(config=example, specs=specs)
    try:
      return _try_method(one, network, name)
    except ValueError as e:
      errors.append(e)
  raise errors[0]


def _try_method(experiment: Experiment, network: str, name: str) -> None:
  """Trace one step of a recipe, unless it has a row."""
  if _has_worked(experiment, network, name):
    return
  try:
    sketch = _sketched(experiment, network, name)
    begin = functools.partial(_begin, experiment, network, sketch.plan)
    state = method.traced(begin, sketch.shapes, sketch.values)
    sign_inputs.expect_both(sketch.plan.spec, bare(state.params))
    kinds.expect_known(state.params)
    step = step_lib.make_step(sketch.plan)
    jax.eval_shape(step, state, *_first_examples(experiment))
  except ValueError as e:
    raise ValueError(f'config.recipes.{name} on {network}: {e}') from e


def _has_worked(experiment: Experiment, network: str, name: str) -> bool:
  """Return whether a recipe has a row, so that it need not be traced."""
  config = experiment.config
  seeds = config.networks[network].seeds or config.seeds
  return any(
    store.cell(experiment.folder, cell_name(network, seed, name))
    for seed in seeds
  )


class _Sketch(NamedTuple):
  """The plan of a recipe and its start: shapes, and values on demand."""

  plan: Plan
  shapes: Variables
  values: Callable[[], Variables]


def _sketched(experiment: Experiment, network: str, name: str) -> _Sketch:
  """Return a recipe on an untrained network."""
  config, dense = experiment.config, experiment.specs[network]
  item = config.recipes[name]
  if item.start in settings.STARTS:
    spec = compact_filters.rewritten(
      drop_layers.cut(dense, item.drop_named), item.compact
    )
    shapes = net_lib.variable_shapes(spec)
    values: Callable[[], Variables] = functools.partial(
      net_lib.init_variables, spec, 0
    )
  else:
    before = _sketched(experiment, network, item.start)
    state = _begin(experiment, network, before.plan, before.values())
    spec, small = shrink(before.plan.spec, state.variables)
    if item.compact:
      spec, small = compact_filters.compact(spec, small, item.compact, 0)
    shapes, values = jax.eval_shape(lambda: small), lambda: small
  _expect_layers(spec, item)
  _expect_fewer(spec, item.drop_layers)
  if item.start == 'folded':
    spec, folded = fold.folded(spec, values())
    shapes, values = jax.eval_shape(lambda: folded), lambda: folded
  plan = plan_of(experiment, network, name, spec, Length(config.finetune, 1))
  return _Sketch(plan, shapes, values)


def _begin(
  experiment: Experiment, network: str, plan: Plan, variables: Variables
) -> State:
  split = Split(*_first_examples(experiment))
  network_probe = probe.probe(
    plan.spec,
    variables,
    split,
    dense=experiment.specs[network],
    clock=lambda *_: 0.0,
    loss=plan.loss,
  )
  return step_lib.init_state(plan, variables, 0, network_probe)


def _first_examples(experiment: Experiment) -> Split:
  return Split(*(part[:8] for part in experiment.data.train))


def _expect_layers(spec: Spec, item: ConfigDict) -> None:
  """Raise ValueError if a recipe edits layers and the network has none."""
  edits = {'dropout': item.dropout >= 0, 'drop_named': bool(item.drop_named)}
  for name, edited in edits.items():
    fix = 'Make it an argument of the function, in `sizes`.'
    right = not (edited and is_own(spec))
    expect(name, right, 'a network of the zoo', 'one from outside', fix)


def _expect_fewer(spec: Spec, count: int) -> None:
  able = list(
    drop_layers.removable(spec) or drop_layers.removable(spec, reshape=True)
  )
  what = f'at most {len(able)} units to go ({", ".join(able)})'
  expect('drop_layers', count <= len(able), what, count)


def _recipes_of_any_seed(config: ConfigDict, network: str) -> list[str]:
  seeds = config.networks[network].seeds or config.seeds
  found = (settings.recipes_of(config, network, seed) for seed in seeds)
  return list(dict.fromkeys(itertools.chain(*found)))
