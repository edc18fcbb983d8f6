"""Studies: trials in Optuna's storage, suggested by the designers of `search`.

Any number of processes on any machines can work on one study. Each renews a
lease of its trial; a trial whose lease has expired is given up and repeated. It
is guaranteed that a trial whose worker dies is repeated with the same config,
by one other worker at a time, and counts as infeasible after `DEATHS` deaths;
that exactly `trials` trials are kept, or fewer if a grid is exhausted; and that
a suggestion is a function of the seed, the number of the trial, and the sets of
observations and pending trials. One worker thus reproduces a study bit for bit;
suggestions of several workers agree if their observations do.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optuna
from ml_collections import ConfigDict
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from search import space as spaces
from search import storage as storage_lib
from search.designer import Designer, State, Values
from search.parameter import unit_of
from search.space import Space

LEASE, LIMITS, REASON, AGAIN = 'lease', 'constraints', 'infeasible', 'retry_of'
DIED, SPENT, SPACE = 'deaths', 'spent', 'space'
DEATHS = 5  # of workers, after which a trial is infeasible
WAIT = 1.0  # maximum seconds between two reads of the storage


class Plan(NamedTuple):
  """The specification of a study.

  Attributes:
    name: Name in the storage.
    space: The space of configs.
    designer: Suggests configs.
    objective: Config -> values; may raise.
    trials: Number of trials.
    objectives: Number of values to minimize.
    seed: Seed of the suggestions.
    lease: Seconds after which a worker that is not heard of counts as dead.
    batch_size: Number of trials that a worker asks for at once.
    group: Configs -> values of each, in place of `objective`; without it the
      batch size is 1.
  """

  name: str
  space: Space
  designer: Designer
  objective: Callable[[ConfigDict], Values]
  trials: int
  objectives: int = 1
  seed: int = 0
  lease: float = 60.0
  batch_size: int = 1
  group: Callable[[Sequence[ConfigDict]], list[Values]] | None = None


def opened(plan: Plan, storage: BaseStorage) -> optuna.Study:
  """Return the study of a plan, created if it does not exist.

  Raises:
    ValueError: If a study of this name searches another space, or has another
      number of objectives.
  """
  study = optuna.create_study(
    storage=storage,
    study_name=plan.name,
    directions=['minimize'] * plan.objectives,
    sampler=Sampler(plan.space, plan.designer, plan.seed),
    load_if_exists=True,
  )
  here = [plan.objectives, *map(repr, (plan.space.names, plan.space.leaves))]
  there = study.user_attrs.get(SPACE)
  if there is None:
    study.set_user_attr(SPACE, here)
  elif there != here:
    raise ValueError(
      f'study {plan.name!r}: expected a study of this space, got one of '
      f'{there[0]} objectives over {there[1]:.150}. Choose another name.'
    )
  return study


def work(plan: Plan, storage: BaseStorage) -> None:
  """Run trials until all are finished, by this worker or others.

  A trial that raises an error or has a NaN is infeasible. One that is ended by
  an interrupt or `SystemExit` is left to other workers.
  """
  study = opened(plan, storage)
  limit = plan.trials
  while True:
    look_after(study, plan.lease)
    kept = [t for t in study.get_trials(deepcopy=False) if counts(t)]
    if SPENT in study.user_attrs:
      limit = min(limit, len(kept))
    if sum(t.state.is_finished() for t in kept) >= limit:
      return
    waiting = any(t.state == TrialState.WAITING for t in kept)
    if len(kept) >= limit and not waiting:
      time.sleep(min(plan.lease / 10, WAIT))
    else:
      _run(plan, study)


def look_after(study: optuna.Study, lease: float) -> None:
  """Queue the trials of dead workers again."""
  for trial in study.get_trials(deepcopy=False):
    if trial.state == TrialState.RUNNING and _is_stale(trial, lease):
      _retry(study, trial, died=1)


def begin(space: Space, trial: optuna.Trial) -> ConfigDict:
  """Return the config of a trial, noting whether this is its last attempt."""
  if trial.user_attrs.get(DIED, 0) == DEATHS - 1:
    trial.set_user_attr(REASON, f'its worker died {DEATHS} times')
  return suggested(space, trial)


def _run(plan: Plan, study: optuna.Study) -> None:
  """Ask for trials, evaluate them, and tell their values."""
  trials: list[optuna.Trial] = []
  configs = []
  with contextlib.ExitStack() as leases:
    for _ in range(plan.batch_size if plan.group else 1):
      try:
        trial = _asked(plan, study)
        if trial is None:
          break
        configs.append(begin(plan.space, trial))
      except UpdateFinishedTrialError:  # the lease has expired
        break
      trials.append(trial)
      leases.enter_context(leased(trial, plan.lease))
    found = _found(plan, study, trials, configs)
  for trial, values in zip(trials, found, strict=True):
    _tell(study, trial, values)


def _asked(plan: Plan, study: optuna.Study) -> optuna.Trial | None:
  """Return a new trial, or None if there is none left."""
  trial = study.ask()
  trial.set_user_attr(LEASE, time.time())
  trials = study.get_trials(deepcopy=False)
  surplus = _is_surplus(trials[trial.number], trials, plan.trials)
  # Nothing is suggested by an exhausted grid; repeated trials have a config.
  if surplus or not (AGAIN in trial.user_attrs or trial.relative_params):
    study.tell(trial, state=TrialState.FAIL)
    return None
  return trial


def _found(
  plan: Plan,
  study: optuna.Study,
  trials: Sequence[optuna.Trial],
  configs: Sequence[ConfigDict],
) -> list[Values]:
  """Return the values of each config; on an interrupt, queue all again."""
  if not trials:
    return []
  try:
    return plan.group(configs) if plan.group else [plan.objective(*configs)]
  except Exception as e:  # an objective may raise anything
    for trial in trials:
      _note(trial, REASON, f'{type(e).__name__}: {e}')
    return [Values((math.nan,) * plan.objectives)] * len(trials)
  except BaseException:
    for trial in trials:
      _note(trial, REASON, '')
      _retry(study, study.get_trials(deepcopy=False)[trial.number])
    raise


def _note(trial: optuna.Trial, name: str, value: Any) -> None:
  """Set an attribute of a trial, unless the trial was given up."""
  with contextlib.suppress(UpdateFinishedTrialError):
    trial.set_user_attr(name, value)


def _tell(study: optuna.Study, trial: optuna.Trial, values: Values) -> None:
  """Tell the values of a trial; one without values is infeasible.

  If the lease has expired while this worker was paused, the trial belongs to
  another worker and the values are dropped.
  """
  with contextlib.suppress(ValueError, UpdateFinishedTrialError):
    trial.set_user_attr(LIMITS, list(values.constraints))
    if np.isfinite([*values.objectives, *values.constraints]).all():
      study.tell(trial, list(values.objectives))
      return
    if not trial.user_attrs.get(REASON):
      trial.set_user_attr(REASON, f'found {values!r}')
    study.tell(trial, state=TrialState.FAIL)


@contextlib.contextmanager
def leased(trial: optuna.Trial, lease: float) -> Iterator[None]:
  """Renew the lease of a trial from a thread inside this context."""
  done = threading.Event()

  def renew() -> None:
    while not done.wait(lease / 4):
      with contextlib.suppress(Exception):  # the next renewal may succeed
        trial.set_user_attr(LEASE, time.time())

  thread = threading.Thread(target=renew, daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()


def suggested(space: Space, trial: optuna.Trial) -> ConfigDict:
  """Return the config of a trial, suggested parameter by parameter."""
  unit = np.full(len(space.names), spaces.MIDDLE)
  for i, (name, leaf) in enumerate(zip(space.names, space.leaves, strict=True)):
    if spaces.active(space, unit[None])[0, i]:
      unit[i] = unit_of(leaf, storage_lib.suggest(trial, name, leaf))
  return spaces.to_config(space, unit)


class Sampler(optuna.samplers.BaseSampler):
  """A designer as an Optuna sampler."""

  def __init__(self, space: Space, designer: Designer, seed: int = 0) -> None:
    self.space, self.designer, self.seed = space, designer, seed

  def infer_relative_search_space(
    self, study: optuna.Study, trial: FrozenTrial
  ) -> dict[str, BaseDistribution]:
    """Return all parameters, active or not."""
    pairs = zip(self.space.names, self.space.leaves, strict=True)
    return {name: storage_lib.distribution(leaf) for name, leaf in pairs}

  def sample_relative(
    self,
    study: optuna.Study,
    trial: FrozenTrial,
    search_space: dict[str, BaseDistribution],
  ) -> dict[str, Any]:
    """Return the active parameters of a suggestion."""
    key = jax.random.key(self.seed)
    trials = [
      t for t in study.get_trials(deepcopy=False) if t.number != trial.number
    ]
    m = len(study.directions)
    state = known(self.space, self.designer, key, trials, m)
    at = jax.random.fold_in(key, trial.number)
    try:
      config, _ = self.designer.ask(state, at)
    except StopIteration:  # a grid is exhausted
      study.set_user_attr(SPENT, True)
      return {}
    return storage_lib.params(self.space, config)

  def sample_independent(
    self,
    study: optuna.Study,
    trial: FrozenTrial,
    param_name: str,
    param_distribution: BaseDistribution,
  ) -> Any:
    """Sample parameters that are missing in a queued config."""
    words = [self.seed, trial.number, *param_name.encode()]
    seed = int(np.random.default_rng(words).integers(1 << 31))
    return optuna.samplers.RandomSampler(seed).sample_independent(
      study, trial, param_name, param_distribution
    )


def known(
  space: Space,
  designer: Designer,
  key: jax.Array,
  trials: list[FrozenTrial],
  objectives: int,
) -> State:
  """Return the state with some trials, finished and running."""
  state = designer.init(key)
  for trial in trials:
    if not counts(trial) or not trial.params:
      continue
    config = storage_lib.config_of(space, trial)
    if not trial.state.is_finished():
      state = designer.wait(state, config)
      continue
    values = Values(
      tuple(trial.values or [math.nan] * objectives),
      tuple(trial.user_attrs.get(LIMITS, ())),
      trial.duration.total_seconds() if trial.duration else math.nan,
    )
    state = designer.tell(state, config, values)
  return state


def counts(trial: FrozenTrial) -> bool:
  """Return whether a trial is neither given up nor surplus."""
  failed = trial.state == TrialState.FAIL
  return not failed or bool(trial.user_attrs.get(REASON))


def _is_stale(trial: FrozenTrial, lease: float) -> bool:
  begun = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
  return time.time() > trial.user_attrs.get(LEASE, begun) + lease


def _is_surplus(
  mine: FrozenTrial, trials: list[FrozenTrial], limit: int
) -> bool:
  """Return whether a trial is surplus, or a second repetition of another."""
  source = mine.user_attrs.get(AGAIN)
  earlier = [
    t
    for t in trials
    if counts(t) and t.number < mine.number and t.number != source
  ]
  twice = source is not None and any(
    t.user_attrs.get(AGAIN) == source for t in earlier
  )
  return twice or len(earlier) >= limit


def _retry(study: optuna.Study, trial: FrozenTrial, died: int = 0) -> None:
  """Queue the config of a trial for other workers, and give the trial up.

  In this order nothing is lost if this worker dies in between; a config that is
  queued twice is dropped when it is asked for.
  """
  if trial.params and not trial.user_attrs.get(REASON):
    deaths = trial.user_attrs.get(DIED, 0) + died
    known = {AGAIN: trial.number, DIED: deaths}
    study.enqueue_trial(trial.params, user_attrs=known)
  with contextlib.suppress(ValueError, UpdateFinishedTrialError):
    study.tell(trial.number, state=TrialState.FAIL)
