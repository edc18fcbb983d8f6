"""Learned ranks: the C step against trying every rank."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe, tree
from compress.lowrank.factors import LowRank
from compress.lowrank.learned_rank import Ranked, ranked
from compress.method import Ctx
from tests import toy
from tests.runs import TINY, calibrated, start

W = jnp.float32(np.random.default_rng(0).normal(size=(3, 2, 5, 8)))


@pytest.mark.parametrize('fold', ['channel', 'spatial'])
@pytest.mark.parametrize('mu', [0.01, 0.1, 1.0, 10.0, 1e4])
def test_the_rank_is_the_best_of_all(fold: str, mu: float) -> None:
  price = 0.02
  node = ranked(W, price, jnp.float32(mu), fold)
  sides = (30, 8) if fold == 'channel' else (15, 16)
  matrix = np.asarray(W)
  if fold == 'channel':
    matrix = matrix.reshape(30, 8)
  else:
    matrix = matrix.transpose(0, 2, 1, 3).reshape(15, 16)
  square = np.linalg.svd(matrix.astype(float), compute_uv=False) ** 2
  costs = [
    price * rank * sum(sides) + mu / 2 * square[rank:].sum()
    for rank in range(1, min(sides) + 1)
    if rank * sum(sides) < W.size
  ] + [price * W.size]
  best = int(np.argmin(costs)) + 1
  frozen = node.freeze()
  if best == len(costs):
    assert int(node.rank) == min(sides)
    np.testing.assert_allclose(frozen, W, atol=1e-5)
  else:
    assert int(node.rank) == frozen.u.shape[-1] == best
    np.testing.assert_array_equal(frozen.decode(), node.decode())


def ranks(alpha: float) -> int:
  """Return the rank that a regression of rank 3 is given at a price."""
  done = toy.fit(
    recipe.parse(
      f'lowrank.learned_rank({alpha}, mu=1.0, growth=1.3, rounds=10, '
      'finetune_at=0.8)'
    ),
    steps=100,
  )
  (node,) = tree.find(Ranked, done.nodes).values()
  return int(node.rank)


@pytest.mark.slow
def test_dearer_ranks_are_fewer() -> None:
  assert ranks(1e-4) == 3
  assert ranks(1e4) == 1


def test_multiplications_price_by_use() -> None:
  method = recipe.parse('lowrank.learned_rank(1.0, of="macs")')
  nodes = method.init(start(TINY)['params'], calibrated(TINY))
  found: dict[str, Any] = tree.find(Ranked, nodes)
  ratio = found['conv/kernel'].price / found['fc/kernel'].price
  assert float(ratio) == 9
  total = sum(node.price * node.decode().size for node in found.values())
  np.testing.assert_allclose(total, 1.0, rtol=1e-6)


def test_what_is_left_is_factors() -> None:
  method = recipe.parse('lowrank.learned_rank(1e3)')
  frozen = tree.freeze(method.init({'w': W}, Ctx(0, 9)))
  assert isinstance(frozen['w'], LowRank)
  assert frozen['w'].u.shape[-1] == 1


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('lowrank.learned_rank(0.0)', 'alpha above 0'),
    ('lowrank.learned_rank(1.0, of="ms")', 'of of macs, size'),
    ('lowrank.learned_rank(1.0, fold="row")', 'fold of'),
    ('lowrank.learned_rank(1.0, mu=-1.0)', 'penalty above 0'),
  ],
)
def test_impossible_arguments_are_refused(text: str, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    recipe.parse(text)
