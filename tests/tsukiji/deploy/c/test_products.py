"""Every kernel computes the products that JAX computes, inside its memory."""

import pathlib
import shutil
import tempfile
from typing import Any

import hypothesis as hp
import hypothesis.strategies as st
import numpy as np
import pytest

from tests.tsukiji.deploy.c.test_device import run
from tsukiji.deploy.c.kernels import sparse_product
from tsukiji.deploy.c.plan.reading import Read, shifted
from tsukiji.deploy.c.plan.values import FLOAT, kind_of
from tsukiji.deploy.c.source import Source, generated
from tsukiji.deploy.integer import reference
from tsukiji.deploy.integer.fixed_point import fixed
from tsukiji.graph import evaluate
from tsukiji.graph.nodes import Graph, Input, Node

COMPILERS = [x for x in ('gcc', 'clang') if shutil.which(x)]
# AVX-512 VNNI and AMX, whose instructions a header beside this file emulates.
HERE = pathlib.Path(__file__).parent
WIDE = f'-D__AVX512F__=1 -D__AVX512VNNI__=1 -D__AMX_INT8__=1 -I{HERE}'
CHECKED = ('-g', '-O1', '-fsanitize=address,undefined')
NATIVE = '-march=native'
COUNT = 13  # a block of examples, and one that is not full
NHWC = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
POOL = {
  'sizes': (1, 2, 2, 1),
  'strides': (1, 2, 2, 1),
  'padding': ((0, 0),) * 4,
  'dilation': ((1,) * 4,) * 2,
}

pytestmark = pytest.mark.skipif(not COMPILERS, reason='there is no compiler')


class Case:
  """A convolution with what is around it.

  Attributes:
    settings: What was drawn.
  """

  def __init__(self, **settings: Any) -> None:
    """Keep what was drawn."""
    self.settings = settings

  def __repr__(self) -> str:
    return f'Case({self.settings})'


@st.composite
def cases(draw: Any) -> Case:
  """Return a case whose window is inside its input."""
  sides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
  dilation = draw(st.sampled_from([(1, 1), (1, 2), (2, 1)]))
  least = [(k - 1) * d + 1 for k, d in zip(sides, dilation, strict=True)]
  shape = [draw(st.integers(n, 12)) for n in least]
  groups = draw(st.sampled_from([1, 1, 1, 2]))
  return Case(
    sides=sides,
    shape=shape,
    dilation=dilation,
    groups=groups,
    inputs=groups * draw(st.integers(1, 3)),
    outputs=groups * draw(st.sampled_from([1, 4, 8, 10, 17, 32])),
    strides=draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (2, 2), (1, 2)])),
    padding=draw(st.sampled_from([((0, 0),) * 2, ((1, 1), (2, 0))])),
    density=draw(st.sampled_from([1.0, 0.1])),
    pools=draw(st.booleans()),
    bits=draw(st.sampled_from([8, 8, 3, 2])),
    factor=draw(st.sampled_from([0.1, 3.0])),
    many=draw(st.sampled_from([True, True, None])),
  )


def conv(case: Case, weights: np.ndarray, ref: Any = '@0') -> Node:
  one = case.settings
  attrs = {
    'dims': NHWC,
    'strides': one['strides'],
    'padding': one['padding'],
    'dilation': ((1, 1), one['dilation']),
  }
  return Node('conv', (ref, weights), attrs)


def drawn(case: Case) -> tuple[np.random.Generator, np.ndarray]:
  """Return a generator, and numbers of which some are 0."""
  one = case.settings
  generator = np.random.default_rng(0)
  shape = (*one['sides'], one['inputs'] // one['groups'], one['outputs'])
  weights = generator.normal(size=shape)
  weights[generator.random(shape) > one['density']] = 0
  return generator, weights


def after(case: Case, at: int) -> list[Node]:
  """Return the nodes behind a product: an activation, perhaps a pool."""
  zero = np.zeros((), np.float32)
  found = [Node('max', (at, zero))]
  one = case.settings
  sides = [
    (n + sum(p) - (k - 1) * d - 1) // s + 1
    for n, p, k, d, s in zip(
      *(one[x] for x in ('shape', 'padding', 'sides', 'dilation', 'strides')),
      strict=True,
    )
  ]
  if one['pools'] and min(sides) >= 2:
    found.append(Node('reduce_window_max', (at + 1,), POOL))
  return found


def ran(made: Source, x: np.ndarray, compiler: str) -> np.ndarray:
  """Return what a compiler, perhaps with options, makes of a network."""
  with tempfile.TemporaryDirectory() as folder:
    command = [*compiler.split(), *CHECKED]
    return run(made, x, pathlib.Path(folder), (command, []))


def assert_floats(case: Case, compiler: str) -> None:
  generator, weights = drawn(case)
  one = case.settings
  bias = generator.normal(size=one['outputs']).astype(np.float32)
  nodes = [
    conv(case, weights.astype(np.float32)),
    Node('add', (0, bias)),
    *after(case, 1),
  ]
  # What follows may be read twice, or lie otherwise.
  nodes.append(Node('transpose', (len(nodes) - 1,), {'order': (0, 2, 1, 3)}))
  nodes.append(Node('tanh', (len(nodes) - 1,)))
  shape = (*one['shape'], one['inputs'])
  graph = Graph(tuple(nodes), (len(nodes) - 1,), (Input(shape),))
  x = generator.normal(size=(COUNT, *shape)).astype(np.float32)
  want = np.asarray(evaluate.run(graph, {}, x)).reshape(COUNT, -1)
  end = (Input((want.shape[1],)),)
  read = Read(graph, [FLOAT] * len(nodes), {}, end, many=one['many'])
  got = ran(generated(read, 'net'), x, compiler)
  np.testing.assert_allclose(got, [want, want], atol=1e-5)


def assert_integers(case: Case, compiler: str) -> None:
  generator, weights = drawn(case)
  one = case.settings
  most = 2 ** (one['bits'] - 1) - 1
  codes = np.clip(np.round(weights * most / 2), -most, most).astype(np.int32)
  grid = {'scale': np.float32(0.1), 'zero': 5, 'top': 2 ** one['bits'] - 1}
  bias = generator.integers(-50, 50, one['outputs']).astype(np.int32)
  factors = fixed(generator.uniform(1e-4, one['factor'], one['outputs']))
  nodes = [
    Node(reference.ROUNDED, ('@0',), grid),
    conv(case, codes, 0),
    Node('add', (1, bias)),
    *after(case, 2),
  ]
  nodes[3] = Node('max', (2, np.zeros((), np.int32)))
  last = len(nodes) - 1
  ends = {'low': -3, 'high': 100}
  nodes.append(Node(reference.RESCALED, (last, *factors), ends))
  nodes.append(Node('cast', (last + 1,), {'dtype': 'float32'}))
  shape = (*one['shape'], one['inputs'])
  graph = Graph(tuple(nodes), (len(nodes) - 1,), (Input(shape),))
  x = generator.normal(size=(COUNT, *shape)).astype(np.float32)
  values = reference.run(graph, x)
  kinds = [kind_of(x.dtype) for x in values]
  graph = graph._replace(nodes=tuple(map(shifted, nodes)))
  want = values[-1].reshape(COUNT, -1)
  end = (Input((want.shape[1],)),)
  read = Read(graph, kinds, {}, end, True, many=one['many'])
  got = ran(generated(read, 'net'), x, compiler)
  np.testing.assert_array_equal(got, [want, want])


@pytest.mark.parametrize('check', [assert_floats, assert_integers])
@hp.settings(max_examples=4, deadline=None, derandomize=True)
@hp.given(case=cases())
def test_products_are_those_of_jax(check: Any, case: Case) -> None:
  check(case, f'{COMPILERS[0]} {NATIVE}')


@pytest.mark.slow
@pytest.mark.parametrize('check', [assert_floats, assert_integers])
@hp.settings(max_examples=4, deadline=None, derandomize=True)
@hp.given(case=cases())
def test_wider_vectors_compute_the_same(check: Any, case: Case) -> None:
  plain = {'groups': 1, 'inputs': 3, 'outputs': 17, 'dilation': (1, 1)}
  case = Case(**{**case.settings, **plain})
  check(case, f'{COMPILERS[0]} {WIDE}')


@pytest.mark.slow
@pytest.mark.parametrize('compiler', COMPILERS)
@pytest.mark.parametrize('check', [assert_floats, assert_integers])
@hp.settings(max_examples=60, deadline=None)
@hp.given(case=cases())
def test_products_are_those_of_jax_with_every_compiler(
  check: Any, compiler: str, case: Case
) -> None:
  check(case, compiler)
  check(case, f'{compiler} {NATIVE}')


def test_lists_are_chosen_where_there_are_few_weights() -> None:
  many = sparse_product.Window(np.ones((5, 5, 32, 64), np.float32))
  few = np.zeros((5, 5, 32, 64), np.float32)
  few[0] = 1
  assert not sparse_product.pays(many, (8, 8, 64), False)
  assert sparse_product.pays(sparse_product.Window(few), (8, 8, 64), False)
