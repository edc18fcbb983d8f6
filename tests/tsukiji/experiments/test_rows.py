"""What an experiment leaves behind: cells, artefacts, rows."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest

from tsukiji.config import settings
from tsukiji.deploy import artefact
from tsukiji.experiments import cell as cell_lib
from tsukiji.experiments import jobs, prepare, results, store
from tsukiji.models import net as net_lib
from tsukiji.training import loop

pytestmark = pytest.mark.slow  # its networks are trained

KEYS = {
  'name',
  'recipe',
  'dataset',
  'network',
  'seed',
  'role',
  'accuracy',
  'val_accuracy',
  'params',
  'nonzero',
  'macs',
  'bops',
  'bytes',
  'layers',
  'energy_uj',
  'energy_source',
  'train_seconds',
  'artefact',
}


def tiny(**recipes: str) -> Any:
  """Return a config that trains one small network for one epoch."""
  config = settings.default()
  config.networks = {
    'net': settings.network(
      'tsukijinet2021', sizes={'conv': (4, 8), 'hidden': (16,)}
    )
  }
  config.train.epochs = config.finetune.epochs = 1
  config.recipes = {
    name: settings.compression(method, 'combined')
    for name, method in recipes.items()
  }
  return config


@pytest.fixture(scope='module')
def done(tmp_path_factory: pytest.TempPathFactory) -> jobs.Experiment:
  folder = tmp_path_factory.mktemp('run')
  config = tiny(both='prune.weights(0.9) >> quantize.int8()')
  experiment = prepare.prepare(config, folder)
  store.claim(folder, config)
  cell_lib.run_network(experiment, 'net', 0, loop.ignore)
  return experiment


def cell(experiment: jobs.Experiment, recipe: str) -> dict[str, Any]:
  row = store.cell(experiment.folder, f'net-0-{recipe}')
  assert row is not None
  return row


def test_rows_have_the_keys_of_the_schema(done: jobs.Experiment) -> None:
  for recipe, more in (('dense', {}), ('both', {'weight_bits', 'sparsity'})):
    row = cell(done, recipe)
    assert row.keys() >= KEYS | set(more)
  assert cell(done, 'dense')['role'] == 'reference'
  assert cell(done, 'both')['role'] == 'compressed'


def test_bytes_are_the_length_of_the_file(done: jobs.Experiment) -> None:
  for recipe in ('dense', 'both'):
    row = cell(done, recipe)
    assert row['bytes'] == (done.folder / row['artefact']).stat().st_size


def test_accuracy_is_that_of_the_file(done: jobs.Experiment) -> None:
  row = cell(done, 'both')
  logits = artefact.load(done.folder / row['artefact'])(done.data.test.x)
  right = np.asarray(logits).argmax(-1) == done.data.test.y
  assert row['accuracy'] == pytest.approx(right.mean())


def test_sparsity_is_exact_before_rounding_to_the_grid(
  done: jobs.Experiment,
) -> None:
  row = cell(done, 'both')
  assert row['sparsity'] >= 0.9 - 1e-3
  assert row['weight_bits'] == 8
  assert row['nonzero'] < cell(done, 'dense')['nonzero'] / 4


def test_a_finished_cell_is_not_run_again(done: jobs.Experiment) -> None:
  path = done.folder / 'cells' / 'net-0-both.json'
  before = path.stat().st_mtime_ns
  reported: list[tuple[str, int]] = []
  cell_lib.run_network(done, 'net', 0, lambda *what: reported.append(what))
  assert path.stat().st_mtime_ns == before
  names = jobs.cells(done.config, 'net', 0)
  steps = [jobs.steps_of(done, 'net', name).steps for name in names]
  assert sum(count for _, count in reported) == sum(steps)


def test_a_recipe_of_no_epochs_is_applied_without_training(
  tmp_path: pathlib.Path,
) -> None:
  config = tiny(ptq='quantize.int8()')
  config.recipes.ptq.epochs = 0
  experiment = prepare.prepare(config, tmp_path)
  store.claim(tmp_path, config)
  cell_lib.run_network(experiment, 'net', 0, loop.ignore)
  assert cell(experiment, 'ptq')['train_seconds'] == 0
  assert 'net-0-ptq' not in loop.curves(tmp_path)


def test_a_recipe_starts_from_another(tmp_path: pathlib.Path) -> None:
  config = tiny(
    half='prune.filters(share=0.5, multiple=1)',
    less='prune.filters(share=0.75, multiple=1) >> quantize.int8()',
  )
  config.recipes.less.start = 'half'
  config.recipes.less.dropout = 0.0
  experiment = prepare.prepare(config, tmp_path)
  store.claim(tmp_path, config)
  dense, half, less = (('net', 0, name) for name in ('dense', 'half', 'less'))
  assert jobs.needed(config, half) == {dense}
  assert jobs.needed(config, less) == {half}
  cell_lib.run_network(experiment, 'net', 0, loop.ignore)
  for recipe, outputs in (('half', [2, 4, 8, 10]), ('less', [1, 2, 4, 10])):
    layers = cell(experiment, recipe)['layers']
    assert [layer['outputs'] for layer in layers] == outputs


def test_a_recipe_may_draw_a_small_network_anew(
  tmp_path: pathlib.Path,
) -> None:
  config = tiny(new='prune.filters(share=0.5, multiple=1, score="random")')
  config.recipes.new.start = 'fresh'
  config.recipes.new.role = 'control_scratch'
  experiment = prepare.prepare(config, tmp_path)
  store.claim(tmp_path, config)
  cell_lib.run_network(experiment, 'net', 0, loop.ignore)
  assert cell(experiment, 'new')['role'] == 'control_scratch'


def test_networks_may_have_epochs_of_their_own(tmp_path: pathlib.Path) -> None:
  config = tiny()
  config.networks.net.epochs = 3
  experiment = prepare.prepare(config, tmp_path)
  one = jobs.steps_of(experiment, 'net', 'dense')[1]
  config.networks.net.epochs = -1
  assert one == 3 * jobs.steps_of(experiment, 'net', 'dense')[1]


def test_recipes_may_freeze_norms_at_their_own_time(
  done: jobs.Experiment,
) -> None:
  config = done.config.copy_and_resolve_references()
  config.finetune.freeze_bn_at = 0.8
  changed = done._replace(config=config)
  found = []
  for settle in (-1.0, 0.0, 0.5, 1.0):
    config.recipes.both.freeze_bn_at = settle
    length = jobs.steps_of(changed, 'net', 'both')
    spec = done.specs['net']
    plan = jobs.plan_of(changed, 'net', 'both', spec, length)
    found.append(plan.freeze_bn_at)
  assert found == [0.8, 0.0, 0.5, 1.0]


@pytest.mark.parametrize(
  ('method', 'message'),
  [
    ('prune.weights(1.0)', r'sparsity in \[0, 1\)'),
    ('prune.wieghts(0.5)', "Nearest: 'prune.weights'"),
    ('quantize.uniform(33)', 'weight_bits from 2 to 16'),
    ('only("no/such", quantize.int8())', 'conv1/kernel'),
    ('prune.weights(0.5) >> prune.weights(0.9)', 'not pruned yet'),
    ('quantize.int8() >> quantize.uniform(4)', 'not quantized yet'),
  ],
)
def test_mistakes_show_before_training(
  method: str, message: str, tmp_path: pathlib.Path
) -> None:
  with pytest.raises(ValueError, match=message):
    prepare.prepare(tiny(bad=method), tmp_path)
  assert not list(tmp_path.iterdir())


def test_controls_are_compared_with_their_reference(
  tmp_path: pathlib.Path,
) -> None:
  config = tiny()
  config.networks.other = settings.network(
    'small', role='control_scratch', of='net', sizes={'widths': (4, 4)}
  )
  experiment = prepare.prepare(config, tmp_path)
  store.claim(tmp_path, config)
  for name in config.networks:
    cell_lib.run_network(experiment, name, 0, loop.ignore)
  rows = {row['network']: row for row in results.gather(experiment)}
  assert rows['net']['compression_rate'] == 1
  assert rows['other']['role'] == 'control_scratch'
  assert rows['other']['reference'] == 'net'
  assert len(rows['net']['val_course']) == config.train.epochs
  assert rows['other']['compression_rate'] == pytest.approx(
    rows['net']['bytes'] / rows['other']['bytes']
  )


def test_the_input_is_standardized_inside_the_network(
  done: jobs.Experiment,
) -> None:
  first = done.specs['net'].layers[0]
  mean = dataclasses.asdict(first)['mean'][0]
  assert mean == pytest.approx(done.data.train.x.mean(), rel=1e-5)
  variables = net_lib.init_variables(done.specs['net'], 0)
  assert set(variables) == {'params', 'batch_stats'}
