"""Pruning of trials: those that look bad behind an epoch end there.

The rules are Optuna's; designers are told the last error of a pruned trial.
"""

from collections.abc import Callable

from optuna.pruners import (
  BasePruner,
  HyperbandPruner,
  MedianPruner,
  SuccessiveHalvingPruner,
)

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
