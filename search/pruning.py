"""Pruning of trials: those that look bad behind an epoch end there.

The rules are Optuna's; designers are told the last error of a pruned trial.
"""

import math
import time
from collections.abc import Callable

import optuna
from optuna.pruners import (
  BasePruner,
  HyperbandPruner,
  MedianPruner,
  SuccessiveHalvingPruner,
)
from optuna.trial import TrialState

from search.designer import Values
from search.study import Study, Trial

PRUNERS: dict[str, Callable[[int, int, int], BasePruner]] = {
  'halving': lambda low, high, eta: SuccessiveHalvingPruner(low, eta),
  'hyperband': HyperbandPruner,
  'median': lambda low, high, eta: MedianPruner(n_warmup_steps=low),
}


def pruner(name: str, low: int, high: int, eta: int = 3) -> BasePruner:
  """Return a rule that ends trials.

  Args:
    name: 'median' (Golovin+ 2017, section 3.1.2): whose best error is above the
      median of the others at that epoch; 'halving' (Li+ 2020, arXiv 1810.05934,
      algorithm 2): who is not among the best of `eta` behind `low`,
      `low * eta`, ... epochs; 'hyperband' (Li+ 2018, JMLR 18): halving that
      begins at several of these, by the number of the trial.
    low: Epochs before which no trial ends.
    high: Epochs of a full trial.
    eta: One of so many goes on.

  Returns:
    The rule.
  """
  return PRUNERS[name](low, high, eta)


def report(study: Study, trial: Trial, step: int, value: float) -> bool:
  """Store a value on the way, which Optuna's dashboard draws along the steps.

  Args:
    study: What is known.
    trial: What `ask` has returned.
    step: As the epoch.
    value: To be minimized; one that is not finite is left out.

  Returns:
    Whether the trial should end here; see `prune`.
  """
  plan, storage = study.plan, study.storage
  if not math.isfinite(value) or plan.objectives != 1:
    return False
  storage.set_trial_intermediate_value(trial.id, step, value)
  if plan.pruner is None:
    return False
  stored = optuna.load_study(study_name=plan.name, storage=storage)
  return plan.pruner.prune(stored, storage.get_trial(trial.id))


def prune(study: Study, trial: Trial) -> Study:
  """Store that a trial was ended: its value is the last that was reported.

  Args:
    study: What is known.
    trial: What `ask` has returned.

  Returns:
    The study with it observed.
  """
  values = study.storage.get_trial(trial.id).intermediate_values
  last = values[max(values)]
  state = TrialState.PRUNED
  study.storage.set_trial_state_values(trial.id, state, [last])
  found = Values((last,), seconds=time.time() - trial.begun)
  return study._replace(
    state=study.plan.designer.tell(study.state, trial.config, found)
  )
