"""What a recipe starts from, and what is trained and shipped of it."""

import pathlib
from typing import Any

import pytest

from tests.tsukiji.experiments.test_rows import cell, tiny
from tsukiji.config import settings
from tsukiji.deploy import artefact
from tsukiji.deploy.integer import compile
from tsukiji.experiments import cell as cell_lib
from tsukiji.experiments import jobs, prepare, store
from tsukiji.measure import cost
from tsukiji.training import loop

pytestmark = pytest.mark.slow  # its networks are trained


@pytest.fixture(scope='module')
def done(tmp_path_factory: pytest.TempPathFactory) -> jobs.Experiment:
  folder = tmp_path_factory.mktemp('run')
  config = tiny(
    narrow='prune.filters(macs=0.4, multiple=1) >> quantize.int8()',
    rigl='prune.rigl(0.5)',
    shallow='distill.kd(2.0)',
    anew='',
    folded='quantize.uniform(8, 8, per="tensor")',
    folding='quantize.fold_batch_norm(quantize.uniform(8, 8, per="tensor"))',
  )
  config.recipes.folded.start = 'folded'
  config.recipes.folding.freeze_bn_at = 0.5
  config.recipes.rigl.start = config.recipes.anew.start = 'fresh'
  config.recipes.shallow.drop_layers = config.recipes.anew.drop_layers = 1
  experiment = prepare.prepare(config, folder)
  store.claim(folder, config)
  cell_lib.run_network(experiment, 'net', 0, loop.ignore)
  return experiment


def features(done: jobs.Experiment, recipe: str) -> list[tuple[str, int]]:
  path = done.folder / cell(done, recipe)['artefact']
  found = artefact.load(path)
  layers = cost.layers(found.network, found.variables['params'])
  return [(layer.name, layer.after[-1]) for layer in layers]


def test_removed_channels_are_gone_from_the_file(done: jobs.Experiment) -> None:
  row = cell(done, 'narrow')
  assert 0 < row['mac_fraction'] <= 0.4
  assert row['macs'] <= 0.4 * cost.macs(done.specs['net'])
  assert row['params'] < 0.8 * cell(done, 'dense')['params']
  before = features(done, 'dense')
  after = features(done, 'narrow')
  assert [name for name, _ in after] == [name for name, _ in before]
  assert all(n <= m for (_, n), (_, m) in zip(after, before, strict=True))
  assert after[-1] == before[-1]


@pytest.mark.parametrize('name', ['folded', 'folding'])
def test_folded_norms_leave_one_step_a_tensor(
  done: jobs.Experiment, name: str
) -> None:
  found = artefact.load(done.folder / cell(done, name)['artefact'])
  for path, x in found.variables['params'].items():
    assert not path.endswith('/scale')
    assert not path.endswith('/kernel') or x.scale.shape == ()
  assert compile.compiled(found.network, found.variables).scale > 0


def test_a_layer_less_is_a_layer_less(done: jobs.Experiment) -> None:
  before = {name for name, _ in features(done, 'dense')}
  after = {name for name, _ in features(done, 'shallow')}
  assert after < before
  assert len(before - after) == 1
  assert 'dense2' in after


def test_a_network_drawn_anew_lacks_what_the_trained_one_can_spare(
  done: jobs.Experiment,
) -> None:
  assert features(done, 'anew') == features(done, 'shallow')
  assert cell(done, 'anew')['readings'] == cell(done, 'shallow')['readings']


def test_fresh_weights_owe_the_dense_network_nothing(
  done: jobs.Experiment,
) -> None:
  curves = loop.curves(done.folder)
  first = {
    name: next(
      entry['loss']
      for entry in curves[f'net-0-{name}']
      if entry['split'] == 'train'
    )
    for name in ('dense', 'rigl', 'narrow')
  }
  assert first['rigl'] > first['dense'] - 0.3
  assert first['narrow'] < first['dense']
  assert cell(done, 'rigl')['sparsity'] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'drop_named': ('conv9',)}, 'units of conv1'),
    ({'drop_layers': 9}, 'at most . units to go'),
    ({'start': 'frehs'}, 'fresh'),
    ({'drop_layers': -1}, 'drop_layers: expected at least 0'),
  ],
)
def test_mistakes_show_before_training(
  changes: dict[str, Any], message: str, tmp_path: pathlib.Path
) -> None:
  config = tiny()
  config.recipes = {'bad': settings.compression('', 'layers', **changes)}
  with pytest.raises(ValueError, match=message):
    prepare.prepare(config, tmp_path)
