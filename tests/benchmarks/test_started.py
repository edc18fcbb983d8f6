"""Benchmarks start as their docstrings say, on the least that they take."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.runs import TINY, one_shot
from tsukiji.deploy import artefact
from tsukiji.deploy.c import native
from tsukiji.deploy.passes.lower import lower
from tsukiji.deploy.tsk import pack

ROOT = pathlib.Path(__file__).parents[2]
ON_DEVICE = ('arm-none-eabi-gcc', 'qemu-system-arm')
COMPILED = pytest.mark.skipif(not native.found(), reason='needs a C compiler')
EMULATED = pytest.mark.skipif(
  not all(map(shutil.which, ON_DEVICE)), reason=f'needs {ON_DEVICE}'
)
# What is said, and a text of what is printed.
COMMANDS = {
  'deploy': ('{dense} {int8} --repeats=2 --seconds=0.1 --out={out}', 'int8'),
  'init': (r'--only=prune.n_m', '| `prune.n_m(2, 4)` |'),
  'own_networks': ('--workdir={out} --only=nothing', '| network |'),
  'sweep': ('--slots=4 --trials=20 --seconds=0.01', '"slots": 4'),
  'train_step': ('--network=plain --rounds=2', 'tsukiji, memory kept'),
}
BUILT = {'c_peers': ('{int8}', 'int8'), 'cortex_m': ('{int8}', 'int8')}


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
  """Return packed networks, of floats and of integers."""
  folder = tmp_path_factory.mktemp('packed')
  recipes = {'dense': 'regularize.l2(0.0)', 'int8': 'quantize.int8()'}
  for name, text in recipes.items():
    blob = pack.pack(*lower(TINY, one_shot(TINY, text)))
    artefact.save(folder / f'{name}.tsk', blob)
  return {name: folder / f'{name}.tsk' for name in recipes}


@pytest.mark.slow
@pytest.mark.parametrize(
  'name',
  [
    *COMMANDS,
    pytest.param('c_peers', marks=COMPILED),
    pytest.param('cortex_m', marks=EMULATED),
  ],
)
def test_benchmarks_start(
  files: dict[str, pathlib.Path], tmp_path: pathlib.Path, name: str
) -> None:
  words, wanted = (COMMANDS | BUILT)[name]
  given = words.format(**files, out=tmp_path / 'out').split()
  done = subprocess.run(
    [sys.executable, '-m', f'benchmarks.{name}', *given],
    cwd=ROOT,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert not done.returncode, done.stderr
  assert wanted in done.stdout
