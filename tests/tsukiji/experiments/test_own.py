"""Networks from outside go through every command."""

import json
import pathlib
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.commands import run
from tsukiji import deploy, settings
from tsukiji.experiments import prepare

CONFIG = """\
from tsukiji import settings


def get_config():
  config = settings.default('compress')
  config.dataset.name = 'digits'
  config.seeds = (0,)
  config.train = settings.training(epochs=2, lr=3e-3)
  config.finetune = settings.training(epochs=1, lr=2e-3)
  config.networks = {
    name: settings.network(f'tests.outside:{name}', recipes=recipes)
    for name, recipes in NETWORKS.items()
  }
  config.recipes = {
    'int8': settings.compression(
      'prune.weights(0.5) >> quantize.int8() >> distill.kd(4.0)', 'combined'
    ),
    'filters': settings.compression(
      'prune.filters(macs=0.5, multiple=2)', 'channels'
    ),
  }
  config.workers = 1
  return config


NETWORKS = {
  'plain': ('filters',),
  'recurrent': ('int8',),
  'perceptron': ('int8',),
}
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """Run the experiment."""
  found = tmp_path_factory.mktemp('own')
  (found / 'config.py').write_text(CONFIG)
  done = run(f'--config={found}/config.py', f'--workdir={found}/run')
  assert done.returncode == 0, done.stderr
  return found


@pytest.mark.slow
def test_every_row_is_measured(folder: pathlib.Path) -> None:
  rows = json.loads((folder / 'run' / 'results.json').read_text())['rows']
  found: dict[str, Any] = {row['name']: row for row in rows}
  assert {*found} == {
    *('plain-0-dense', 'plain-0-filters', 'recurrent-0-dense'),
    *('recurrent-0-int8', 'perceptron-0-dense', 'perceptron-0-int8'),
  }
  assert found['recurrent-0-dense']['macs'] == 8 * (8 * 64 + 16 * 64) + 160
  assert found['perceptron-0-dense']['macs'] == 64 * 32 + 32 * 10
  assert found['plain-0-filters']['mac_fraction'] <= 0.51
  assert all(row['latency_ms'] for row in found.values())
  before, after = (
    {layer['name']: layer['outputs'] for layer in found[name]['layers']}
    for name in ('plain-0-dense', 'plain-0-filters')
  )
  assert before == {'net/conv0': 8, 'net/conv1': 16, 'net/head': 10}
  assert after['net/conv1'] < 16


@pytest.mark.slow
def test_files_are_evaluated_and_exported(folder: pathlib.Path) -> None:
  for task in ('evaluate', 'export'):
    where = f'--config={folder}/config.py', f'--workdir={folder}/run'
    done = run(*where, f'--config.task={task}')
    assert done.returncode == 0, done.stderr
  x = np.float32(np.random.default_rng(0).uniform(0, 16, (3, 8, 8, 1)))
  for file in sorted((folder / 'run' / 'artefacts').glob('*.tsk')):
    want = deploy.load(file)(x)
    session = onnxruntime.InferenceSession(file.with_suffix('.onnx'))
    (got,) = session.run(None, {'images': x})
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'dropout': 0.0}, 'dropout: expected a network of the zoo'),
    ({'compact': 'separable'}, 'compact: expected a convolution'),
    ({'drop_named': ('conv1',)}, 'expected'),
    ({'drop_layers': 1}, 'drop_layers: expected at most 0 units'),
    ({'start': 'folded'}, 'fold: expected a network of layers'),
  ],
)
def test_edits_of_layers_are_refused_before_training(
  changes: dict[str, Any], message: str, tmp_path: pathlib.Path
) -> None:
  config = settings.default('compress')
  config.dataset.name = 'digits'
  config.networks = {'own': settings.network('tests.outside:linear')}
  config.recipes = {'r': settings.compression('', 'filters', **changes)}
  with pytest.raises(ValueError, match=message):
    prepare.prepare(config, tmp_path)
