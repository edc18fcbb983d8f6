"""Which way a binary layer runs: the one that the clock says is faster."""

import dataclasses
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress.binary.inputs import Signed
from compress.binary.weights import Binarized
from tests.runs import TINY, one_shot
from tests.tsukiji.deploy.integer.test_binary_layers import SAME, prepared
from tsukiji.deploy import artefact
from tsukiji.deploy.artefact import Artefact
from tsukiji.deploy.integer import binary_layers
from tsukiji.deploy.passes.lower import lower
from tsukiji.deploy.tsk import pack
from tsukiji.graph.capture import capture
from tsukiji.graph.multiplies import layer_of
from tsukiji.measure import fastest, latency, sampling
from tsukiji.models import spec as sp
from tsukiji.models.spec import Spec


@pytest.fixture(scope='module')
def path(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """Write a packed network of three binary layers."""
  where = tmp_path_factory.mktemp('packed') / 'net.tsk'
  artefact.save(where, pack.pack(*lower(SAME, prepared(SAME, 'binary.bnn()'))))
  return where


@pytest.fixture(scope='module')
def net(path: pathlib.Path) -> Artefact:
  """Return the network."""
  return artefact.load(path)


@pytest.mark.slow
@pytest.mark.parametrize('faster', [(), ('conv2', 'dense2')])
def test_the_faster_way_is_taken(
  net: Artefact, monkeypatch: pytest.MonkeyPatch, faster: tuple[str, ...]
) -> None:
  def gain(one: Any, *rest: Any, **options: Any) -> float:
    return 1.5 if layer_of(*one.parameters) in faster else 0.5

  monkeypatch.setattr(fastest, 'gain', gain)
  label, counted, run = fastest.fastest(net, 2)
  assert counted == faster
  assert label.endswith('with popcounts') == bool(faster)
  # The images of `sampling.runner`, through the network as it was packed.
  x = np.random.default_rng(0).uniform(0, 255, (2, *SAME.input_shape))
  want = net(x.astype(np.float32))
  np.testing.assert_allclose(run(), want, rtol=1e-4, atol=1e-4)


def lowered(text: str, spec: Spec = TINY) -> Artefact:
  """Return a network as a recipe leaves it."""
  return artefact.of(*lower(spec, one_shot(spec, text)))


@pytest.mark.parametrize(
  ('text', 'names', 'same'),
  [
    ('prune.weights(0.6)', ('jax', 'onnxruntime', 'openvino'), True),
    ('quantize.uniform(4)', ('jax', 'onnxruntime', 'openvino'), True),
    ('share.kmeans(3)', ('jax',), True),
    ('share.kmeans(3)', ('jax', 'c'), True),
    ('quantize.uniform(8, 8)', ('jax',), False),  # inputs are rounded
    ('lowrank.svd(2)', ('jax',), False),  # two products for one
  ],
)
def test_masks_and_codebooks_run_as_the_dense_program(
  text: str, names: tuple[str, ...], same: bool
) -> None:
  assert fastest.is_same_program(lowered(text), lowered(''), names) == same


@pytest.mark.skipif(not shutil.which('cc'), reason='there is no compiler')
def test_masks_run_as_another_program_where_zeros_are_skipped() -> None:
  layers = (sp.Flatten(), sp.Dense(name='fc', features=16))
  spec = Spec(name='flat', input_shape=(8, 8, 1), layers=layers)
  masked, dense = lowered('prune.weights(0.95)', spec), lowered('', spec)
  assert fastest.is_same_program(masked, dense)
  assert not fastest.is_same_program(masked, dense, ('jax', 'c'))
  labels = [x.engine for x in fastest.candidates(masked, 2, ('jax', 'c'), 1)]
  assert labels == ['jax', 'c']


def test_wider_networks_run_as_another_program() -> None:
  *layers, last = TINY.layers
  wider = (*layers, dataclasses.replace(last, features=4))
  other = dataclasses.replace(TINY, layers=wider)
  assert not fastest.is_same_program(lowered('', other), lowered(''))


def test_layers_are_timed_in_both_ways(
  net: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
  def sample(runs: dict[str, Any], **options: Any) -> dict[str, np.ndarray]:
    sums = [np.asarray(run()) for run in runs.values()]
    np.testing.assert_allclose(*sums, rtol=1e-4, atol=1e-4)
    return {'floats': np.array([3.0, 8.0, 6.0]), 'bits': np.full(3, 2.0)}

  monkeypatch.setattr(sampling, 'sample', sample)
  one = binary_layers.layers(net.network, net.variables)['conv2']
  assert fastest.gain(*one, 2) == 3.0


def test_own_networks_are_timed_in_both_ways(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  signs = Binarized(jnp.ones((12, 4), bool), None)
  params = {'w': Signed(signs, None, 'clipped', True)}

  def own(p: Any, x: jax.Array) -> jax.Array:
    return jnp.tanh(x.reshape(len(x), -1) @ p['w'])

  graph = capture(own, params, jnp.zeros((1, 3, 4)))
  net = artefact.of(graph, {'params': params})
  for value, counted in ((0.5, ()), (2.0, ('w',))):
    monkeypatch.setattr(fastest, 'gain', lambda *_, to=value, **__: to)
    found = fastest.fastest(net, 2)
    assert found.counted == counted
    x = np.random.default_rng(0).uniform(0, 255, (2, 3, 4))
    want = net(x.astype(np.float32))
    np.testing.assert_allclose(found.run(), want, rtol=1e-4)


@pytest.mark.slow
def test_a_row_says_who_counts(path: pathlib.Path) -> None:
  found = latency.measure({'it': path}, batches=(1,), repeats=1)
  row = found['latency_ms']['it']
  names = row['popcounts']['batch_1']
  assert set(names) <= {'conv2', 'dense1', 'dense2'}
  assert row['engine'].endswith('with popcounts') == bool(names)


def test_the_clock_chooses_the_engine(
  net: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
  names = ('jax', 'onnxruntime')
  monkeypatch.setattr(fastest, 'choose', lambda *_: ())

  def sample(runs: dict[str, Any], **options: Any) -> dict[str, np.ndarray]:
    sums = [np.asarray(run()) for run in runs.values()]
    np.testing.assert_allclose(*sums, rtol=1e-4, atol=1e-4)
    return {'jax': np.array([3.0, 8.0]), 'onnxruntime': np.full(2, next(times))}

  monkeypatch.setattr(sampling, 'sample', sample)
  times = iter([2.0, 9.0])
  assert fastest.fastest(net, 2, names).engine == 'onnxruntime'
  assert fastest.fastest(net, 2, names).engine == 'jax'


def test_rows_have_the_engine_of_each_batch(path: pathlib.Path) -> None:
  found = latency.measure(
    {'it': path},
    reference='it',
    batches=(1, 2),
    repeats=1,
    engines=('onnxruntime', 'openvino'),
  )
  row = found['latency_ms']['it']
  assert set(row['engines']) == {'batch_1', 'batch_2'}
  assert row['engine'] == row['engines']['batch_1']
  assert row['engine'] in ('onnxruntime', 'openvino')
  assert found['batch_speedups']['it'] == {'batch_1': 1.0, 'batch_2': 1.0}
