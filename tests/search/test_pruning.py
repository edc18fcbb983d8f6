"""Pruned trials: by rules whose outcome is known, told to the designer."""

import pathlib

import pytest
from optuna.trial import TrialState

from search import pruning, storage, study
from search.study import Study, Trial
from tests.search.test_study import begun, plan, trials, where

__all__ = ['where']  # a fixture
NINE = (1, 3, 9)  # epochs behind which one of three goes on


def asked(used: Study) -> tuple[Study, Trial]:
  """Ask for a trial that is there."""
  used, trial = study.ask(used)
  assert trial is not None
  return used, trial


def searched(where: str, name: str, errors: list[float]) -> list[list[int]]:
  """Run trials whose error stays as it is; return epochs, by trial."""
  rule = pruning.pruner(name, 1, 9)
  used = begun(plan(len(errors))._replace(pruner=rule), where)
  epochs: list[list[int]] = []
  for error in errors:
    used, trial = asked(used)
    epochs.append([])
    for epoch in range(1, 10):
      epochs[-1].append(epoch)
      if pruning.report(used, trial, epoch, error) and epoch < 9:
        used = pruning.prune(used, trial)
        break
    else:
      used = study.tell(used, trial, study.Values((error,)))
  return epochs


def test_halving_lets_one_of_three_go_on(where: str) -> None:
  errors = [0.5, 0.6, 0.7, 0.8, 0.4, 0.9]
  found = [len(x) for x in searched(where, 'halving', errors)]
  # The first has no rivals; only the best third of a rung goes beyond it.
  assert found == [9, 1, 1, 1, 9, 1]


def test_the_median_ends_what_is_worse_than_most(where: str) -> None:
  errors = [0.5, 0.4, 0.3, 0.2, 0.1, 0.9, 0.15]
  found = [len(x) for x in searched(where, 'median', errors)]
  assert found == [9, 9, 9, 9, 9, 1, 9]  # nothing ends before five are full


def test_hyperband_begins_at_several_rungs(where: str) -> None:
  errors = [0.1 + i / 100 for i in range(30)]
  found = {len(x) for x in searched(where, 'hyperband', errors)}
  assert {1, 3} <= found


def test_what_is_pruned_is_told_and_known_again(where: str) -> None:
  rule = pruning.pruner('halving', 1, 9)
  used = begun(plan(3)._replace(pruner=rule), where)
  for error in (0.2, 0.7):
    used, trial = asked(used)
    if pruning.report(used, trial, 1, error):
      used = pruning.prune(used, trial)
    else:
      used = study.tell(used, trial, study.Values((error - 0.1,)))
  full, pruned = trials(where)
  assert (full.state, full.value) == (TrialState.COMPLETE, 0.1)
  assert (pruned.state, pruned.value) == (TrialState.PRUNED, 0.7)
  assert [study.is_complete(t) for t in (full, pruned)] == [True, False]
  values = [v.objectives[0] for _, v in used.state.observations]
  again = begun(used.plan, where).state
  assert [v.objectives[0] for _, v in again.observations] == values
  assert sorted(values) == [0.1, 0.7]
  assert begun(used.plan, where).kept == 2


@pytest.mark.parametrize('rule', [None, pruning.pruner('median', 1, 9)])
def test_trials_of_several_objectives_are_never_ended(
  rule: study.BasePruner | None, tmp_path: pathlib.Path
) -> None:
  several = plan(1)._replace(objectives=2, pruner=rule)
  place = storage.opened(f'{tmp_path}/trials.log')
  used, trial = asked(study.begun(several, place))
  assert not pruning.report(used, trial, 1, 0.5)
