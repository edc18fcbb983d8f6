"""Pools of slices and of split axes are captured as windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsukiji.graph import evaluate
from tsukiji.graph.capture import capture
from tsukiji.models import ops

X = jax.random.normal(jax.random.key(0), (3, 9, 8, 2))


@pytest.mark.parametrize('window', [(2, 2), (3, 2), (1, 2), (3, 3)])
@pytest.mark.parametrize('strides', [(2, 2), (1, 3)])
@pytest.mark.parametrize('kind', ['max', 'mean'])
def test_pools_are_windows(
  kind: str, strides: tuple[int, int], window: tuple[int, int]
) -> None:
  def pool(p: None, x: jax.Array) -> jax.Array:
    return getattr(ops, f'{kind}_pool')(x, window, strides)

  graph = capture(pool, None, X)
  first = graph.nodes[0]
  assert first.op == f'reduce_window_{"max" if kind == "max" else "sum"}'
  assert first.attrs['sizes'] == (1, *window, 1)
  assert first.attrs['strides'] == (1, *strides, 1)
  np.testing.assert_allclose(
    evaluate.run(graph, {}, X), pool(None, X), rtol=1e-6, atol=1e-6
  )


def test_blocks_are_windows() -> None:
  """The mean over windows that cover an input, by a reshape."""
  graph = capture(lambda p, x: ops.mean_pool(x, (3, 2), (3, 2)), None, X)
  assert [node.op for node in graph.nodes] == ['reduce_window_sum', 'div']


ODD = {
  'another end': lambda p, x: jnp.maximum(x[:, :-2], x[:, 1:-1]),
  'another step': lambda p, x: jnp.maximum(x[:, :4], x[:, 1::2]),
  'of two arrays': lambda p, x: jnp.maximum(x[:, :-1], -x[:, 1:]),
  'read again': lambda p, x: (
    jnp.maximum((y := jnp.maximum(x[:, :-2], x[:, 1:-1])), x[:, 2:]) + y
  ),
  'some places': lambda p, x: jnp.maximum(x[:, :-2], x[:, 2:]),
  'some sums': lambda p, x: x.reshape(len(x), 3, 3, 4, 2, 2).sum(2),
}


@pytest.mark.parametrize('name', ODD)
def test_other_slices_stay(name: str) -> None:
  graph = capture(ODD[name], None, X)
  assert not [node for node in graph.nodes if 'window' in node.op]
  np.testing.assert_array_equal(evaluate.run(graph, {}, X), ODD[name](None, X))
