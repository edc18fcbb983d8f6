"""Products of signs are exact, and their weights take one bit each."""

import hypothesis as hp
import hypothesis.strategies as st
import numpy as np
import pytest

from tests.tsukiji.deploy.c.test_products import NHWC, POOL
from tests.tsukiji.deploy.c.test_source import COMPILERS, QUICK
from tsukiji.deploy.c import native
from tsukiji.deploy.c.kernels.binary_product import words
from tsukiji.deploy.c.source import source
from tsukiji.graph import evaluate
from tsukiji.graph.nodes import Graph, Input, Node, Ref

pytestmark = pytest.mark.skipif(not COMPILERS, reason='there is no compiler')
ZERO, ONE = np.zeros((), np.float32), np.ones((), np.float32)


def signs(ref: Ref, at: int) -> list[Node]:
  """Return the nodes of `x >= 0 ? 1 : (x < 0 ? -1 : x)`."""
  return [
    Node('ge', (ref, ZERO)),
    Node('lt', (ref, ZERO)),
    Node('select', (at + 1, ref, -ONE)),
    Node('select', (at, at + 2, ONE)),
  ]


@hp.settings(max_examples=10, deadline=None, derandomize=True)
@hp.given(
  channels=st.sampled_from([1, 3, 32, 40]),
  sides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
  strides=st.sampled_from([(1, 1), (2, 1)]),
  padding=st.sampled_from(
    [((0, 0), (0, 0)), ((1, 1), (1, 0)), ((0, 2), (3, 3))]
  ),
  batch=st.sampled_from([1, 5]),
)
def test_products_of_signs_are_exact(
  channels: int,
  sides: tuple[int, int],
  strides: tuple[int, int],
  padding: tuple[tuple[int, int], ...],
  batch: int,
) -> None:
  generator = np.random.default_rng(0)
  shape = (*sides, channels, 6)
  weights = generator.choice([-1, 1], shape).astype(np.float32)
  attrs = {
    'dims': NHWC,
    'strides': strides,
    'padding': padding,
    'dilation': ((1, 1), (1, 1)),
  }
  nodes = [Node('neg', ('@0',)), *signs(0, 1)]
  nodes += [Node('conv', (4, weights), attrs)]
  nodes += [Node('reduce_window_max', (5,), POOL), *signs(6, 7)]
  ends = Graph(tuple(nodes), (10,), (Input((7, 9, channels)),))
  x = generator.normal(size=(batch, 7, 9, channels)).astype(np.float32)
  made = source(ends, {'params': {}}, 'net')
  got = native.loaded(made, batch, QUICK)(x)
  np.testing.assert_array_equal(got, evaluate.run(ends, {}, x))
  assert 'bits_set' in made.code
  assert made.weight_bytes == 4 * words(np.moveaxis(weights > 0, 3, 0)).size
