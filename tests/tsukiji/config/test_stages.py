"""A study's second stage: a recipe that varies, mixed, tried and kept."""

import pathlib
import re
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

import search
from search import space as spaces
from search.designer import Values
from tests.tsukiji.config.test_search_space import put
from tests.tsukiji.experiments.test_rows import tiny
from tsukiji.config import settings, stages, validate
from tsukiji.experiments import cell, executor, prepare, store
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.sweep import driver, findings, recipe_trial

pytestmark = pytest.mark.slow  # its networks are trained

METHOD = '{cut} >> {grid}'


def mixed() -> ConfigDict:
  """Return a study of one small network and one recipe that varies."""
  config = tiny(int8='quantize.int8()')
  config.task = 'study'
  config.recipes.mix = settings.compression(METHOD, 'combined')
  at = 'recipes.mix.parts'
  config.recipes.mix.parts = {'weights': 'prune.weights({sparsity})'}
  parts = config.recipes.mix.parts
  parts.cut = search.choice('', '{weights}')
  parts.grid = search.choice('', 'quantize.int8()')
  parts.sparsity = search.float(0.5, 0.9, when={f'{at}.cut': '{weights}'})
  config.recipe_search.update(
    trials=6, epochs=1, workers=1, designer='sobol', keep=2
  )
  config.recipe_search.objectives = ('val_accuracy', 'bytes', 'energy_uj')
  return config


@pytest.fixture(scope='module')
def second(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
  """Return the second stage, its dense network trained."""
  config, folder = mixed(), tmp_path_factory.mktemp('study')
  validate.check(config)
  prepared = prepare.of(config, folder, prepare.load_data(config))
  dense = prepare.of(
    stages.dense_only(stages.of_networks(config)), folder, prepared.data
  )
  cell.run_dense(dense, 'net', 0, lambda *_: None)
  return dense._replace(config=stages.of_recipes(config))


def suggested(experiment: Experiment, **parts: Any) -> ConfigDict:
  space = spaces.of(experiment.config)
  config = spaces.to_config(space, np.full(len(space.names), 0.5))
  config.recipes.mix.parts.update(parts)
  return config


def test_the_first_stage_has_no_recipe_that_varies() -> None:
  config = mixed()
  assert stages.recipe_of(config) == 'mix'
  first = stages.of_networks(config)
  assert [*first.recipes] == ['int8'] and stages.recipe_of(first) == ''
  assert 'mix' in config.recipes


def test_the_second_stage_varies_in_the_recipe_only() -> None:
  config = mixed()
  config.train.lr = search.log(1e-4, 1e-1)
  last = stages.of_recipes(config)
  names = spaces.of(last).names
  assert names and all(name.startswith('recipes.mix.') for name in names)
  assert last.search.trials == 6
  chosen = stages.of_networks(mixed())
  chosen.train.lr = 0.5
  assert stages.of_recipes(config, chosen).train.lr == 0.5


def test_a_trial_measures_the_packed_file(second: Experiment) -> None:
  space = spaces.of(second.config)
  dense = recipe_trial.run(second, space, suggested(second, cut='', grid=''))
  grid = 'quantize.int8()'
  both = suggested(second, cut='{weights}', sparsity=0.9, grid=grid)
  small = recipe_trial.run(second, space, both)
  again = recipe_trial.run(second, space, both)
  assert small == again
  assert all(0 <= v.objectives[0] <= 1 for v in (dense, small))
  assert small.objectives[1] < dense.objectives[1] / 4
  assert small.objectives[2] < dense.objectives[2]


def test_a_recipe_is_packed_as_in_a_study_of_its_own(
  second: Experiment, tmp_path: pathlib.Path
) -> None:
  config = stages.dense_only(second.config)
  config.task = 'compress'
  config.recipes = {'x': settings.compression('prune.weights(0.7)', 'prune')}
  single = prepare.of(config, tmp_path, second.data)
  cell.run_network(single, 'net', 0, lambda *_: None)
  space = spaces.of(second.config)
  part = suggested(second, cut='{weights}', sparsity=0.7, grid='')
  found = recipe_trial.run(second, space, part)
  row = store.cell(tmp_path, 'net-0-x') or {}
  assert 1 - found.objectives[0] == pytest.approx(row['val_accuracy'])
  assert found.objectives[2] == pytest.approx(row['energy_uj'], rel=1e-2)


def test_what_is_kept_can_be_run(
  second: Experiment, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
  def found(
    one: Experiment, space: Any, config: ConfigDict, on_epoch: Any
  ) -> Values:
    del one, space, on_epoch
    parts = config.recipes.mix.parts
    if parts.cut and parts.grid:
      raise ValueError('not together')
    loss = 0.1 + (parts.sparsity or 0.0) / 10 + 0.01 * bool(parts.grid)
    return Values((loss, 1e4 * (1.1 - 10 * (loss - 0.1)), 1.0))

  monkeypatch.setattr(recipe_trial, 'run', found)
  own = second._replace(folder=tmp_path)
  driver.run(own, lambda *_: executor.here(own.data))
  kept = findings.pareto_recipes(own)
  assert len(kept) == 2
  for item in kept:
    assert not item.parts
    shape = r'|quantize.int8\(\)|prune.weights\(0.\d+\)'
    assert re.fullmatch(shape, item.method)
  config = stages.with_recipes(stages.of_networks(mixed()), kept, 'mix')
  assert [*config.recipes] == ['int8', 'mix_1', 'mix_2']
  config.task = 'compress'
  validate.check(config)
  results = findings.searched(own)
  assert results.recipe == 'mix' and {t.designer for t in results.trials} == {
    'sobol'
  }
  assert results.objectives == ['val_accuracy', 'bytes', 'energy_uj']
  assert any(not t.values for t in results.trials)


def test_recipes_that_a_found_network_does_not_allow_are_left_out(
  second: Experiment,
) -> None:
  config = stages.of_networks(mixed())
  config.recipes.cut = settings.compression(
    'lowrank.auto(macs=0.01)', 'lowrank'
  )
  config.recipes.more = settings.compression('prune.weights(0.5)', 'prune')
  config.recipes.more.start = 'cut'
  found, reasons = prepare.fitting(second._replace(config=config))
  assert found.config.networks.net.recipes == ('int8',)
  assert '*' in config.networks.net.recipes
  begins = [f'config.recipes.{x} on net: lowrank.auto' for x in ('cut', 'more')]
  assert len(reasons) == 2
  assert all(x.startswith(y) for x, y in zip(reasons, begins, strict=True))


@pytest.mark.parametrize(
  ('path', 'value', 'said'),
  [
    ('task', 'search', "expected 'study' where a recipe varies"),
    ('recipes.mix.start', 'int8', 'start: expected one of dense'),
    (
      'recipes.mix.teacher',
      ('net',),
      'expected no teacher, since the method requires',
    ),
    ('recipes.mix.method', '{cot}', "names among .* in braces, got 'cot'"),
    ('recipes.mix.parts.grid', 'quantise.int8()', "Nearest: 'quantize.int8'"),
    ('recipes.int8.parts', {'a': search.float(0.0, 1.0)}, 'ranges in'),
    ('recipe_search.designer', 'gp+median', 'one without a pruner'),
    ('recipe_search.batch_size', 2, 'batch_size: expected 1'),
    ('recipe_search.limits.bytes', 9, 'expected no limits'),
    ('recipe_search.keep', 0, 'keep: expected at least 1'),
    ('recipe_search.objectives', ('bytes',), 'val_accuracy first'),
  ],
)
def test_invalid_values_are_errors(path: str, value: Any, said: str) -> None:
  config = mixed()
  put(config, path, value)
  with pytest.raises(ValueError, match=said):
    validate.check(config)


def test_a_recipe_that_varies_has_no_teacher_of_the_config() -> None:
  config = mixed()
  config.recipes.mix.method += ' >> distill.kd(4.0)'
  config.recipes.mix.teacher = ('net',)
  with pytest.raises(ValueError, match='no other network of the config'):
    validate.check(config)
