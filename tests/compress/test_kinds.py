"""Which methods may follow which in a chain."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from compress import kinds, recipe, tree
from compress.method import Ctx

PARAMS = {'fc': {'kernel': jnp.linspace(-1.0, 1.0, 32).reshape(8, 4)}}
CTX = Ctx(0, 4, jax.random.key(0))

# A method of each kind that needs no data, the values of weights by several.
METHODS = {
  'prune.weights(0.5)': kinds.MASK,
  'lowrank.svd(2)': kinds.FACTORS,
  'structured.circulant(4)': kinds.STRUCTURE,
  'quantize.uniform(4)': kinds.GRID,
  'quantize.lsq(4)': kinds.GRID,
  'quantize.dorefa(4)': kinds.GRID,
  'quantize.half()': kinds.GRID,
  'binary.weights()': kinds.SIGNS,
  'binary.loss_aware()': kinds.SIGNS,
  'share.kmeans(3)': kinds.CODEBOOK,
  'share.product(2, 2)': kinds.CODEBOOK,
  'share.hashed(0.5)': kinds.CODEBOOK,
  'quantize.delay(0.5)': kinds.SIGNAL,
}


def init(text: str, params: Any) -> Any:
  return recipe.parse(text).init(params, CTX)


@functools.cache
def made(text: str) -> Any:
  return init(text, PARAMS)


@pytest.mark.parametrize(
  ('first', 'second'), [*itertools.product(METHODS, repeat=2)]
)
def test_methods_follow_others_as_the_table_says(
  first: str, second: str
) -> None:
  refused = METHODS[first] in kinds.REFUSED.get(METHODS[second], {})
  nodes = made(first)
  if refused:
    with pytest.raises(ValueError, match=r': expected .*, got .* at fc/kernel'):
      init(second, nodes)
    return
  found = jax.eval_shape(
    lambda x: tree.decode(tree.freeze(init(second, x)))['fc']['kernel'], nodes
  )
  assert (found.shape, found.dtype) == ((8, 4), jnp.float32)


@pytest.mark.parametrize(
  'first',
  [
    'quantize.lsq(4)',
    'quantize.dorefa(4)',
    'quantize.half()',
    'share.kmeans(3)',
    'prune.weights(0.5) >> quantize.lsq(4)',
  ],
)
@pytest.mark.parametrize('frozen', [False, True])
def test_signs_of_what_has_values_already_are_refused(
  first: str, frozen: bool
) -> None:
  nodes = made(first)
  nodes = tree.freeze(nodes) if frozen else nodes
  for second in ('binary.weights()', 'binary.loss_aware()'):
    with pytest.raises(ValueError, match='Give each weight one quantization'):
      init(second, nodes)


def test_every_kind_of_the_table_is_declared() -> None:
  assert set(kinds.REFUSED) <= {*kinds.KINDS, kinds.ARRAYS}
  for row in kinds.REFUSED.values():
    assert set(row) <= set(kinds.KINDS)


def test_methods_of_plain_arrays_name_the_order_that_works() -> None:
  for first in METHODS:
    with pytest.raises(ValueError) as caught:
      kinds.refuse('prune.filters', kinds.ARRAYS, made(first))
    assert str(caught.value).endswith(
      'Put it first: "prune.filters(...) >> ...".'
    )
    assert len(str(caught.value)) <= 300
