"""Trials of a search: configs are trained for a few epochs and measured."""

import contextlib
import fcntl
import functools
import json
import math
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from search.designer import Values
from search.space import Space
from tsukiji import interrupt
from tsukiji.config import budget, search_space, settings
from tsukiji.deploy import artefact
from tsukiji.deploy.artefact import Artefact
from tsukiji.deploy.c import footprint
from tsukiji.deploy.c.source import source
from tsukiji.deploy.tsk import pack
from tsukiji.experiments import cell, identity, jobs, row
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.row import Trained
from tsukiji.measure import cost, energy, latency
from tsukiji.models import net as net_lib
from tsukiji.models.spec import Dropout, Spec, Standardise, walk, with_dropout
from tsukiji.training import evaluate, vmapped
from tsukiji.training.loop import OnEpoch, ignore
from tsukiji.training.vmapped import Member


def is_allowed(
  experiment: Experiment, space: Space, config: ConfigDict
) -> bool:
  """Return whether the network of a config is within the limits.

  Args:
    experiment: The search, with `config.search.limits`.
    space: Of the config.
    config: A suggestion.

  Returns:
    Whether it may be tried; computed without training.
  """
  most = experiment.config.search.limits
  wanted = {name: value for name, value in most.items() if value}
  try:
    costs = known(
      experiment, search_space.with_defaults(space, config), tuple(wanted)
    )
  except ValueError:  # sizes that do not make a network
    return False
  return all(costs[name] <= value for name, value in wanted.items())


def known(
  experiment: Experiment, config: ConfigDict, names: tuple[str, ...]
) -> dict[str, int]:
  """Return the costs of the searched network of a config, before training.

  Args:
    experiment: The data and the networks.
    config: A config without ranges.
    names: Some of `settings.KNOWN`.

  Returns:
    By name: multiplications of an example, numbers and bytes of the file of
    the dense network. Trained weights that are exactly 0 may make it shorter.

  Raises:
    ValueError: If its sizes do not make a network.
  """
  spec = spec_of(experiment, config)
  found = {'macs': cost.macs(spec)} if 'macs' in names else {}
  if {'bytes', 'params'} & {*names}:
    title = jobs.cell_name(spec.name, experiment.config.seeds[0], jobs.DENSE)
    meta = json.dumps(row.meta_of(experiment.data, title))
    found |= _size(spec, meta)
  return found


@functools.cache
def _size(spec: Spec, meta: str) -> dict[str, int]:
  """Pack untrained weights: files of float weights are equally long."""
  drawn = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: np.float32(drawn.uniform(0.5, 1.0, x.shape)),
    net_lib.variable_shapes(spec),
  )
  blob = row.packed(Trained(spec, variables, 0.0), json.loads(meta))
  params = pack.unpack(blob).variables['params']
  return {'bytes': len(blob), 'params': cost.params(params)}


def spec_of(experiment: Experiment, config: ConfigDict) -> Spec:
  """Build the searched network of a config."""
  name = settings.searched(config)
  first = experiment.specs[name].layers[0]
  assert isinstance(first, Standardise)  # as the zoo builds them
  only = ConfigDict({'networks': {name: config.networks[name]}})
  moments = (first.mean, first.std)
  return jobs.specs_of(only, experiment.data, moments)[name]


def shortened(experiment: Experiment, config: ConfigDict) -> Experiment:
  """Return the experiment of a trial: one network, with the longest schedule.

  Its name identifies the config, so that a repeated or longer trial resumes
  from its checkpoint. It has its own folder.
  """
  name, search = settings.searched(config), experiment.config.search
  item = config.networks[name].copy_and_resolve_references()
  item.epochs = search.epochs or item.epochs
  item.recipes, item.of = (), ''
  short = settings.default('train')
  short.dataset, short.train = config.dataset, config.train
  short.seeds = (experiment.config.seeds[0],)
  short.networks = {name: item}
  title = f'trial_{identity.digest(short)}'
  short.networks = {title: item}
  specs = {title: spec_of(experiment, config)}
  return Experiment(short, experiment.folder / 'trials', experiment.data, specs)


def run(
  experiment: Experiment,
  space: Space,
  config: ConfigDict,
  on_epoch: OnEpoch = ignore,
) -> Values:
  """Train the network of a suggestion and return its objectives.

  Args:
    experiment: The search.
    space: Of the config.
    config: A suggestion.
    on_epoch: See `loop.fit`.

  Returns:
    The objectives of `config.search`, an error in place of an accuracy.

  Raises:
    FloatingPointError: If the loss is not finite.
    interrupt.Stopped: On SIGINT or SIGTERM; the trial has a checkpoint.
  """
  interrupt.stop_if_requested()
  config = search_space.with_defaults(space, config)
  short, done = trained(experiment, config, on_epoch)
  return _measured(experiment, config, short, done)


def trained(
  experiment: Experiment, config: ConfigDict, on_epoch: OnEpoch = ignore
) -> tuple[Experiment, Trained]:
  """Train the network of a trial, resuming from its checkpoint.

  Args:
    experiment: The search.
    config: The config of the trial, without ranges.
    on_epoch: See `loop.fit`.

  Returns:
    The experiment of the trial, see `shortened`, and its network.
  """
  short = shortened(experiment, config)
  (title,) = short.specs
  with exclusive(short.folder / f'{title}.lock'):
    seed, epochs = short.config.seeds[0], config.search.epochs
    return short, cell.trained(
      short, title, seed, epochs=epochs, on_epoch=on_epoch
    )


def run_group(
  experiment: Experiment, space: Space, configs: Sequence[ConfigDict]
) -> list[Values]:
  """Train several suggestions, in one program if their shapes agree.

  They are trained in turn if that is faster, as for convolutions on a CPU, or
  if a run may end early; see `vmapped`.

  Args:
    experiment: The search.
    space: Of the configs.
    configs: Suggestions.

  Returns:
    The result of `run` for each; NaNs if the loss was not finite.

  Raises:
    interrupt.Stopped: On SIGINT or SIGTERM; trials in one program start again.
  """
  found: dict[int, Values] = {}
  resolved = [search_space.with_defaults(space, config) for config in configs]
  shorts = [shortened(experiment, config) for config in resolved]
  for (_, steps), places in _alike(shorts).items():
    (spec,) = shorts[places[0]].specs.values()
    members = [_member(shorts[i]) for i in places]
    early = any(member.settings.patience for member in members)
    if len(places) == 1 or early or not vmapped.is_mapped(spec):
      found |= {i: _run_finite(experiment, space, configs[i]) for i in places}
      continue
    interrupt.stop_if_requested()
    trained = vmapped.fit(spec, members, experiment.data.train, steps)
    for i, variables in zip(places, trained, strict=True):
      (own,) = shorts[i].specs.values()
      done = Trained(own, variables, 0.0)
      found[i] = _measured(experiment, resolved[i], shorts[i], done)
  return [found[i] for i in range(len(configs))]


def _alike(shorts: Sequence[Experiment]) -> dict[tuple[Spec, int], list[int]]:
  """Return the indices of trials by network, except its dropout, and steps."""
  found: dict[tuple[Spec, int], list[int]] = {}
  for i, short in enumerate(shorts):
    ((title, spec),) = short.specs.items()
    _, steps = jobs.steps_of(short, title, jobs.DENSE)
    found.setdefault((with_dropout(spec, 0.0), steps), []).append(i)
  return found


def _member(short: Experiment) -> Member:
  ((title, spec),) = short.specs.items()
  chosen, _ = jobs.steps_of(short, title, jobs.DENSE)
  # The zoo gives all dropouts of a network one rate.
  rates = [s.layer.rate for s in walk(spec) if isinstance(s.layer, Dropout)]
  rate = rates[0] if rates else None
  return Member(chosen, short.config.seeds[0], rate)


def _run_finite(
  experiment: Experiment, space: Space, config: ConfigDict
) -> Values:
  try:
    return run(experiment, space, config)
  except FloatingPointError:
    return Values((math.nan,) * len(experiment.config.search.objectives))


def _measured(
  experiment: Experiment, config: ConfigDict, short: Experiment, done: Trained
) -> Values:
  """Return the objectives of a trained network, NaNs if it diverged."""
  names = experiment.config.search.objectives
  (title,) = short.specs
  loss = experiment.config.train.loss
  score = evaluate.evaluate(
    done.spec, done.variables, experiment.data.validation, loss=loss
  )
  error = error_of(score)
  if not math.isfinite(error):
    return Values((math.nan,) * len(names))
  found = {'val_accuracy': error, **known(experiment, config, tuple(names))}
  if {*settings.FOUND} & {*names}:
    meta = row.meta_of(short.data, title)
    # What is known before training holds after it.
    found = {**shipped(experiment, done, meta).costs, **found}
  return Values(tuple(found[name] for name in names))


def error_of(score: evaluate.Score) -> float:
  """Return the error of a network; NaN where the loss is not finite."""
  return 1 - score.accuracy if math.isfinite(score.loss) else math.nan


class Shipped(NamedTuple):
  """A packed network, read from its file, and its costs."""

  artefact: Artefact
  costs: dict[str, float]


def shipped(
  experiment: Experiment, done: Trained, meta: dict[str, Any]
) -> Shipped:
  """Pack a network, read the file, and measure it.

  Args:
    experiment: Its `config.search.objectives` may include the latency.
    done: The trained network.
    meta: See `row.meta_of`.

  Returns:
    The network, and of `settings.OBJECTIVES` all but the accuracy; the median
    latency at batch 1, in ms, if it is an objective or has a limit: of the
    dense network of the experiment, measured once, over the speed-up against
    it.
  """
  config = experiment.config
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'trial.tsk'
    artefact.save(path, row.packed(done, meta))
    read = artefact.load(path)
    params = read.variables['params']
    costs: dict[str, float] = {
      'bytes': read.bytes,
      'params': cost.params(params),
      'macs': cost.macs(read.network, params),
      'energy_uj': energy.model(read.network, params, read.bytes).total,
    }
    wanted = {*config.search.objectives, *budget.limits(config)}
    if {'flash', 'ram'} & wanted:
      costs |= footprint.costs(source(read.network, read.variables))
    if 'latency_ms' in wanted:
      # One at a time; the last core of a worker, which waits here, is idle.
      with exclusive(experiment.folder / 'trials' / 'reference.lock'):
        costs['latency_ms'] = latency.milliseconds(
          path,
          _reference(experiment),
          repeats=config.measure.repeats,
          engines=list(config.measure.engines),
          core=latency.cores()[-1],
        )
  return Shipped(read, costs)


def _reference(experiment: Experiment) -> pathlib.Path:
  """Return the packed network that trials are timed against, untrained."""
  path = experiment.folder / 'trials' / 'reference.tsk'
  if not path.exists():
    spec = experiment.specs[settings.searched(experiment.config)]
    variables = net_lib.init_variables(spec, 0)
    meta = row.meta_of(experiment.data, jobs.DENSE)
    artefact.save(path, row.packed(Trained(spec, variables, 0.0), meta))
  return path


@contextlib.contextmanager
def exclusive(path: pathlib.Path) -> Iterator[None]:
  """Lock a file, waiting for its release; a process that dies releases it."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield
