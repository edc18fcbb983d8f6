"""The benchmark of engines says which is fastest, and against what."""

import argparse
import io
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks import deploy
from tests.runs import TINY, start
from tsukiji.deploy import artefact
from tsukiji.deploy.artefact import Artefact
from tsukiji.deploy.passes.lower import lower
from tsukiji.deploy.tsk import pack
from tsukiji.measure import fastest, sampling

TIMES = {'net onnxruntime': 2.0, 'small onnxruntime': 1.0}  # others: 4 ms


@pytest.fixture(scope='module')
def net(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
  """Return a packed network."""
  path = tmp_path_factory.mktemp('packed') / 'net.tsk'
  artefact.save(path, pack.pack(*lower(TINY, start(TINY))))
  return artefact.load(path)


def test_rates_are_against_the_fastest_dense_engine(
  net: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
  def sample(runs: Any, **options: Any) -> dict[str, np.ndarray]:
    assert all(np.isfinite(np.asarray(run())).all() for run in runs.values())
    return {key: np.full(3, TIMES.get(key, 4.0)) for key in runs}

  monkeypatch.setattr(sampling, 'sample', sample)
  args = argparse.Namespace(threads=1, repeats=1, seconds=1.0, clock='process')
  rows = deploy.timed({'net': net, 'small': net}, args)
  assert [row['name'] for row in rows] == ['net', 'small', deploy.FLOOR]
  for row, rate in zip(rows, (1.0, 2.0, 0.5), strict=True):
    one = row['batch_64']
    assert one['speedup_rate'] == rate
    assert set(one['engines']) >= {'jax', 'onnxruntime'}
    assert one['p50'] == min(one['engines'].values())
  file = io.StringIO()
  Console(file=file, width=160).print(deploy.table(rows))
  lines = file.getvalue().splitlines()
  assert ['slower' in line for line in lines[1:]] == [False, False, True]


def test_the_floor_is_a_network(net: Artefact) -> None:
  (way,) = fastest.candidates(deploy.trivial(), 1, ('jax',), 1)
  assert np.asarray(way.run()).shape == (1, 1)


def test_archives_hold_the_same_tensors(net: Artefact) -> None:
  sizes = deploy.weighed(net)
  assert sizes['bytes'] == net.bytes
  numbers = 9 * 4 + 4 + 36 * 3 + 3
  assert sizes['raw'] == 4 * numbers
  assert 0 < sizes['xz'] < 1.2 * sizes['raw']


def test_rows_of_other_runs_are_kept(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'deploy.json'
  old = [{'name': 'a', 'threads': t, 'old': True} for t in (1, 2)]
  assert deploy.merged(path, old) == old
  path.write_text(json.dumps({'rows': old}))
  new = [{'name': 'a', 'threads': 1}]
  assert deploy.merged(path, new) == [old[1], *new]
