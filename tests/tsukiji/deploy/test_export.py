"""Exported files give the logits of the artefacts they were made of."""

import pathlib
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from tests.runs import NETWORKS, images, one_shot
from tsukiji.config import settings
from tsukiji.deploy import artefact, export, functions
from tsukiji.deploy.passes.lower import lower
from tsukiji.deploy.tsk import pack


@pytest.fixture(scope='module')
def path(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """Write a packed network with grids of its inputs."""
  spec = NETWORKS['tsukijinet2021']
  where = tmp_path_factory.mktemp('packed') / 'net.tsk'
  found = lower(spec, one_shot(spec, 'quantize.uniform(8, 10)'))
  artefact.save(where, pack.pack(*found))
  return where


def test_both_formats_take_any_batch(path: pathlib.Path) -> None:
  done = export.export(path)
  assert not done.missing
  assert {p.name for p in done.written.values()} == {
    'net.onnx',
    'net.stablehlo',
  }
  net = artefact.load(path)
  session = onnxruntime.InferenceSession(path.with_suffix('.onnx'))
  blob = path.with_suffix('.stablehlo').read_bytes()
  program = jax.export.deserialize(bytearray(blob))
  for count in (1, 5):
    x = np.asarray(images(NETWORKS['tsukijinet2021'], count))
    want = np.asarray(net(x))
    got = session.run(None, {'images': x})[0]
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())
    np.testing.assert_allclose(program.call(x), want, 1e-5, 1e-6)


def test_c_files_have_to_fit(
  path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  done = export.export(path, tmp_path, ('onnx', 'c'))
  assert {p.name for p in done.written.values()} == {
    *('net.onnx', 'net.c', 'net.h')
  }
  assert 'void net_run(const float' in (done.written['h'].read_text())
  for name in ('flash', 'ram'):
    limits = export.Limits(**{name: 100})
    begin = f'export.{name}: expected a network of at most 100 bytes, got '
    with pytest.raises(ValueError, match=f'{begin}.*conv2'):
      export.export(path, tmp_path, ('c',), limits)
  with pytest.raises(ValueError, match="Nearest: 'onnx'"):
    export.export(path, tmp_path, ('onx',))


def odd(where: pathlib.Path) -> pathlib.Path:
  """Write a network that ONNX has no words for."""

  def apply(params: Any, x: jax.Array) -> jax.Array:
    return jnp.cumprod(x @ params['w'], 1)

  functions.save(where, apply, {'w': jnp.eye(3)}, jnp.ones((1, 3)))
  return where


def test_an_unsupported_format_is_reported(tmp_path: pathlib.Path) -> None:
  file = odd(tmp_path / 'odd.tsk')
  done = export.export(file)
  assert [*done.written] == ['stablehlo']
  assert 'got cumprod' in done.missing['onnx']
  with pytest.raises(ValueError, match='a network to export, got .*cumprod'):
    export.export(file, formats=('onnx',))
  with pytest.raises(ValueError, match='expected a file, got'):
    export.export(tmp_path / 'none.tsk')


def test_settings_know_the_formats() -> None:
  assert (*export.FORMATS,) == settings.FORMATS
