"""Patterns: groups along the inputs, blocks of the matrix."""

import itertools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from compress import schedule, tree
from compress.method import Ctx, Method
from compress.prune import semi_structured
from compress.prune.masked import Masked

DRAWN = np.random.default_rng(0)
PARAMS = {
  'conv': {'kernel': jnp.float32(DRAWN.normal(size=(3, 3, 2, 5)))},
  'fc': {
    'bias': jnp.ones(4),
    'kernel': jnp.float32(2 * DRAWN.normal(size=(10, 4))),
  },
}


def masks(method: Method, ctx: Ctx | None = None) -> dict[str, np.ndarray]:
  """Return what a method keeps of each weight, as matrices."""
  found = tree.find(Masked, method.init(PARAMS, ctx or Ctx()))
  return {
    path: np.asarray(node.mask).reshape(-1, node.mask.shape[-1])
    for path, node in found.items()
  }


def matrix(path: str) -> np.ndarray:
  """Return a weight as `[inputs, outputs]`."""
  w = np.asarray(tree.paths(PARAMS)[path])
  return w.reshape(-1, w.shape[-1])


@pytest.mark.slow
@pytest.mark.parametrize(('n', 'm'), [(1, 1), (2, 4), (4, 5), (1, 11)])
def test_the_best_n_of_every_m_stay(n: int, m: int) -> None:
  for path, kept in masks(semi_structured.n_m(n, m)).items():
    size = np.abs(matrix(path))
    for start, out in itertools.product(
      range(0, len(size), m), range(size.shape[1])
    ):
      group = size[start : start + m, out]
      left = kept[start : start + m, out]
      best = np.sort(group)[::-1][:n]
      assert sorted(group[left], reverse=True) == best.tolist()


def test_ties_in_a_group_go_by_index() -> None:
  node = semi_structured.n_m(1, 3).init({'w': jnp.ones((6, 1))}, Ctx())['w']
  assert node.mask.ravel().tolist() == [False, False, True] * 2


def test_a_pattern_is_met_gradually_and_stays() -> None:
  compress = semi_structured.n_m(2, 4, schedule=schedule.steps(2))
  begun = compress.init(
    {'w': jnp.float32([[1], [2], [3], [4], [5]])}, Ctx(0, 4)
  )
  assert begun['w'].mask.ravel().tolist() == [False, True, True, True, True]
  after = begun['w'].replace(w=jnp.float32([[9], [8], [3], [7], [5]]))
  done = compress.update({'w': after}, Ctx(2, 4))['w']
  assert done.mask.ravel().tolist() == [False, True, False, True, True]


def slow_norms(w: np.ndarray, shape: tuple[int, int]) -> dict[Any, float]:
  """Return the norm of every block by its first row and column."""
  rows, columns = shape
  return {
    (i, j): float(np.linalg.norm(w[i : i + rows, j : j + columns]))
    for i in range(0, w.shape[0], rows)
    for j in range(0, w.shape[1], columns)
  }


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(1, 1), (3, 2), (4, 4), (20, 5)])
@pytest.mark.parametrize('sparsity', [0.0, 0.55])
def test_the_weakest_blocks_of_each_layer_go(
  shape: tuple[int, int], sparsity: float
) -> None:
  for path, kept in masks(semi_structured.blocks(sparsity, shape)).items():
    norms = slow_norms(matrix(path), shape)
    gone = sorted(norms, key=norms.__getitem__)[: round(sparsity * len(norms))]
    want = np.ones(kept.shape, bool)
    for i, j in gone:
      want[i : i + shape[0], j : j + shape[1]] = False
    np.testing.assert_array_equal(kept, want)


def test_the_weakest_blocks_of_all_layers_go() -> None:
  shape = (3, 2)
  found = masks(semi_structured.blocks(0.5, shape, scope='global'))
  norms = {
    (path, *at): norm
    for path in found
    for at, norm in slow_norms(matrix(path), shape).items()
  }
  gone = set(sorted(norms, key=norms.__getitem__)[: round(0.5 * len(norms))])
  for path, i, j in norms:
    block = found[path][i : i + 3, j : j + 2]
    assert block.all() if (path, i, j) not in gone else not block.any()
  # The weights of 'fc' are larger, so the ranking spares them.
  assert found['fc/kernel'].mean() > found['conv/kernel'].mean()


@pytest.mark.slow
def test_pruned_blocks_stay_pruned() -> None:
  compress = semi_structured.blocks(0.5, (1, 2), schedule=schedule.steps(2))
  begun = compress.init(
    {'w': jnp.float32([[1, 1], [2, 2], [3, 3], [4, 4]])}, Ctx(0, 4)
  )
  assert begun['w'].mask[:, 0].tolist() == [False, True, True, True]
  after = begun['w'].replace(w=jnp.float32([[9, 9], [8, 0], [3, 3], [0, 7]]))
  done = compress.update({'w': after}, Ctx(4, 4))['w']
  np.testing.assert_array_equal(done.mask[:, 0], [False, True, False, True])
  np.testing.assert_array_equal(done.mask[:, 1], done.mask[:, 0])


@pytest.mark.parametrize(
  ('n', 'm'), [(0, 4), (5, 4), (2.0, 4), (2, math.inf), (-1, 2)]
)
def test_impossible_patterns_are_refused(n: Any, m: Any) -> None:
  with pytest.raises(ValueError, match=f'n <= m, got {n!r} and {m!r}'):
    semi_structured.n_m(n, m)


@pytest.mark.parametrize('shape', [(0, 4), (4,), 4, (1, 2, 3), (2.0, 2)])
def test_impossible_blocks_are_refused(shape: Any) -> None:
  with pytest.raises(ValueError, match='prune.blocks: expected a shape of two'):
    semi_structured.blocks(0.5, shape)


@pytest.mark.parametrize(
  ('wrong', 'message'),
  [
    ({'scope': 'all'}, "a scope of layer, global, got 'all'"),
    ({'score': 'all'}, "a score of .*, got 'all'"),
    ({'schedule': 1}, 'a schedule, got 1'),
    ({'sparsity': 1.0}, r'a sparsity in \[0, 1\), got 1.0'),
    ({'floor': 2.0}, 'a floor in .*, got 2.0'),
  ],
)
def test_unknown_choices_are_refused(wrong: Any, message: str) -> None:
  with pytest.raises(ValueError, match=f'prune.blocks: expected {message}'):
    semi_structured.blocks(**{'sparsity': 0.5, **wrong})
