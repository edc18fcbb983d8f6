"""Low rank plus sparse: planted sums are found, inputs count."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe, tree
from compress.lowrank.plus_sparse import Summed, _largest, alternated
from compress.method import Ctx
from tests.runs import TINY, calibrated, one_shot, start

DRAWN = np.random.default_rng(0)


def planted(rank: int, count: int) -> jnp.ndarray:
  """Return a product and `count` large numbers added, `[30, 40]`."""
  low = DRAWN.normal(size=(30, rank)) @ DRAWN.normal(size=(rank, 40))
  sparse = np.zeros(1200)
  where = DRAWN.choice(1200, count, replace=False)
  sparse[where] = 5 * DRAWN.normal(size=count)
  return jnp.float32(low + sparse.reshape(30, 40))


def total(low: tuple[Any, Any], rest: Any, zeros: int) -> np.ndarray:
  return np.asarray(low[0] @ low[1] + _largest(rest, zeros))


@pytest.mark.slow
def test_a_planted_sum_is_found_again() -> None:
  w = planted(3, 60)
  found = alternated(w, None, 3, 1140, 60)
  error = np.linalg.norm(total(*found, 1140) - w)
  assert error < 1e-3 * np.linalg.norm(w)


@pytest.mark.slow
def test_inputs_count() -> None:
  w = planted(3, 60)
  x = DRAWN.normal(size=(300, 30)) @ np.diag(np.linspace(0.1, 3, 30))
  root = jnp.linalg.cholesky(jnp.float32(x.T @ x / 300)).T
  errors = [
    np.linalg.norm(x @ (total(*alternated(w, r, 2, 1150, 10), 1150) - w))
    for r in (root, None)
  ]
  assert errors[0] < errors[1]


@pytest.mark.slow
def test_amounts_are_exact() -> None:
  params = start(TINY)['params']
  done = recipe.parse('lowrank.plus_sparse(2, 0.75)').init(
    params, calibrated(TINY)
  )
  for path, node in tree.find(Summed, done).items():
    w = tree.paths(params)[path]
    assert node.low.u.shape[-1] == 2
    assert int(jnp.sum(~node.sparse.mask)) == round(0.75 * w.size)
    errors = [
      np.linalg.norm(np.asarray(tree.decode(x) - w)) for x in (node, node.low)
    ]
    assert errors[0] < errors[1] < np.linalg.norm(w)


@pytest.mark.slow
def test_a_layer_corrects_those_before() -> None:
  """The last layer is fitted to what the compressed one before it gives."""
  loss = {}
  probe = calibrated(TINY).probe
  assert probe is not None
  for examples in (0, 32):
    text = f'lowrank.plus_sparse(1, 0.8, examples={examples})'
    params = one_shot(TINY, text)['params']
    want, found = (
      probe.apply(p, *probe.examples) for p in (start(TINY)['params'], params)
    )
    loss[examples] = float(jnp.sum((found - want) ** 2))
  assert loss[32] < loss[0]


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('lowrank.plus_sparse(0)', 'rank of 1 or more'),
    ('lowrank.plus_sparse(1, 1.0)', 'sparsity'),
    ('lowrank.plus_sparse(1, examples=-1)', 'examples from 0'),
    ('lowrank.plus_sparse(1, sweeps=0)', 'sweeps from 1'),
  ],
)
def test_impossible_arguments_are_refused(text: str, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    recipe.parse(text)


def test_calibration_data_is_required() -> None:
  method = recipe.parse('lowrank.plus_sparse(2)')
  with pytest.raises(ValueError, match='expected calibration data'):
    method.init(start(TINY)['params'], Ctx())
