"""Searches: studies, their best trials, reports, and the file of the winner."""

import importlib.util
import math
import pathlib
import shutil
from typing import Any

import pytest
from ml_collections import ConfigDict

from search import space as spaces
from search import study
from search.designer import Values
from search.space import Space
from tests.tsukiji.experiments.sweep.test_trial import searched
from tsukiji.config import search_space, settings, validate
from tsukiji.experiments import executor, prepare, row
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.sweep import driver, findings, trial, tuning, winner
from tsukiji.models import net as net_lib
from tsukiji.report import search_data as report
from tsukiji.training import loop


def found(
  experiment: Experiment,
  space: Space,
  config: ConfigDict,
  on_epoch: loop.OnEpoch = loop.ignore,
) -> Values:
  """Return what is best at one place, and nowhere where steps are large."""
  if config.train.lr > 1e20:
    raise FloatingPointError('at step 3')
  error = abs(math.log10(config.train.lr) - 5) / 100
  for epoch in (1, 2):
    on_epoch(epoch, 1 - error / epoch)
  return Values((error, 1000.0 * config.networks.net.sizes.hidden))


def run(experiment: Experiment) -> tuning.Best:
  """Run a search in this process."""
  return driver.run(experiment, lambda *_: executor.here(experiment.data))


@pytest.fixture
def made(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
  monkeypatch.setattr(trial, 'run', found)
  config = searched()
  config.search.update(designer='sobol', baselines=('random',), seeds=(0, 1))
  config.search.update(trials=6, workers=1)
  return prepare.prepare(config, tmp_path)


@pytest.mark.slow
def test_every_designer_gets_a_study_for_every_seed(made: Experiment) -> None:
  space, best = spaces.of(made.config), run(made)
  every = {tuning.label_of(plan): x for plan, x in tuning.trials(made)}
  assert {*every} == {'sobol-0', 'sobol-1', 'random-0', 'random-1'}
  assert {len(of_one) for of_one in every.values()} == {6}
  values = [
    t.values[0] for of_one in every.values() for t in of_one if t.values
  ]
  assert best.accuracy == 1 - min(values)
  full = best.config.copy_and_resolve_references()
  full.task = 'compress'
  validate.check(full)
  assert best.config.search == settings.searching()
  hidden = {t.params['networks.net.sizes.hidden'] for t in every['random-0']}
  assert all(trial.is_allowed(made, space, _with(made, n)) for n in hidden)
  # Again: nothing is left to do, and the best is the same.
  assert run(made) == best
  assert {len(of_one) for _, of_one in tuning.trials(made)} == {6}


@pytest.mark.parametrize('pruner', settings.PRUNERS)
def test_bad_trials_end_early(
  made: Experiment, monkeypatch: pytest.MonkeyPatch, pruner: str
) -> None:
  def objective(
    one: Experiment, space: Space, config: ConfigDict, on_epoch: loop.OnEpoch
  ) -> Values:
    del one, space
    error = abs(math.log10(config.train.lr) - 5) / 100
    for epoch in range(1, 10):
      on_epoch(epoch, 1 - error - 0.1 / epoch)
    return Values((error,))

  monkeypatch.setattr(trial, 'run', objective)
  name = f'random+{pruner}'
  made.config.search.update(designer=name, seeds=(0,), trials=16, epochs=9)
  made.config.search.objectives = ('val_accuracy',)
  made.config.search.baselines = ('random',)
  validate.check(made.config)
  best = run(made)
  by_name = {tuning.label_of(plan): x for plan, x in tuning.trials(made)}
  of_one = by_name[f'{name}-0']
  full = [t.value for t in of_one if study.is_complete(t)]
  assert 0 < len(full) < 16
  assert best.accuracy == 1 - min(t.value for x in by_name.values() for t in x)
  results = findings.searched(made)
  own = [t for t in results.trials if t.designer == name]
  assert sum(t.pruned for t in own) == 16 - len(full)
  assert all((t.share < 1) == t.pruned for t in own)
  assert not any(t.pruned for t in results.trials if t.designer == 'random')
  (said,) = (x for x in report.sentences(results) if x.startswith(name))
  assert f', {16 - len(full)} pruned' in said


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'epochs': 2}, r'search.epochs: expected at least eta \* min_epochs'),
    ({'batch_size': 2}, 'batch_size: expected 1 for gp\\+hyperband'),
    ({'objectives': ('val_accuracy', 'bytes')}, 'objectives: expected one for'),
    ({'designer': 'gp+medain'}, "a pruner .*Nearest: 'median'"),
    ({'designer': 'gq+median'}, "Nearest: 'gp'"),
  ],
)
def test_what_cannot_end_early_is_refused(
  made: Experiment, changes: dict[str, Any], said: str
) -> None:
  search = made.config.search
  search.update(designer='gp+hyperband', epochs=9)
  search.objectives = ('val_accuracy',)
  for key, value in changes.items():
    search[key] = value
  with pytest.raises(ValueError, match=said):
    validate.check(made.config)


@pytest.mark.parametrize('old', ['bohb', 'halving', 'hyperband'])
def test_designers_of_short_trials_have_another_name(old: str) -> None:
  with pytest.warns(FutureWarning, match=f"designer '{old}' is now called"):
    made = settings.searching(designer=old)
  assert made.designer.endswith(('+halving', '+hyperband'))
  with pytest.warns(FutureWarning, match='is now called'):
    assert settings.searching(baselines=('sobol', old)).baselines == (
      'sobol',
      made.designer,
    )


def test_trials_are_trained_as_one_program(
  made: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
  sizes = []

  def group(
    experiment: Experiment, space: Space, configs: list[ConfigDict]
  ) -> list[Values]:
    sizes.append(len(configs))
    errors = [1 / config.networks.net.sizes.hidden for config in configs]
    return [Values((error, 1.0)) for error in errors]

  monkeypatch.setattr(trial, 'run_group', group)
  made.config.search.update(batch_size=4, baselines=(), seeds=(0,))
  best = run(made)
  assert sizes == [4, 2]
  ((_, every),) = tuning.trials(made)
  assert len(every) == 6
  hidden = max(t.params['networks.net.sizes.hidden'] for t in every)
  assert best.accuracy == 1 - 1 / hidden


def _with(made: Experiment, hidden: int) -> ConfigDict:
  config = search_space.examples(made.config)[0]
  config.networks.net.sizes.hidden = hidden
  return config


def test_a_report_has_readable_units(
  made: Experiment,
) -> None:
  best = run(made)
  results = findings.searched(made)
  assert len(results.trials) == 24
  assert max(map(report.accuracy, results.trials)) == best.accuracy
  assert results.objectives == ['val_accuracy', 'bytes']
  failed = [t for t in results.trials if not t.values]
  assert failed and all(t.params['train.lr'] > 1e20 for t in failed)
  assert sum(results.importances.values()) == pytest.approx(1)
  assert results.importances['train.lr'] > 0.5
  assert results.ranges['train.lr'].log


@pytest.mark.slow
def test_the_best_of_each_study_is_tested_once(
  made: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
  run(made)
  requested = []

  def trained(one: Experiment, config: ConfigDict) -> tuple[Experiment, Any]:
    requested.append(found(one, spaces.of(one.config), config).objectives[0])
    spec = one.specs['net']
    return one, row.Trained(spec, net_lib.init_variables(spec, 0), 0.0)

  monkeypatch.setattr(trial, 'trained', trained)
  every = findings.tested(made)
  assert {name: len(seeds) for name, seeds in every.items()} == {
    'sobol': 2,
    'random': 2,
  }
  best = [1 - x.validation for seeds in every.values() for x in seeds]
  assert sorted(best) == pytest.approx(sorted(requested))
  assert all(0 < x.test < 0.5 for seeds in every.values() for x in seeds)
  assert findings.tested(made) == every and len(requested) == 4
  results = findings.searched(made)
  assert results.tested == every
  assert 'on the test set' in report.sentences(results)[0]


@pytest.mark.slow
def test_a_search_without_a_feasible_trial_says_why(
  made: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(trial, 'run', lambda *args: Values((math.nan, math.nan)))
  with pytest.raises(ValueError, match='got none: found Values'):
    run(made)


def test_a_storage_that_vanishes_is_an_error(
  made: Experiment, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
  folder = tmp_path / 'elsewhere'
  folder.mkdir()
  made.config.search.storage = f'sqlite:///{folder}/study.db'

  def remove(*args: Any) -> Values:
    shutil.rmtree(folder)
    return found(*args)

  monkeypatch.setattr(trial, 'run', remove)
  with pytest.raises(ValueError, match='expected a storage that answers, got'):
    run(made)


@pytest.mark.slow
def test_the_winner_is_a_config_that_can_be_run(
  made: Experiment, tmp_path: pathlib.Path
) -> None:
  best = run(made)
  best.config.title = 'With """quotes"""'
  path = tmp_path / 'best.py'
  winner.write(path, best.config, [f'Trial 3 of {best.study}.'])
  spec = importlib.util.spec_from_file_location('best', path)
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config('')
  validate.check(config)
  assert config.task == 'train'
  config.task = best.config.task
  assert settings.plain(config) == settings.plain(best.config)
  assert best.study in (module.__doc__ or '')


@pytest.mark.slow
def test_experiments_share_a_storage_and_no_study(
  made: Experiment, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  counted: list[str] = []

  def objective(
    one: Experiment, space: Space, config: ConfigDict, on_epoch: loop.OnEpoch
  ) -> Values:
    counted.append(one.digest)
    return found(one, space, config)

  monkeypatch.setattr(trial, 'run', objective)
  url = f'sqlite:///{tmp_path}/shared.db'
  for epochs in (5, 6):
    config = made.config.copy_and_resolve_references()
    config.search.update(storage=url, designer='random', baselines=())
    config.search.update(seeds=(0,), trials=3)
    config.train.epochs = epochs
    run(prepare.prepare(config, tmp_path / str(epochs)))
  assert len(counted) == 6 and len({*counted}) == 2
