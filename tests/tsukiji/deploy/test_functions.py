"""Files of networks that nobody here wrote."""

import itertools
import pathlib
import pickle
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import compress
from tests import frameworks
from tests.runs import assert_same_bits
from tsukiji import deploy, info
from tsukiji.deploy.tsk import header, pack
from tsukiji.graph.nodes import Graph, Input, Node

RECIPES = ('prune.weights(0.5) >> quantize.int8()', 'lowrank.svd(2)')
READ = """\
import pickle, sys
import numpy as np
from tsukiji import deploy
file, inputs, want = pickle.load(open(sys.argv[1], 'rb'))
got = deploy.load(file)(*inputs)
assert 'flax' not in str(type(got)), got
np.testing.assert_allclose(np.float32(got), np.float32(want), atol=4e-3)
assert 'tests.frameworks' not in sys.modules
"""


def compressed(model: frameworks.Model, text: str) -> Any:
  """Return the frozen parameters of a network under a recipe."""
  probe = compress.probe(model.apply, model.params, model.inputs)
  method = compress.parse(text)
  return compress.freeze(compress.init(method, model.params, probe, steps=0))


@pytest.mark.parametrize(
  ('name', 'text'),
  frameworks.slow_but_few(itertools.product(frameworks.MODELS, RECIPES)),
)
def test_networks_of_any_framework_are_stored(
  name: str, text: str, tmp_path: pathlib.Path
) -> None:
  model = frameworks.MODELS[name]()
  params = compressed(model, text)
  file = tmp_path / 'nets' / 'net.tsk'
  size = deploy.save(file, model.apply, params, model.inputs, ['a', 'b', 'c'])
  assert size == file.stat().st_size
  net = deploy.load(file)
  assert net.meta == {'classes': ['a', 'b', 'c']}
  assert net.bytes == size
  want = compress.apply(model.apply, params, *model.inputs)
  np.testing.assert_allclose(
    np.float32(net(*model.inputs)), np.float32(want), atol=4e-3
  )
  few = tuple(x[:2] for x in model.inputs)
  assert net(*few).shape == (2, *want.shape[1:])
  none = tuple(x[:0] for x in model.inputs)
  assert net(*none).shape == (0, *want.shape[1:])


@pytest.mark.slow
@pytest.mark.parametrize('name', ['Linen CNN', 'LSTM', 'NNX transformer'])
def test_files_load_without_the_code_of_the_network(
  name: str, tmp_path: pathlib.Path
) -> None:
  model = frameworks.MODELS[name]()
  params = compressed(model, RECIPES[0])
  file, case = tmp_path / 'net.tsk', tmp_path / 'case'
  deploy.save(file, model.apply, params, model.inputs)
  want = np.asarray(compress.apply(model.apply, params, *model.inputs))
  case.write_bytes(pickle.dumps((file, [*map(np.asarray, model.inputs)], want)))
  subprocess.run([sys.executable, '-c', READ, str(case)], check=True)


X = jnp.ones((2, 3))
W = {'w': jnp.arange(6.0).reshape(3, 2), 'unused': jnp.ones(99)}


def dense(params: Any, x: jax.Array) -> jax.Array:
  """Return a dense layer."""
  return jnp.tanh(x @ params['w'])


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
  """Return a small file."""
  deploy.save(tmp_path / 'net.tsk', dense, W, X)
  return tmp_path / 'net.tsk'


def test_only_what_the_network_reads_is_stored(file: pathlib.Path) -> None:
  packed = pack.unpack(file.read_bytes())
  assert [*packed.variables['params']] == ['w']
  assert info.main([str(file)]) == 0


def test_floats_of_few_bits_make_a_shorter_file(tmp_path: pathlib.Path) -> None:
  params = {'w': jnp.float32(np.random.default_rng(0).normal(size=(3, 64)))}
  sizes = [
    deploy.save(tmp_path / 'net.tsk', dense, params, X, float_bits=bits)
    for bits in (None, 24, 8)
  ]
  assert sizes[0] == sizes[1] > sizes[2] + 3 * 64 * 15 // 8
  got, want = deploy.load(tmp_path / 'net.tsk')(X), dense(params, X)
  np.testing.assert_allclose(got, want, atol=0.05)
  with pytest.raises(ValueError, match='expected bits from 1 to 24, got 0'):
    deploy.save(tmp_path / 'net.tsk', dense, params, X, float_bits=0)


@pytest.mark.parametrize(
  ('inputs', 'message'),
  [
    ((), r'expected 1 inputs, got 0. Give arrays of \[\(3,\)\]'),
    ((X, X), 'expected 1 inputs, got 2'),
    ((jnp.ones((2, 4)),), r'\[batch, 3\] of real numbers, got .* \[2, 4\]'),
    ((np.full((2, 3), 'a'),), r'of real numbers, got ndarray \[2, 3\]'),
  ],
)
def test_other_inputs_are_errors(
  file: pathlib.Path, inputs: Any, message: str
) -> None:
  with pytest.raises(ValueError, match=message):
    deploy.load(file)(*inputs)


def test_several_inputs_and_outputs(tmp_path: pathlib.Path) -> None:
  def apply(params: Any, x: jax.Array, ids: jax.Array) -> Any:
    return {'a': x @ params['w'], 'b': params['w'][ids]}

  ids = jnp.array([[0, 2], [1, 1]])
  deploy.save(tmp_path / 'net.tsk', apply, W, (X, ids))
  got = deploy.load(tmp_path / 'net.tsk')(X, ids)
  assert_same_bits(got, tuple(jax.jit(apply)(W, X, ids).values()))


NODES = [['dot', '@0', 'w', {'dims': [[[1], [0]], [[], []]]}], ['tanh', 0]]
GRAPH = {'inputs': ['float32 3'], 'nodes': NODES, 'outputs': [1]}
HUGE = ['broadcast', '@0', {'shape': [2**15, 2**14, 3]}]


def scan(**changes: Any) -> dict[str, Any]:
  """Return nodes with a loop."""
  body = {'nodes': [['add', '@0', 1.0]], 'outputs': [0]}
  loop = {'body': body, 'consts': 0, 'carry': 1, 'length': 3, 'reverse': False}
  nodes = [['scan', '@0', loop | changes], ['item', 0, {'index': 0}]]
  return {'nodes': nodes, 'outputs': [1, 'w']}


def with_graph(**changes: Any) -> bytes:
  """Return a file with another graph, its checksum right."""
  blob = pack.pack(
    Graph(
      (
        Node('dot', ('@0', 'w'), {'dims': (((1,), (0,)), ((), ()))}),
        Node('tanh', (0,)),
      ),
      (1,),
      (Input((3,)),),
    ),
    {'params': {'w': np.ones((3, 2), np.float32)}},
  )
  opened = header.unseal(blob)
  fields = opened.fields | {'g': GRAPH | changes}
  parts = [bytes(opened.rest)]
  return header.seal(fields, opened.total, parts, header.VERSION)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'nodes': [['dot', '@0', 'v', NODES[0][3]], NODES[1]]}, 'the graph reads'),
    ({'nodes': [['dot', '@1', 'w', NODES[0][3]], NODES[1]]}, 'a weight or an'),
    ({'nodes': [['dot', '@0', 1, NODES[0][3]], NODES[1]]}, 'a node before it'),
    ({'nodes': [['eval', '@0'], NODES[1]]}, 'a known operator'),
    ({'nodes': [['concat', '@0', 'w'], NODES[1]]}, 'a node concat that fits'),
    ({'nodes': [NODES[0], ['tanh', 0, 0]]}, 'a node tanh that fits'),
    ({'nodes': [NODES[0], ['reshape', 0, {'groups': 7}]]}, 'reshape that fits'),
    ({'nodes': [HUGE], 'outputs': [0, 'w']}, 'examples that take at most'),
    (scan(length=2**30), 'a loop of at most'),
    (scan(carry='a'), 'sizes of a loop'),
    (scan(body=GRAPH), 'the graph reads|a node scan'),
    (scan(body={'nodes': [HUGE], 'outputs': [0]}), 'examples that take'),
    (scan(body={'nodes': [], 'outputs': ['v']}), 'the graph reads'),
    ({'nodes': [['tanh', '@0']] * 3000}, 'operations'),
    ({'outputs': [2]}, 'a node before it'),
    ({'outputs': ['v']}, 'the graph reads'),
    ({'inputs': []}, 'a graph with inputs'),
    ({'inputs': ['float32 -3']}, 'a shape'),
    ({'inputs': ['object 3']}, 'a type of inputs'),
    ({'inputs': ['float32 4']}, 'a node dot that fits'),
    ({'nodes': 3}, 'lists'),
    ({'more': []}, 'nodes'),
  ],
)  # fmt: skip
def test_other_graphs_are_refused(
  changes: Any, message: str, tmp_path: pathlib.Path
) -> None:
  path = tmp_path / 'net.tsk'
  path.write_bytes(with_graph())
  np.testing.assert_allclose(deploy.load(path)(X), np.tanh(3 * np.ones((2, 2))))
  path.write_bytes(with_graph(**changes))
  with pytest.raises(ValueError, match=message):
    deploy.load(path)


def test_a_network_that_cannot_be_stored_is_named(
  tmp_path: pathlib.Path,
) -> None:
  with pytest.raises(ValueError, match=r"'sort' at .*test_functions.py:\d+"):
    deploy.save(tmp_path / 'net.tsk', lambda p, x: jnp.sort(dense(p, x)), W, X)
  assert not (tmp_path / 'net.tsk').exists()
