"""Loops, and several inputs and outputs, compute what JAX does."""

from typing import Any

import hypothesis as hp
import hypothesis.strategies as st
import numpy as np
import pytest

from tests.tsukiji.deploy.c.test_source import COMPILERS, QUICK
from tsukiji.deploy.c import native
from tsukiji.deploy.c.source import source
from tsukiji.graph import evaluate
from tsukiji.graph.nodes import Graph, Input, Node

DOT = {'dims': (((1,), (0,)), ((), ()))}
CHECKED = ('-fsanitize=undefined', '-fno-sanitize-recover')

pytestmark = pytest.mark.skipif(not COMPILERS, reason='there is no compiler')


def network(turns: int, size: int, back: bool, often: bool) -> Graph:
  """Return a recurrent layer of two inputs: a sequence, and a first state.

  Its outputs are the last state and all of them.
  """
  generator = np.random.default_rng(0)
  weights = generator.normal(size=(size, size)).astype(np.float32)
  gain = generator.normal(size=(1, size)).astype(np.float32)
  body = Graph(
    (
      Node('dot', ('@1', weights), DOT),
      Node('add', (0, '@2')),
      Node('tanh', (1,)),
      Node('mul', (2, '@0')),
    ),
    (2, 3),
  )
  attrs: dict[str, Any] = {'body': body, 'consts': 1, 'carry': 1}
  attrs |= {'length': turns, 'reverse': back}
  first = Node('transpose', ('@0',), {'order': (1, 0, 2)})
  nodes = [first, Node('scan', (gain, '@1', 0), attrs)]
  nodes += [Node('item', (1,), {'index': i}) for i in range(2)]
  last, every = 2, 3
  if often:
    nodes.append(Node('scan', (gain, last, every), attrs))
    nodes += [Node('item', (4,), {'index': i}) for i in range(2)]
    last, every = 5, 6
  nodes.append(Node('transpose', (every,), {'order': (1, 0, 2)}))
  nodes.append(Node('dot', (last, weights), DOT))
  ends = (len(nodes) - 1, len(nodes) - 2)
  return Graph(tuple(nodes), ends, (Input((turns, size)), Input((size,))))


@hp.settings(max_examples=6, deadline=None, derandomize=True)
@hp.given(
  turns=st.integers(1, 4),
  size=st.sampled_from([1, 3, 8, 9]),
  back=st.booleans(),
  often=st.booleans(),
  batch=st.sampled_from([1, 9]),
)
@hp.example(turns=1, size=3, back=False, often=False, batch=1)
def test_loops_are_those_of_jax(
  turns: int, size: int, back: bool, often: bool, batch: int
) -> None:
  net = network(turns, size, back, often)
  generator = np.random.default_rng(1)
  inputs = [
    generator.normal(size=(batch, *x.shape)).astype(np.float32)
    for x in net.inputs
  ]
  made = source(net, {'params': {}}, 'net')
  got = native.loaded(made, batch, (*QUICK, *CHECKED))(*inputs)
  want = evaluate.run(net, {}, *inputs)
  for one, other in zip(got, want, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_several_inputs_and_outputs_are_pointers_in_order() -> None:
  made = source(network(2, 3, False, False), {'params': {}}, 'net')
  flat = ' '.join(made.header.split())
  pointers = 'const float *input, const float *input_1, float *output'
  assert f'void net_run({pointers}, float *output_1, void *scratch);' in flat
  for name, size in (('INPUT', 6), ('INPUT_1', 3), ('OUTPUT_1', 6)):
    assert f'#define net_{name}_SIZE {size}\n' in made.header
