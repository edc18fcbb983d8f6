"""16-bit weights that are widened stay 16 bits wide."""

import jax.numpy as jnp
import numpy as np
import pytest

from compress import tree
from compress.quantize.half import Half
from tsukiji.deploy import artefact
from tsukiji.deploy.passes.halve import halved
from tsukiji.graph.capture import capture

X = jnp.float32(np.random.default_rng(0).normal(size=(4, 3)))
W = {'w': jnp.ones((3, 2), jnp.bfloat16), 'h': jnp.full((2, 2), 0.3, 'float16')}


def test_casts_of_weights_are_in_nodes() -> None:
  fn = lambda p, x: x @ p['w'].astype('float32') @ p['h'].astype('float32')  # noqa: E731
  graph, weights = halved(capture(fn, W, X), tree.paths(W))
  assert [node.op for node in graph.nodes] == ['dot', 'dot']
  assert all(isinstance(x, Half) for x in weights.values())
  got = artefact.forward(graph, {'params': weights})(X)
  np.testing.assert_allclose(got, fn(W, X), rtol=1e-6)


@pytest.mark.parametrize(
  'fn',
  [
    lambda p, x: x.astype('bfloat16') @ p['w'],
    lambda p, x: x @ p['w'].astype('float32') + p['w'].max(),
    lambda p, x: x @ p['w'].astype('float16').astype('float32'),
  ],
)
def test_other_casts_stay(fn: object) -> None:
  graph = capture(fn, W, X)  # type: ignore[arg-type]
  small, weights = halved(graph, tree.paths(W))
  assert not any(isinstance(x, Half) for x in weights.values())
  assert str(small) == str(graph)
