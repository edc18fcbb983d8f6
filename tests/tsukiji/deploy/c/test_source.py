"""C files compute what the networks do that they were written from."""

import functools
import pathlib
import re
import shutil
from typing import Any

import numpy as np
import pytest

import compress
from compress import tree
from tests import frameworks
from tests.runs import one_shot, start
from tests.tsukiji.deploy.integer.test_reference import SPECS as WHOLE
from tests.tsukiji.deploy.onnx.test_emitters import compressed
from tests.tsukiji.deploy.onnx.test_model import SPECS, drawn, lowered
from tsukiji.deploy import artefact
from tsukiji.deploy.c import native
from tsukiji.deploy.c.source import identifier, source
from tsukiji.deploy.integer import compile as integers
from tsukiji.deploy.passes.lower import captured, lower
from tsukiji.graph.nodes import Graph, Input, Node

STRICT = ('-std=c99', '-Wall', '-Wextra', '-pedantic', '-Werror')
QUICK = (*STRICT, '-O1', '-march=native')
COMPILERS = [x for x in ('gcc', 'clang') if shutil.which(x)]

pytestmark = pytest.mark.skipif(not COMPILERS, reason='there is no compiler')


def outputs(graph: Graph, variables: Any, x: Any, *options: str) -> np.ndarray:
  """Return what a network in C computes."""
  made = source(graph, variables, 'net')
  call = native.loaded(made, len(x), (*QUICK, *options))
  return call(np.ascontiguousarray(x))


def assert_like(graph: Graph, variables: Any) -> None:
  x = drawn(graph, 3)
  want = np.asarray(artefact.of(graph, variables)(x))
  got = outputs(graph, variables, x)
  assert (got.shape, got.dtype) == (want.shape, np.float32)
  np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize('name', ['bent', 'tsukijinet2021'])
def test_layers_of_every_kind_are_written(name: str) -> None:
  assert_like(*lowered(SPECS[name]))


def test_names_of_a_file_stay_names() -> None:
  """Files need not be trusted, and what is written from them is compiled."""
  path = '*/ int stolen = 1; /*\n#define const\\\n??/'
  weights = {path: np.float32([[1, 2], [3, 4]])}
  dims = (((1,), (0,)), ((), ()))
  node = Node('dot', ('@0', path), {'dims': dims})
  graph = Graph((node, Node('tanh', (0,))), (1,), (Input((2,)),))
  assert_like(graph, {'params': weights})
  made = source(graph, {'params': weights}, 'a"b\n#error')
  assert made.file == 'a_b__error'
  bare = re.sub(r'/[*].*?[*]/', '', made.code, flags=re.S)
  assert 'stolen' not in bare.replace(identifier(path), '')


def test_layers_may_be_called_as_c_calls_what_it_has() -> None:
  """Keywords, the library, and all that the file itself is made of."""
  spec = SPECS['separable']
  graph, weights = captured(spec, start(spec))
  code = source(graph, {'params': weights}, 'net').code
  words = {*re.findall(r'[A-Za-z_]\w*', code), 'main', 'exp', 'run', 'net_run'}
  assert {'wide', 'int', 'memory', 'memset', 'vector'} <= words
  words |= {'dense_1x8(', 'floats_1_u8(', 'packed_2x3_4(', 'tiles_16('}
  words |= {'dense_1x8', 'fours_3', 'table_0', 'product_1', 'step_int_1'}
  rng, eye = np.random.default_rng(0), np.eye(3, dtype=np.float32)
  named = {x: rng.permutation(eye) for x in sorted(words)}
  dims = (((1,), (0,)), ((), ()))
  nodes = [
    Node('dot', (i - 1 if i else '@0', word), {'dims': dims})
    for i, word in enumerate(named)
  ]
  end = len(nodes) - 1
  assert_like(Graph((*nodes,), (end,), (Input((3,)),)), {'params': named})


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(SPECS))
def test_every_network_is_written(name: str) -> None:
  spec = SPECS[name]
  graph, weights = captured(spec, start(spec))
  assert_like(graph, {'params': weights})
  assert_like(*lowered(spec))


@functools.cache
def whole(name: str, text: str) -> Any:
  """Return a network, and the same in integers."""
  net = lower(WHOLE[name], one_shot(WHOLE[name], text))
  return net, integers.compiled(*net)


def assert_same_bits(name: str, text: str, *options: str) -> None:
  net, reference = whole(name, text)
  x = drawn(net[0], 5)
  want = np.float32(reference(x)) * np.float32(reference.scale)
  np.testing.assert_array_equal(outputs(*net, x, *options), want)


def test_integers_are_those_of_the_reference() -> None:
  assert_same_bits('two', 'quantize.int8()')


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(WHOLE))
@pytest.mark.parametrize(
  'text',
  [
    'prune.weights(0.5) >> quantize.uniform(3, 4)',
    'quantize.dorefa(4, 4)',
    'quantize.int8()',
    'quantize.uniform(4, 6, per="tensor", symmetric=False)',
  ],
)
def test_narrow_integers_are_those_of_the_reference(
  name: str, text: str
) -> None:
  assert_same_bits(name, text)


@pytest.mark.slow
@pytest.mark.parametrize('text', ['', 'quantize.int8()'])
@pytest.mark.parametrize('name', sorted(frameworks.MODELS))
def test_networks_of_any_framework_are_written(name: str, text: str) -> None:
  model = frameworks.MODELS[name]()
  graph, params = compressed(model, text)
  variables = {'params': tree.paths(params)}
  x = np.asarray(model.inputs[0])
  wide = x if x.dtype == np.int32 else np.float32(x)
  want = np.float32(compress.apply(model.apply, params, *model.inputs))
  narrow = 'bfloat16' in name or name == 'mixed'
  got = outputs(graph, variables, wide)
  error = np.abs(got - want).reshape(len(want), -1).max(axis=1)
  assert np.median(error) <= (2e-2 if narrow else 1e-5)


def test_the_header_says_how_much_memory_is_needed(
  tmp_path: pathlib.Path,
) -> None:
  made = source(*lowered(SPECS['tsukijinet2021']), '3 nets')
  native.written(made, tmp_path)
  text = (tmp_path / '3 nets.h').read_text()
  assert f'#define _3_nets_SCRATCH_BYTES {made.scratch_bytes}\n' in text
  assert '#define _3_nets_INPUT_SIZE 100\n' in text
  assert '#define _3_nets_OUTPUT_SIZE 3\n' in text
  assert f'#define _3_nets_WEIGHT_BYTES {made.weight_bytes}\n' in text
