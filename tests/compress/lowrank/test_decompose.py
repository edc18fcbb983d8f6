"""Which weights are factored, to what rank, and what is refused."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe, tree
from compress.lowrank import decompose, rank_selection
from compress.lowrank.factors import LowRank, Separable, Tucker
from compress.method import Ctx
from compress.unchanged import UnchangedWarning

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


def test_by_path_others_are_not_factored() -> None:
  done = init('lowrank.svd({"fc/kernel": 2}, fold="spatial")')
  assert done['conv']['kernel'] is PARAMS['conv']['kernel']
  assert done['fc']['kernel'].u.shape == (12, 2)


@pytest.mark.slow
def test_only_convolutions_have_three_or_four_factors() -> None:
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
    ('lowrank.svd(9)', 'conv/kernel: expected a rank of at most 8.* got 9'),
    ('lowrank.svd({"fc/kernel": 6})', 'fc/kernel: .* at most 5'),
    ('lowrank.tucker((5, 1))', r'conv/kernel: .* at most \(4, 8\)'),
    ('lowrank.tucker(9)', r'conv/kernel: .* at most \(4, 8\)'),
    ('lowrank.cp(999)', 'conv/kernel: .* at most 36'),
    ('only("fc/kernel", lowrank.cp(1))', 'a convolution .* none among fc'),
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


@pytest.mark.slow
@pytest.mark.parametrize(
  ('text', 'left', 'why'),
  [
    ('lowrank.svd(6)', 'fc/kernel', 'their full rank is below 6'),
    ('lowrank.plus_sparse(6, 0.5, examples=0)', 'fc/kernel', 'below 6'),
    ('lowrank.tucker((3, 5))', 'stem/kernel', r'is below \(3, 5\)'),
    ('lowrank.cp(20, sweeps=2)', 'stem/kernel', 'is below 20'),
  ],
)
def test_weights_without_the_rank_are_left_with_a_warning(
  text: str, left: str, why: str
) -> None:
  """Full ranks: conv 8 (36 as a sum of products), stem 2 (18), fc 5."""
  params = {**PARAMS, 'stem': {'kernel': jnp.ones((3, 3, 2, 8))}}
  if text.startswith(('lowrank.svd', 'lowrank.plus')):
    params.pop('stem')
  method = recipe.parse(text)
  with pytest.warns(UnchangedWarning, match=f'left {left} unchanged: .*{why}'):
    done = tree.paths(method.init(params, Ctx()))
  assert done[left] is tree.paths(params)[left]
  assert tree.is_node(done['conv/kernel'])


def test_ranks_that_fit_only_one_by_one_are_reduced_jointly() -> None:
  """A window of area a makes at most a r outputs of r channels, and back."""
  drawn = np.random.default_rng(1)
  wide = jnp.float32(drawn.normal(size=(3, 3, 32, 4)))
  for w, ranks, want in (
    (wide, (32, 2), (18, 2)),
    (wide[:1, :1], (2, 4), (2, 2)),
    (wide.swapaxes(2, 3), (1, 32), (1, 9)),
  ):
    node = recipe.parse(f'lowrank.tucker({ranks})').init({'w': w}, Ctx())['w']
    assert (node.u.shape[-1], node.v.shape[-2]) == want
    # Both keep as much of the weight as the larger of them could.
    rest = np.linalg.norm(node.decode() - w)
    kept = np.linalg.norm(node.core)
    np.testing.assert_allclose(
      rest**2 + kept**2, np.linalg.norm(w) ** 2, rtol=1e-4
    )


@pytest.mark.slow
def test_later_methods_compress_the_factors() -> None:
  stats = {path: jnp.array([0.0, 1.0]) for path in ('conv/kernel', 'fc/kernel')}
  chained = recipe.parse(
    'lowrank.svd(2) >> prune.weights(0.5) >> quantize.int8()'
  )
  done = chained.init(PARAMS, Ctx(stats=stats))
  node = done['fc']['kernel']
  assert int(jnp.sum(node.u.mask)) == 12
  # The first factor has the input of the layer, the second has none known.
  assert node.u.w.inputs is not None
  assert node.v.w.inputs is None
  observed = {path: jnp.array([0.0, 3.0]) for path in stats}
  after = chained.update(done, Ctx(1, 2, stats=observed))
  high = after['fc']['kernel'].u.w.inputs.high
  np.testing.assert_allclose(high, 0.99 * 1.0 + 0.01 * 3.0, rtol=1e-6)


def test_where_names_the_method() -> None:
  with pytest.raises(ValueError, match=r'^lowrank\.tucker: '):
    decompose.tucker(0)
