"""Every engine gives the logits of the network it was loaded with."""

import importlib.util
import math
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from compress.quantize.integer_codes import Inputs, Quantized
from tests.runs import TINY, images, one_shot
from tsukiji.config import settings
from tsukiji.deploy import artefact, engines, save
from tsukiji.deploy.artefact import Artefact
from tsukiji.deploy.onnx import model as model_lib
from tsukiji.deploy.passes.lower import lower
from tsukiji.deploy.tsk import pack
from tsukiji.graph.capture import capture
from tsukiji.models import spec as sp

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
  x = np.asarray(images(TINY, 4))
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


def loud() -> Artefact:
  """Return a network of one sum of 64 products of the largest codes."""
  layers = (sp.Flatten(), sp.Dense(name='fc', features=2, bias=False))
  spec = sp.Spec(name='loud', input_shape=(1, 64, 1), layers=layers)
  inputs = Inputs(np.float32(0), np.float32(1), 8)
  codes = np.array([[127, -127]] * 64, np.int8)
  node = Quantized(codes, np.ones(2, np.float32), inputs, 8)
  return artefact.of(*lower(spec, {'params': {'fc': {'kernel': node}}}))


def test_integer_sums_do_not_saturate() -> None:
  net, x = loud(), np.ones((1, 1, 64, 1), np.float32)
  assert engines.forms('onnxruntime', net) == ('int8', 'float32')
  got = engines.load(net, 'onnxruntime')(x)
  np.testing.assert_allclose(got, [[64 * 127, -64 * 127]], 1e-5)


def test_a_model_says_how_to_run_it() -> None:
  net, x = loud(), np.ones((1, 1, 64, 1), np.float32)
  made = model_lib.model(net.network, net.variables)
  assert 'session.x64quantprecision to 1' in made.doc_string
  options = onnxruntime.SessionOptions()
  options.add_session_config_entry(*model_lib.EXACT)
  blob = made.SerializeToString()
  (got,) = onnxruntime.InferenceSession(blob, options).run(None, {'images': x})
  np.testing.assert_allclose(got, [[64 * 127, -64 * 127]], 1e-5)
  floats = model_lib.model(net.network, net.variables, least=math.inf)
  assert not floats.doc_string


@pytest.mark.parametrize('name', WHERE)
def test_what_was_returned_stays(net: Artefact, name: str) -> None:
  call = engines.load(net, name, batch=2)
  first = call(np.zeros((2, *TINY.input_shape), np.float32))
  before = np.array(first)
  call(np.asarray(images(TINY, 2)))
  np.testing.assert_array_equal(np.asarray(first), before)


@pytest.mark.parametrize('name', WHERE)
def test_other_images_are_errors(net: Artefact, name: str) -> None:
  call = engines.load(net, name, batch=2)
  x = np.zeros((2, *TINY.input_shape), np.float32)
  begin = f'engine {name}: expected images .2, 5, 5, 1. of float32, got '
  for wrong, got in (
    (x[:1], '.1, 5, 5, 1. of float32. Load it'),
    (x[..., 0], '.2, 5, 5. of float32'),
    (x.astype(str), '.2, 5, 5, 1. of <U'),
  ):
    with pytest.raises(ValueError, match=begin + got):
      call(wrong)


def test_forms_are_what_the_engine_takes(net: Artefact) -> None:
  full = any(hasattr(x, 'codes') for x in net.variables['params'].values())
  assert engines.forms('jax', net) == ('float32',)
  want = ('int8', 'float32') if full else ('float32',)
  assert engines.forms('openvino', net) == want
  # Its widest sum is of 36 products, which ONNX Runtime is left as floats.
  assert engines.forms('onnxruntime', net) == ('float32',)
  assert engines.forms('c', net) == (('int8',) if full else ('float32',))


def test_a_network_without_a_kernel_is_refused_by_c() -> None:
  def apply(params: Any, x: jax.Array) -> jax.Array:
    return jax.lax.associative_scan(jnp.add, x @ params['w'], axis=1)

  def looped(params: Any, x: jax.Array) -> jax.Array:
    return jax.lax.scan(lambda c, _: (c @ params['w'], 0), x, length=2)[0]

  def chosen(params: Any, x: jax.Array) -> jax.Array:
    at = jnp.int32(jnp.max(x @ params['w']))
    return jax.lax.dynamic_slice_in_dim(x, at, 1, axis=1)

  params, x = {'w': jnp.eye(3)}, jnp.ones((1, 3))
  net = artefact.of(capture(apply, params, x), {'params': params})
  np.testing.assert_allclose(
    engines.load(net, 'c')(np.ones((1, 3), 'f4')), [[1, 2, 3]]
  )
  net = artefact.of(capture(looped, params, x), {'params': params})
  found = engines.load(net, 'c')(np.ones((1, 3), 'f4'))
  np.testing.assert_allclose(found, [[1, 1, 1]])
  net = artefact.of(capture(chosen, params, x), {'params': params})
  assert engines.forms('c', net) == ()
  with pytest.raises(ValueError, match='c: expected .* got dynamic_slice of'):
    engines.load(net, 'c')


def test_without_a_compiler_c_is_left_out(monkeypatch: Any) -> None:
  monkeypatch.setattr(shutil, 'which', lambda name: None)
  with pytest.warns(UserWarning, match='expected a C compiler'):
    assert engines.available(('jax', 'c')) == ('jax',)
  with pytest.raises(ValueError, match='Install gcc or clang'):
    engines.load(loud(), 'c')


@pytest.mark.parametrize('name', WHERE)
def test_networks_of_several_inputs_and_outputs_run(
  name: str, tmp_path: pathlib.Path
) -> None:
  drawn = np.random.default_rng(0)

  def both(params: Any, x: Any, scale: Any) -> Any:
    y = jnp.tanh(x @ params['w'])
    return y * scale, jnp.sum(y, axis=-1, keepdims=True)

  params = {'w': jnp.float32(drawn.normal(size=(5, 3)))}
  ends = tuple(np.float32(drawn.normal(size=(2, n))) for n in (5, 3))
  save(tmp_path / 'net.tsk', both, params, ends)
  net = artefact.load(tmp_path / 'net.tsk')
  call = engines.load(net, name, batch=2)
  for got, want in zip(call(*ends), both(params, *ends), strict=True):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
  wanted = r'images .2, 5. of float32, .2, 3. of float32, got'
  for wrong in ((ends[0],), (ends[1], ends[0])):
    with pytest.raises(ValueError, match=wanted):
      call(*wrong)


def test_mistakes_are_errors(net: Artefact, monkeypatch: Any) -> None:
  with pytest.raises(ValueError, match="Nearest: 'onnxruntime'"):
    engines.load(net, 'onxruntime')
  with pytest.raises(
    ValueError, match=r"one of the forms \('float32',\), got 'int4'"
  ):
    engines.load(net, 'onnxruntime', form='int4')
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  assert set(engines.available(engines.ENGINES)) <= {'c'}
  with pytest.raises(ValueError, match='openvino: .*pip install openvino'):
    engines.load(net, 'openvino')


def test_settings_know_the_engines() -> None:
  assert (*engines.ENGINES,) == settings.ENGINES
