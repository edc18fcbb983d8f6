"""Multiplications of networks of any framework, against counts by hand."""

import jax
import jax.numpy as jnp
import pytest

from compress import tree
from tests import frameworks
from tsukiji.graph.capture import capture
from tsukiji.graph.multiplies import multiplies

# Examples have 5 tokens or vectors of 6 numbers, images 8 x 8 pixels.
COUNTS = {
  'Linen CNN': {
    'stem/kernel': 64 * 9 * 8,
    'depth/kernel': 64 * 9 * 8,
    'point/kernel': 64 * 8 * 8,
    'side/kernel': 16 * 9 * 8 * 4,
    'other/kernel': 16 * 8 * 4,
    'last/kernel': 16 * 9 * 8 * 8,
    'head/kernel': 8 * 3,
  },
  'LSTM': {
    **{f'rnn/cell/h{k}/kernel': 5 * 36 for k in 'figo'},
    **{f'rnn/cell/i{k}/kernel': 5 * 36 for k in 'figo'},
    'head/kernel': 6 * 3,
  },
  'Equinox MLP': {
    'layers/0/weight': 30 * 8,
    'layers/1/weight': 8 * 8,
    'layers/2/weight': 8 * 3,
  },
  'U-Net': {
    'first/kernel': 64 * 9 * 4,
    'down/kernel': 16 * 9 * 4 * 8,
    'up/kernel': 16 * 4 * 8 * 4,
    'head/kernel': 64 * 8 * 3,
  },
  'nn.scan': {'layers/fc/kernel': 3 * 6 * 6, 'head/kernel': 6 * 3},
}


@pytest.mark.parametrize('name', COUNTS)
def test_products_are_counted_by_weight(name: str) -> None:
  model = frameworks.MODELS[name]()
  graph = capture(model.apply, model.params, *model.inputs)
  found: dict[str, int] = {}
  for product in multiplies(graph, tree.paths(model.params)):
    found[product.path] = found.get(product.path, 0) + product.macs
  if name == 'LSTM':  # the kernels of a cell are joined to one before
    assert sum(found.values()) == sum(COUNTS[name].values())
    return
  assert found == COUNTS[name]


def test_products_of_activations_have_no_weight() -> None:
  x = jnp.ones((1, 5, 4))
  graph = capture(lambda p, x: jnp.einsum('bij,bkj->bik', x, x), {}, x)
  (one,) = multiplies(graph, {})
  assert (one.path, one.macs, one.after) == ('', 5 * 5 * 4, (5, 5))


def test_sizes_are_those_of_the_weights_given() -> None:
  x, full = jnp.ones((1, 4)), {'w': jax.ShapeDtypeStruct((4, 6), jnp.float32)}
  graph = capture(lambda p, x: x @ p['w'], full, x)
  few = {'w': jax.ShapeDtypeStruct((4, 2), jnp.float32)}
  assert [p.macs for p in multiplies(graph, few)] == [8]
