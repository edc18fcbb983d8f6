"""The benchmark of peers runs what there is, and says what does not run."""

import pathlib
import shutil

import pytest

from benchmarks import c_peers

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.skipif(not shutil.which('cc'), reason='there is no compiler')
def test_a_peer_that_fails_is_named() -> None:
  assert shutil.which('false')
  path = str(ROOT / 'tests/golden/format1.tsk')
  programs = {'emx': shutil.which('false') or '', 'onnx2c': '/no/such/program'}
  found = list(c_peers.rows(path, programs))
  for name, program in programs.items():
    assert any(name in row and program in row for row in found)
  times = [row for row in found if ' us ' in row]
  assert {row.split()[2] for row in times} == {'onnxruntime', 'here'}
