"""Every engine gives the logits of the network it was loaded with."""

import importlib.util
from typing import Any

import numpy as np
import pytest

from tests.runs import TINY, images, one_shot
from tsukiji.config import settings
from tsukiji.deploy import artefact, engines
from tsukiji.deploy.artefact import Artefact
from tsukiji.deploy.passes.lower import lower
from tsukiji.deploy.tsk import pack

WHERE = [*engines.available(engines.ENGINES)]


@pytest.fixture(scope='module', params=['prune.weights(0.5)', 'int8'])
def net(
  request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Artefact:
  """Return a packed network, of floats or of integers."""
  text = request.param.replace('int8', 'quantize.int8()')
  path = tmp_path_factory.mktemp('packed') / 'net.tsk'
  artefact.save(path, pack.pack(*lower(TINY, one_shot(TINY, text))))
  return artefact.load(path)


@pytest.mark.parametrize('name', WHERE)
def test_engines_agree(net: Artefact, name: str) -> None:
  x = np.asarray(images(net.spec, 4))
  want = np.asarray(net(x))
  size = np.abs(want).max()
  place = engines.ENGINES[name].place
  for form in engines.forms(name, net):
    call = engines.load(net, name, form=form, batch=4, threads=2)
    got = np.asarray(call(place(x)))
    assert (got.shape, got.dtype) == (want.shape, np.float32)
    near = 0.03 if form == engines.INTEGERS else 1e-4
    assert np.abs(got - want).max() < near * size
    np.testing.assert_array_equal(np.asarray(call(x)), got)


@pytest.mark.parametrize('name', WHERE)
def test_what_was_returned_stays(net: Artefact, name: str) -> None:
  call = engines.load(net, name, batch=2)
  first = call(np.zeros((2, *net.spec.input_shape), np.float32))
  before = np.array(first)
  call(np.asarray(images(net.spec, 2)))
  np.testing.assert_array_equal(np.asarray(first), before)


@pytest.mark.parametrize('name', WHERE)
def test_other_images_are_told(net: Artefact, name: str) -> None:
  call = engines.load(net, name, batch=2)
  x = np.zeros((2, *net.spec.input_shape), np.float32)
  begin = f'engine {name}: expected images .2, 5, 5, 1. of float32, got '
  for wrong, got in (
    (x[:1], '.1, 5, 5, 1. of float32. Load it'),
    (x[..., 0], '.2, 5, 5. of float32'),
    (x.astype(str), '.2, 5, 5, 1. of <U'),
  ):
    with pytest.raises(ValueError, match=begin + got):
      call(wrong)


def test_forms_are_what_the_engine_takes(net: Artefact) -> None:
  whole = any(
    hasattr(held['kernel'], 'codes')
    for held in net.variables['params'].values()
  )
  assert engines.forms('jax', net) == ('float32',)
  want = ('int8', 'float32') if whole else ('float32',)
  assert engines.forms('openvino', net) == want
  # Its widest sum is of 36 products, which ONNX Runtime is left as floats.
  assert engines.forms('onnxruntime', net) == ('float32',)


def test_mistakes_are_told(net: Artefact, monkeypatch: Any) -> None:
  with pytest.raises(ValueError, match="Nearest: 'onnxruntime'"):
    engines.load(net, 'onxruntime')
  with pytest.raises(
    ValueError, match=r"one of the forms \('float32',\), got 'int4'"
  ):
    engines.load(net, 'onnxruntime', form='int4')
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  assert engines.available(engines.ENGINES) == ()
  with pytest.raises(ValueError, match='openvino: .*pip install openvino'):
    engines.load(net, 'openvino')


def test_settings_know_the_engines() -> None:
  assert (*engines.ENGINES,) == settings.ENGINES
