"""Studies: trials in Optuna's storage, suggested by the designers of `search`.

One driver asks and tells; who computes the trials is its affair. A trial is
stored with its config before it runs. Those that a driver left running when it
was killed are the first that its successor gets, with their numbers and
configs: no trial is lost or doubled. Exactly `Plan.trials` trials are kept, or
fewer if a grid is exhausted. A suggestion is a function of the seed, the number
of the trial, and the sets of observations and pending trials; one trial at a
time thus reproduces a study bit for bit.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import optuna
from ml_collections import ConfigDict
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from search import storage as storage_lib
from search.designer import Designer, State, Values
from search.space import Space

LIMITS, REASON, DIED = 'constraints', 'infeasible', 'deaths'  # of a trial
SPACE, DRIVER = 'space', 'driver'  # of a study
DEATHS = 10  # of drivers that ran a trial, after which it is infeasible


class Plan(NamedTuple):
  """The specification of a study.

  Attributes:
    name: Name in the storage.
    space: The space of configs.
    designer: Suggests configs.
    trials: Number of trials.
    objectives: Number of values to minimize.
    seed: Seed of the suggestions.
    first: Configs to try before the designer is asked; see `space.placed`.
    pruner: Ends trials by what `pruning.report` is told; None for never.
  """

  name: str
  space: Space
  designer: Designer
  trials: int
  objectives: int = 1
  seed: int = 0
  first: tuple[ConfigDict, ...] = ()
  pruner: BasePruner | None = None


class Trial(NamedTuple):
  """A trial that runs.

  Attributes:
    id: Its key in the storage.
    number: Its place in the study, from 0.
    config: What it tries.
    begun: When, in seconds since 1970.
  """

  id: int
  number: int
  config: ConfigDict
  begun: float


class Study(NamedTuple):
  """A study as its driver knows it.

  Attributes:
    plan: Its specification.
    storage: Where its trials are.
    id: Its key in the storage.
    state: The state of the designer.
    asked: Number of trials in the storage.
    kept: Number of those that count.
    again: Trials that a killed driver left running.
    spent: Whether a grid is exhausted.
  """

  plan: Plan
  storage: BaseStorage
  id: int
  state: State
  asked: int
  kept: int
  again: tuple[Trial, ...] = ()
  spent: bool = False


def opened(plan: Plan, storage: BaseStorage) -> int:
  """Return the key of the study of a plan, created if it does not exist.

  Raises:
    ValueError: If a study of this name searches another space, or has another
      number of objectives.
  """
  study = optuna.create_study(
    storage=storage,
    study_name=plan.name,
    directions=['minimize'] * plan.objectives,
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
  return storage.get_study_id_from_name(plan.name)


def trials(plan: Plan, storage: BaseStorage) -> list[FrozenTrial]:
  """Return the trials of a study that count, in order."""
  found = storage.get_all_trials(opened(plan, storage), deepcopy=False)
  return [trial for trial in found if counts(trial)]


def begun(plan: Plan, storage: BaseStorage, driver: str = '') -> Study:
  """Return the study of a plan, to ask and tell.

  Args:
    plan: Its specification.
    storage: Where its trials are.
    driver: Name of the driver, the same when it is started again; '' for one
      whose storage no other driver uses.

  Raises:
    ValueError: If another driver has trials that run, or `opened` raises it.
  """
  key = opened(plan, storage)
  _expect_driver(plan, storage, key, driver)
  found = storage.get_all_trials(key, deepcopy=False)
  again = []
  for trial in found:
    if not trial.state.is_finished():
      again += _repeated(plan, storage, key, trial)
  found = storage.get_all_trials(key, deepcopy=False)
  state = known(plan, found)
  kept = sum(map(counts, found))
  return Study(plan, storage, key, state, len(found), kept, tuple(again))


def _expect_driver(
  plan: Plan, storage: BaseStorage, key: int, driver: str
) -> None:
  there = storage.get_study_user_attrs(key).get(DRIVER, '')
  if there == driver:
    return
  found = storage.get_all_trials(key, deepcopy=False)
  if there and any(t.state == TrialState.RUNNING for t in found):
    raise ValueError(
      f'study {plan.name:.60}: expected no other driver, got trials that run '
      f'under {there:.80}. Wait for it; if it is dead, run its command there '
      'again, or choose another storage.'
    )
  storage.set_study_user_attr(key, DRIVER, driver)


def _repeated(
  plan: Plan, storage: BaseStorage, key: int, trial: FrozenTrial
) -> list[Trial]:
  """Return a trial that was left unfinished, or give it up."""
  id = storage.get_trial_id_from_study_id_trial_number(key, trial.number)
  deaths = trial.user_attrs.get(DIED, 0) + 1
  storage.set_trial_user_attr(id, DIED, deaths)
  if deaths == DEATHS:
    storage.set_trial_user_attr(id, REASON, f'its driver died {DEATHS} times')
  if deaths >= DEATHS or not trial.params:
    storage.set_trial_state_values(id, TrialState.FAIL)
    return []
  started = trial.datetime_start
  begun = started.timestamp() if started else time.time()
  config = storage_lib.config_of(plan.space, trial)
  return [Trial(id, trial.number, config, begun)]


def known(plan: Plan, found: list[FrozenTrial]) -> State:
  """Return the state of the designer with some trials, finished and running."""
  state = plan.designer.init(jax.random.key(plan.seed))
  for trial in found:
    if not counts(trial) or not trial.params:
      continue
    config = storage_lib.config_of(plan.space, trial)
    state = plan.designer.wait(state, config)
    if trial.state.is_finished():
      values = Values(
        tuple(trial.values or [math.nan] * plan.objectives),
        tuple(trial.user_attrs.get(LIMITS, ())),
        trial.duration.total_seconds() if trial.duration else math.nan,
      )
      state = plan.designer.tell(state, config, values)
  return state


def is_complete(trial: FrozenTrial) -> bool:
  """Return whether a trial was trained in full, and found something."""
  return trial.state == TrialState.COMPLETE


def counts(trial: FrozenTrial) -> bool:
  """Return whether a trial was not given up."""
  failed = trial.state == TrialState.FAIL
  return not failed or bool(trial.user_attrs.get(REASON))


def ask(study: Study) -> tuple[Study, Trial | None]:
  """Return the next trial, which is stored as running.

  Args:
    study: What is known.

  Returns:
    The study with it pending, and the trial; None if none is left.
  """
  plan, storage = study.plan, study.storage
  if study.again:
    return study._replace(again=study.again[1:]), study.again[0]
  if study.spent or study.kept >= plan.trials:
    return study, None
  try:
    config = _next(study)
  except StopIteration:  # a grid is exhausted
    return study._replace(spent=True), None
  params = storage_lib.params(plan.space, config)
  leaves = dict(zip(plan.space.names, plan.space.leaves, strict=True))
  stored = optuna.trial.create_trial(
    state=TrialState.RUNNING,
    params=params,
    distributions={n: storage_lib.distribution(leaves[n]) for n in params},
  )
  id = storage.create_new_trial(study.id, stored)
  # As it will be read again, to the last bit.
  config = storage_lib.config_of(plan.space, stored)
  trial = Trial(id, study.asked, config, time.time())
  return study._replace(
    state=plan.designer.wait(study.state, config),
    asked=study.asked + 1,
    kept=study.kept + 1,
  ), trial


def _next(study: Study) -> ConfigDict:
  """Return a config to try: one of the first, or what the designer says."""
  plan = study.plan
  if study.asked < len(plan.first):
    return plan.first[study.asked]
  key = jax.random.fold_in(jax.random.key(plan.seed), study.asked)
  return plan.designer.ask(study.state, key)[0]


def tell(
  study: Study, trial: Trial, values: Values | None, reason: str = ''
) -> Study:
  """Store the values of a trial.

  Args:
    study: What is known.
    trial: What `ask` has returned.
    values: What it has found; None for nothing. One with a value that is not
      finite is infeasible.
    reason: Why it found nothing.

  Returns:
    The study with them observed.
  """
  storage, plan = study.storage, study.plan
  found = values or Values((math.nan,) * plan.objectives)
  fine = np.isfinite([*found.objectives, *found.constraints]).all()
  if found.constraints:
    storage.set_trial_user_attr(trial.id, LIMITS, [*found.constraints])
  if fine:
    state, stored = TrialState.COMPLETE, list(found.objectives)
    storage.set_trial_state_values(trial.id, state, stored)
  else:
    storage.set_trial_user_attr(trial.id, REASON, reason or f'found {values!r}')
    storage.set_trial_state_values(trial.id, TrialState.FAIL)
    found = found._replace(objectives=(math.nan,) * plan.objectives)
  found = found._replace(seconds=time.time() - trial.begun)
  return study._replace(
    state=plan.designer.tell(study.state, trial.config, found)
  )


def reason_of(error: BaseException) -> str:
  """Return why a trial found nothing."""
  return f'{type(error).__name__}: {error}'


def run(
  plan: Plan,
  storage: BaseStorage,
  objective: Callable[[ConfigDict], Values],
  driver: str = '',
) -> Study:
  """Run the trials of a study here, one after the other.

  Args:
    plan: Its specification.
    storage: Where its trials are; finished ones are not repeated.
    objective: Config -> values. A trial that raises an Exception is infeasible.
    driver: See `begun`.

  Returns:
    The study.
  """
  study, trial = ask(begun(plan, storage, driver))
  while trial is not None:
    try:
      values, reason = objective(trial.config), ''
    except Exception as e:  # an objective may raise anything
      values, reason = None, reason_of(e)
    study, trial = ask(tell(study, trial, values, reason))
  return study
