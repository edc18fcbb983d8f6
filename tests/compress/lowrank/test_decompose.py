"""Which weights are factored, to what rank, and what is refused."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe, tree
from compress.lowrank import decompose, rank_selection
from compress.lowrank.factors import LowRank, Separable, Tucker
from compress.method import Ctx

DRAWN = np.random.default_rng(0)
PARAMS = {
  'conv': {'kernel': jnp.float32(DRAWN.normal(size=(3, 3, 4, 8)))},
  'fc': {
    'bias': jnp.ones(5),
    'kernel': jnp.float32(DRAWN.normal(size=(12, 5))),
  },
}


def init(text: str) -> Any:
  return recipe.parse(text).init(PARAMS, Ctx())


def test_every_weight_gets_two_factors() -> None:
  done = init('lowrank.svd(3)')
  assert done['fc']['bias'] is PARAMS['fc']['bias']
  shapes = {
    path: (node.u.shape, node.v.shape)
    for path, node in tree.find(LowRank, done).items()
  }
  assert shapes == {
    'conv/kernel': ((3, 3, 4, 3), (1, 1, 3, 8)),
    'fc/kernel': ((12, 3), (3, 5)),
  }


def test_shares_and_bayes_set_a_rank_for_each() -> None:
  matrix = np.asarray(PARAMS['fc']['kernel'])
  done = init('lowrank.svd(0.6)')
  assert done['fc']['kernel'].u.shape[1] == rank_selection.energy(matrix, 0.6)
  done = init('lowrank.svd("vbmf")')
  assert done['fc']['kernel'].u.shape[1] == max(1, rank_selection.vbmf(matrix))


def test_by_path_others_stay_whole() -> None:
  done = init('lowrank.svd({"fc/kernel": 2}, fold="spatial")')
  assert done['conv']['kernel'] is PARAMS['conv']['kernel']
  assert done['fc']['kernel'].u.shape == (12, 2)


def test_convolutions_alone_have_three_or_four() -> None:
  for text, kind in (
    ('lowrank.tucker(2)', Tucker),
    ('lowrank.tucker(0.5)', Tucker),
    ('lowrank.cp(3, sweeps=2)', Separable),
  ):
    done = init(text)
    assert isinstance(done['conv']['kernel'], kind)
    assert done['fc']['kernel'] is PARAMS['fc']['kernel']


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('lowrank.svd(0)', 'rank of 1 or more, got 0'),
    ('lowrank.svd((1, 2))', 'one rank'),
    ('lowrank.svd(2, fold="row")', 'fold of channel, spatial'),
    ('lowrank.cp(0.5)', 'rank as 8, got 0.5'),
    ('lowrank.cp(2, sweeps=0)', 'sweeps from 1, got 0'),
    ('lowrank.tucker(2, sweeps=0.5)', 'sweeps from 1, got 0.5'),
  ],
)
def test_impossible_arguments_are_refused(text: str, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    recipe.parse(text)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('lowrank.svd(6)', 'fc/kernel: expected a rank of at most 5'),
    ('lowrank.tucker((5, 1))', 'conv/kernel: .* at most 4'),
    ('lowrank.cp(999)', 'conv/kernel: .* at most 36'),
    ('lowrank.svd({"fc": 2})', "conv/kernel, fc/kernel, got one of 'fc'"),
    ('lowrank.svd(2) >> lowrank.svd(1)', 'LowRank at conv/kernel'),
    ('prune.weights(0.5) >> lowrank.cp(1)', 'Masked at conv/kernel'),
  ],
)
def test_what_does_not_fit_the_weights_is_refused(
  text: str, message: str
) -> None:
  with pytest.raises(ValueError, match=message):
    init(text)


def test_later_methods_compress_the_factors() -> None:
  stats = {path: jnp.array([0.0, 1.0]) for path in ('conv/kernel', 'fc/kernel')}
  chained = recipe.parse(
    'lowrank.svd(2) >> prune.weights(0.5) >> quantize.int8()'
  )
  done = chained.init(PARAMS, Ctx(stats=stats))
  node = done['fc']['kernel']
  assert int(jnp.sum(node.u.mask)) == 12
  # The first factor meets the input, the second what nobody has seen.
  assert node.u.w.inputs is not None
  assert node.v.w.inputs is None
  seen = {path: jnp.array([0.0, 3.0]) for path in stats}
  after = chained.update(done, Ctx(1, 2, stats=seen))
  high = after['fc']['kernel'].u.w.inputs.high
  np.testing.assert_allclose(high, 0.99 * 1.0 + 0.01 * 3.0, rtol=1e-6)


def test_where_names_the_method() -> None:
  with pytest.raises(ValueError, match=r'^lowrank\.tucker: '):
    decompose.tucker(0)
