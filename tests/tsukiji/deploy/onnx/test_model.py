"""ONNX models compute what the networks do that they were written from."""

import collections
import dataclasses
import math
import pathlib
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from flax import struct

from compress import tree
from compress.quantize import affine
from tests.nets import CONCAT, SEPARABLE
from tests.runs import NETWORKS, TINY, images, one_shot, start, turned
from tests.tsukiji.deploy.integer.test_reference import SPECS as WHOLE
from tests.tsukiji.deploy.integer.test_reference import both, inputs_of
from tsukiji.deploy import artefact
from tsukiji.deploy.onnx import model as written
from tsukiji.deploy.onnx import quantized
from tsukiji.deploy.passes.lower import captured, lower
from tsukiji.graph.folding import folded
from tsukiji.graph.nodes import Graph, bound
from tsukiji.models import norm, zoo
from tsukiji.models import spec as sp
from tsukiji.models.layers import ACTIVATIONS

BENT = sp.Spec(
  name='bent',
  input_shape=(9, 8, 2),
  layers=(
    sp.Standardise(mean=(0.1, 0.2), std=(0.9, 1.1)),
    sp.Conv(name='a', features=6, kernel=(3, 2), strides=(2, 1), bias=False),
    sp.PReLU(name='bend'),
    sp.Conv(
      name='b', features=4, kernel=(4, 3), strides=(3, 2), padding='SAME'
    ),
    sp.ShiftNorm(name='shift'),
    sp.PReLU(name='turn', shifts=True),
    sp.Pool(kind='mean', window=(1, 2), strides=(1, 1)),
    sp.Flatten(),
    sp.Norm(name='flat'),
    sp.Dropout(rate=0.5),
    sp.Branch(paths=((sp.Dense(name='c', features=24), sp.Act()), ())),
    sp.Branch(paths=((), (sp.Dense(name='d', features=3),)), merge='concat'),
    sp.PReLU(name='flat_bend'),
  ),
)
ACTS = sp.Spec(
  name='acts',
  input_shape=(4,),
  layers=(
    sp.Standardise(mean=(0.5,), std=(2.0,)),
    sp.Dense(name='fc', features=5, bias=False),
    sp.Branch(
      paths=tuple((sp.Act(fn=fn),) for fn in ACTIVATIONS), merge='concat'
    ),
    sp.Flatten(),
  ),
)
PICTURE = sp.Spec(
  name='picture',
  input_shape=(6, 5, 3),
  layers=(sp.Conv(name='a', features=2, kernel=(3, 3)), sp.Act(fn='tanh')),
)
BEFORE = sp.Standardise(mean=(0.5,), std=(0.25,))
SPECS = {
  **NETWORKS,
  **{x.name: x for x in (SEPARABLE, CONCAT, BENT, ACTS, PICTURE)},
}


def session(
  model: onnx.ModelProto, fused: pathlib.Path | None = None
) -> onnxruntime.InferenceSession:
  """Return a model that runs, and write what the engine makes of it."""
  options = onnxruntime.SessionOptions()
  options.log_severity_level = 3
  options.intra_op_num_threads = 1
  if fused:
    options.optimized_model_filepath = str(fused)
  return onnxruntime.InferenceSession(
    model.SerializeToString(), options, ['CPUExecutionProvider']
  )


def lowered(spec: sp.Spec, text: str = '') -> tuple[Graph, Any]:
  """Return the deployed form of a network, compressed by a recipe."""
  return lower(spec, one_shot(spec, text) if text else start(spec))


def drawn(graph: Graph, count: int = 32) -> np.ndarray:
  """Return images for a network."""
  shape = graph.inputs[0].shape
  return np.asarray(
    images(sp.Spec(name='', input_shape=shape, layers=()), count)
  )


def outputs(graph: Graph, variables: Any, **options: Any) -> np.ndarray:
  """Return what ONNX Runtime computes of the images of `drawn`."""
  model = written.model(graph, variables, **options)
  feed = {written.INPUT: drawn(graph)}
  return np.asarray(session(model).run([written.OUTPUT], feed)[0])


def assert_like(graph: Graph, variables: Any, **options: Any) -> None:
  want = np.asarray(artefact.of(graph, variables)(drawn(graph)))
  got = outputs(graph, variables, **options)
  assert (got.shape, got.dtype) == (want.shape, np.float32)
  np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(SPECS))
def test_every_layer_is_written(name: str) -> None:
  spec = SPECS[name]
  graph, weights = captured(spec, start(spec))
  assert_like(graph, {'params': weights})
  assert_like(*lowered(spec))


OPS = {
  'acts': {'Relu', 'LeakyRelu', 'Elu', 'Sigmoid', 'Tanh', 'Clip'},
  'bent': {'PRelu', 'AveragePool', 'Gather', 'Relu'},
  'resnet': {'Reshape', 'Conv', 'Relu', 'Gemm', 'GlobalAveragePool', 'Flatten'},
  'tsukijinet2021': {'Reshape', 'Conv', 'Relu', 'MaxPool', 'Gemm', 'Flatten'},
}


@pytest.mark.parametrize('name', sorted(OPS))
def test_layers_are_single_nodes(name: str) -> None:
  ops = {
    node.op_type for node in written.model(*lowered(SPECS[name])).graph.node
  }
  if name in NETWORKS:
    assert ops <= OPS[name] | {'Add', 'Identity'}
  else:
    assert ops >= OPS[name]
  assert not ops & {'Where', 'Pow', 'Exp', 'Max', 'ReduceMean', 'Transpose'} - (
    {'Transpose'} if name == 'bent' else set()
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  ('text', 'options'),
  [
    ('binary.xnor()', {}),
    ('binary.weights()', {}),
    ('lowrank.svd(2) >> quantize.uniform(4, 10)', {}),
    ('prune.weights(0.5)', {}),
    ('quantize.uniform(4)', {}),
    ('quantize.uniform(12, 12)', {}),
    ('quantize.uniform(4, 6)', {'least': math.inf}),
    ('quantize.uniform(3, 5, per=4, symmetric=False)', {}),
    ('quantize.dorefa(3, 5)', {}),
    ('structured.circulant(4, pad=True)', {}),
    ('structured.crelu()', {}),
  ],
)
def test_compressed_weights_are_written(text: str, options: Any) -> None:
  spec = TINY if 'xnor' not in text else NETWORKS['tsukijinet2021']
  assert_like(*lowered(spec, text), **options)


@pytest.mark.slow
def test_thresholds_and_sizes_are_written() -> None:
  spec = zoo.binary_tsukijinet((10, 10, 1), 3, conv=(4, 4), hidden=(5,))
  for text in (
    'binary.inputs(threshold=True, scaled=True)',
    'binary.inputs(scaled=True, ends=False) >> binary.weights()',
  ):
    assert_like(*lowered(spec, text))


@pytest.mark.parametrize('bits', [8, 4])
def test_integers_are_fused(bits: int, tmp_path: pathlib.Path) -> None:
  spec = NETWORKS['tsukijinet2021']
  found = lowered(spec, f'quantize.uniform({bits}, {bits})')
  session(written.model(*found, least=0), tmp_path / 'fused.onnx')
  nodes = onnx.load(tmp_path / 'fused.onnx').graph.node
  count = collections.Counter(node.op_type for node in nodes)
  assert (count['QLinearConv'], count['QGemm']) == (2, 2)
  assert count['QuantizeLinear'] == 1 and not count['DequantizeLinear']
  assert not {'Conv', 'Gemm', 'Relu', 'FusedConv'} & set(count)
  # Codes end right before the sums: maxima stand between, channels last.
  assert count['Clip'] == (4 if bits < 8 else 0)
  assert count['NhwcMaxPool'] == 2 and not count['MaxPool']


def test_served_kernels_are_named() -> None:
  found = lowered(NETWORKS['tsukijinet2021'], 'quantize.int8()')
  names = ('conv1/kernel', 'conv2/kernel', 'dense1/kernel', 'dense2/kernel')
  assert written.served(*found, least=0) == names
  assert written.served(*found, least=30) == ('conv2/kernel',)
  assert written.served(*found, least=math.inf) == ()
  assert written.served(*lowered(TINY), least=0) == ()


@pytest.mark.slow
@pytest.mark.parametrize('bits', [8, 4, 10])
def test_images_enter_a_layer_of_floats_by_their_codes(bits: int) -> None:
  plain = NETWORKS['tsukijinet2021']
  spec = dataclasses.replace(plain, layers=(BEFORE, *plain.layers))
  found = lowered(spec, f'quantize.uniform(8, {bits})')
  nodes = [node.op_type for node in written.model(*found, least=30).graph.node]
  begin = nodes[1 : nodes.index('Conv')]
  if bits > 8:
    assert begin == ['Sub', 'Div', 'Div', 'Round', 'Clip', 'Mul']
  else:
    codes = ['QuantizeLinear', *['Clip'] * (bits < 8), 'DequantizeLinear']
    assert begin == ['Sub', *codes]
  assert_like(*found, least=math.inf)


def test_what_is_left_to_divide_by_is_not_forgotten() -> None:
  dense = sp.Dense(name='a', features=2)
  for rest in ((sp.Act(), sp.Flatten(), dense), (sp.Flatten(), dense, BEFORE)):
    layers = (BEFORE, *rest)
    spec = sp.Spec(name='early', input_shape=(3, 3, 1), layers=layers)
    assert_like(*lowered(spec))


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(WHOLE))
def test_integers_are_those_of_the_reference(name: str) -> None:
  graph, variables, network = both(name)
  want = network(drawn(graph)) * network.scale
  got = outputs(graph, variables, least=0)
  size = np.abs(want).max()
  error = np.abs(got - want).max(axis=1)
  # A bias is whole here: up to half a unit of its sums is lost.
  assert np.median(error) < 0.01 * size
  assert error.max() < 0.03 * size


@pytest.mark.parametrize('bits', [8, 4, 2])
def test_codes_differ_by_one_at_most(bits: int) -> None:
  text = f'quantize.uniform({bits}, {bits})'
  graph, variables, _ = both('tiny', text)
  want, reference = inputs_of('tiny', 'fc', text)
  before = next(
    node.inputs[0] for node in graph.nodes if 'fc/kernel' in node.inputs[1:]
  )
  body = graph._replace(outputs=(before,))
  step, zero, top = quantized.affine(variables['params']['fc/kernel'].inputs)
  codes = np.round(outputs(body, variables, least=0) / step)
  codes = np.clip(codes, -zero, top - zero)
  for other in (want, reference):
    assert np.abs(codes - other).max() <= 1
    assert np.mean(codes == other) > 0.99


def test_narrow_codes_are_spread_and_decode_alike() -> None:
  for text in (
    'quantize.uniform(2, 4)',
    'quantize.uniform(4, 4, symmetric=False)',
  ):
    params = lowered(TINY, text)[1]['params']
    kernel, bias = params['conv/kernel'], np.asarray(params['conv/bias'])
    found = quantized.served(kernel, bias)
    assert found is not None and found.codes.dtype == np.int8
    assert 64 <= np.abs(found.codes.astype(int)).max() <= 127
    np.testing.assert_allclose(
      found.codes * found.scale, tree.decode(kernel), rtol=1e-6
    )
    assert found.bias is not None and found.bias.dtype == np.int32
    lost = np.abs(found.bias * found.unit - bias)
    assert np.all(lost <= found.unit * 0.51)


def test_channels_may_be_negated_or_be_a_bias_only() -> None:
  graph, small = turned()
  want = np.asarray(artefact.of(graph, small)(drawn(graph)))
  got = outputs(graph, small, least=0)
  assert np.abs(got - want).max() < 0.03 * np.abs(want).max()


def test_a_bias_beyond_its_sums_is_left_to_floats() -> None:
  params = lowered(TINY, 'quantize.int8()')[1]['params']
  kernel, bias = params['conv/kernel'], np.asarray(params['conv/bias'])
  assert quantized.served(kernel, bias)
  assert not quantized.served(kernel, 1e9 + bias)
  assert not quantized.served(np.ones((3, 3)), None)


def test_shifts_stay_powers_of_two() -> None:
  graph, weights = captured(BENT, start(BENT))
  arrays = {path: np.asarray(x) for path, x in weights.items()}
  nodes = folded(bound(graph, arrays)).nodes
  gain = norm.gain(
    sp.ShiftNorm(name='shift'),
    start(BENT)['params']['shift']['scale'],
    start(BENT)['batch_stats']['shift']['var'],
  )
  held = [x for node in nodes for x in node.inputs]
  assert any(np.array_equal(np.ravel(x), np.asarray(gain)) for x in held)


@pytest.mark.slow
def test_a_file_takes_any_batch_of_raw_images(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'deep' / 'net.onnx'
  found = lowered(TINY)
  written.save(path, written.model(*found))
  net = onnxruntime.InferenceSession(path)
  (first,) = net.get_inputs()
  assert (first.name, first.shape) == ('images', ['batch', 5, 5, 1])
  for count in (1, 3):
    x = drawn(found[0], count)
    got = net.run(None, {'images': x})[0]
    np.testing.assert_allclose(got, artefact.of(*found)(x), 1e-4, 1e-5)


@struct.dataclass
class Odd(tree.Compressed):
  """A weight that does to its input what no other does."""

  inner = ('w',)
  w: Any

  def decode(self) -> Any:
    """Return the weight."""
    return self.w

  @property
  def transforms_input(self) -> bool:
    """Whether the input is another one."""
    return True

  def transform_input(self, x: Any) -> Any:
    """Return another input."""
    return x * 2


def test_what_other_nodes_do_to_inputs_is_operators() -> None:
  graph, variables = lowered(TINY, 'quantize.int8()')
  params = variables['params']
  params = {**params, 'fc/kernel': Odd(tree.decode(params['fc/kernel']))}
  assert_like(graph, {'params': params})
  want = np.asarray(artefact.of(graph, {'params': params})(drawn(graph)))
  got = outputs(graph, {'params': params}, least=0)
  assert np.abs(got - want).max() < 0.03 * np.abs(want).max()
  assert written.served(graph, {'params': params}, 0) == ('conv/kernel',)


def test_grids_are_those_of_the_network() -> None:
  kernel = lowered(TINY, 'quantize.uniform(4, 6)')[1]['params']['fc/kernel']
  inputs = kernel.inputs
  step, zero, top = quantized.affine(inputs)
  x = np.float32(np.random.default_rng(0).normal(size=200) * 3)
  want = affine.fake_quantize(x, inputs.low, inputs.high, inputs.bits)
  codes = np.clip(np.round(x / step) + zero, 0, top)
  np.testing.assert_array_equal(want, (codes - zero) * step)
