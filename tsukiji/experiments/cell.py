"""One network and seed: training, and compression by each of its recipes."""

import dataclasses
import functools
import types
from collections.abc import Mapping
from typing import NamedTuple

from ml_collections import ConfigDict

from compress import tree
from tsukiji.config import settings
from tsukiji.data.datasets import Data, Split
from tsukiji.deploy import artefact
from tsukiji.deploy.artefact import Artefact
from tsukiji.deploy.passes.fold import folded
from tsukiji.deploy.passes.lower import Variables, lower
from tsukiji.deploy.passes.shrink import shrink
from tsukiji.experiments import jobs, row, store
from tsukiji.experiments.row import Trained
from tsukiji.measure import clock
from tsukiji.models import compact_filters, drop_layers
from tsukiji.models import net as net_lib
from tsukiji.models import spec as sp
from tsukiji.models.spec import Spec
from tsukiji.training import evaluate, linear_probe, probe, step, teacher
from tsukiji.training.linear_probe import Reading
from tsukiji.training.loop import OnEpoch, OnProgress, Run, fit, ignore
from tsukiji.training.step import Plan, State
from tsukiji.training.teacher import Teacher

NONE: Mapping[str, Variables] = types.MappingProxyType({})


def run_network(
  experiment: jobs.Experiment,
  network: str,
  seed: int,
  on_progress: OnProgress,
) -> None:
  """Train one network with one seed and compress it by all its recipes.

  Args:
    experiment: The experiment.
    network: Name in the config.
    seed: Seed of the initial weights, the order and the noise.
    on_progress: See `fit.fit`.
  """
  run_dense(experiment, network, seed, on_progress)
  for name in settings.recipes_of(experiment.config, network, seed):
    run_recipe(experiment, network, seed, name, on_progress)


def run_dense(
  experiment: jobs.Experiment, network: str, seed: int, on_progress: OnProgress
) -> None:
  """Train the network that all recipes start from; see `run_network`."""
  done = trained(experiment, network, seed, on_progress)
  title = jobs.cell_name(network, seed, jobs.DENSE)
  wanted = jobs.DENSE in jobs.cells(experiment.config, network, seed)
  if wanted and not store.cell(experiment.folder, title):
    made = row.finish(experiment, network, seed, jobs.DENSE, done)
    store.write_cell(experiment.folder, made)


def trained(
  experiment: jobs.Experiment,
  network: str,
  seed: int,
  on_progress: OnProgress = ignore,
  *,
  epochs: int = 0,
  on_epoch: OnEpoch = ignore,
) -> Trained:
  """Return a trained network, without writing a row; see `run_network`.

  Args:
    experiment: The experiment.
    network: Name in the config.
    seed: As `run_network`.
    on_progress: See `fit.fit`.
    epochs: Number of epochs after which to pause; 0 for never.
    on_epoch: See `fit.fit`.
  """
  job = network, seed
  return _fit(experiment, job, jobs.DENSE, NONE, on_progress, epochs, on_epoch)


def run_recipe(
  experiment: jobs.Experiment,
  network: str,
  seed: int,
  name: str,
  on_progress: OnProgress,
) -> None:
  """Compress a network that `run_dense` has trained; see `run_network`."""
  title = jobs.cell_name(network, seed, name)
  if store.cell(experiment.folder, title):
    on_progress(title, jobs.steps_of(experiment, network, name)[1])
    return
  dense = _fit(experiment, (network, seed), jobs.DENSE, NONE)
  done = compressed(
    experiment, network, seed, name, dense.variables, on_progress
  )
  made = row.finish(experiment, network, seed, name, done)
  store.write_cell(experiment.folder, made)


def compressed(
  experiment: jobs.Experiment,
  network: str,
  seed: int,
  name: str,
  dense: Variables,
  on_progress: OnProgress = ignore,
  on_epoch: OnEpoch = ignore,
  known: Mapping[str, Variables] = NONE,
) -> Trained:
  """Return a network compressed by a recipe, without writing a row.

  Args:
    experiment: The experiment.
    network: Name in the config.
    seed: As `run_network`.
    name: Of the recipe.
    dense: The trained network.
    on_progress: See `fit.fit`.
    on_epoch: See `fit.fit`.
    known: Trained teachers by name; others are trained.
  """
  job, own = (network, seed), {**known, network: dense}
  return _fit(experiment, job, name, own, on_progress, 0, on_epoch)


def _fit(
  experiment: jobs.Experiment,
  job: jobs.Job,
  name: str,
  known: Mapping[str, Variables],
  on_progress: OnProgress = ignore,
  epochs: int = 0,
  on_epoch: OnEpoch = ignore,
) -> Trained:
  """Train a dense network from scratch, or fine-tune it under a recipe.

  Args:
    experiment: The experiment.
    job: The network and the seed.
    name: Of the recipe, or `jobs.DENSE`.
    known: Networks that are trained, by name; of a recipe, its own.
    on_progress: See `fit.fit`.
    epochs: See `trained`.
    on_epoch: See `fit.fit`.
  """
  network, seed = job
  spec, split = experiment.specs[network], experiment.data.train
  length = jobs.steps_of(experiment, network, name)
  chosen, steps = length
  network_probe, own, bits = None, None, 0
  if name == jobs.DENSE:
    begun = Begun(spec, net_lib.init_variables(spec, seed))
  else:
    item, dense = experiment.config.recipes[name], known[network]
    bits = item.float_bits
    own = functools.partial(_own, experiment, seed, {**known})
    begun = _begun(experiment, network, seed, item, dense)
    network_probe = probe.probe(
      begun.spec,
      begun.variables,
      split,
      dense=spec,
      clock=clock.cached(
        experiment.folder / 'times',
        functools.partial(_lowered, spec, dense),
        experiment.config.measure.engines,
      ),
      loss=chosen.loss,
    )
  plan = jobs.plan_of(experiment, network, name, begun.spec, length, own)
  start = step.init_state(plan, begun.variables, seed, network_probe)
  plan, start = _shrunk(plan, start, split)
  if not steps:  # post-training compression
    return Trained(plan.spec, start.variables, 0.0, begun.readings, bits)
  title = jobs.cell_name(network, seed, name)
  teacher_outputs = teacher.precomputed(plan, chosen, split)
  run = Run(
    title, plan, start, experiment.data, chosen, seed, teacher_outputs, epochs
  )
  variables, seconds = fit(run, experiment.folder, on_progress, on_epoch)
  return Trained(plan.spec, variables, seconds, begun.readings, bits)


def _lowered(spec: Spec, variables: Variables) -> Artefact:
  """Return a network in its deployed form."""
  return artefact.of(*lower(spec, variables))


def _own(
  experiment: jobs.Experiment,
  seed: int,
  known: dict[str, Variables],
  name: str,
) -> Teacher:
  """Return a dense network as a teacher, trained if it is not yet."""
  if name not in known:
    done = _fit(experiment, (name, seed), jobs.DENSE, NONE)
    known[name] = done.variables
  return evaluate.predictor(experiment.specs[name], known[name])


class Begun(NamedTuple):
  """The start of a run; see `row.Trained`."""

  spec: Spec
  variables: Variables
  readings: tuple[Reading, ...] = ()


def _begun(
  experiment: jobs.Experiment,
  network: str,
  seed: int,
  item: ConfigDict,
  dense: Variables,
) -> Begun:
  """Return the start of a recipe: the dense network or `recipe.start`.

  A folded network has its norms in its weights before those meet a grid, and
  its running statistics stay as they are: with a step a tensor as well, what
  is trained is what integers compute (Jacob+ 2018, arXiv 1712.05877, section
  3.2). Behind the grid, `lower` would fold them into a step a channel; norms
  whose statistics move in training are folded by `quantize.fold_batch_norm`.
  """
  spec, variables = experiment.specs[network], dense
  if item.start not in settings.STARTS:
    own = {network: dense}
    done = _fit(experiment, (network, seed), item.start, own)
    spec, variables = done.spec, done.variables
  if item.dropout >= 0:
    spec = sp.with_dropout(spec, item.dropout)
  # Trained weights on_progress what adds least, even to a network drawn anew.
  names, found = _going(experiment.data, item, spec, variables)
  if item.start == 'fresh':
    variables = net_lib.init_variables(spec, seed)
  if names:
    spec, variables, *_ = drop_layers.drop(spec, variables, names, seed)
  if item.compact:
    spec, variables = compact_filters.compact(
      spec, variables, item.compact, seed
    )
    if item.start == 'fresh':
      variables = net_lib.init_variables(spec, seed)
  if item.start == 'folded':
    spec, variables = folded(spec, variables)
  return Begun(spec, variables, found)


def _going(
  data: Data, item: ConfigDict, spec: Spec, variables: Variables
) -> tuple[tuple[str, ...], tuple[Reading, ...]]:
  """Return the units that a recipe removes, by name or by number."""
  names = tuple(item.drop_named)
  if not item.drop_layers:
    return names, ()
  found = linear_probe.readings(spec, variables, data.train, data.validation)
  names += drop_layers.choose(
    spec,
    linear_probe.gains(found),
    count=item.drop_layers,
    reshape=not drop_layers.removable(spec),
  )
  return names, found


def _shrunk(plan: Plan, start: State, split: Split) -> tuple[Plan, State]:
  """Remove pruned channels before training, which is then faster."""
  spec, small = shrink(plan.spec, start.variables)
  if spec == plan.spec:
    return plan, start
  small = evaluate.recalibrate(spec, small, split)
  trainable, _ = tree.split(small['params'])
  opt = plan.tx.init(trainable)
  return plan._replace(spec=spec), dataclasses.replace(start, opt=opt, **small)
