"""Banks of moved filters against the moves done by hand."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe
from compress.method import Ctx
from compress.structured import tied_filters

MOVED = {
  ('signs', 2): lambda f: [f, -f],
  ('copies', 3): lambda f: [f, f, f],
  ('turns', 4): lambda f: [np.rot90(f, k) for k in range(4)],
  ('turns', 8): lambda f: [
    np.flip(np.rot90(f, k), 1) if flip else np.rot90(f, k)
    for flip in (False, True)
    for k in range(4)
  ],
  ('crops', 1): lambda f: [
    f[i : i + 3, j : j + 3] for i in (0, 1) for j in (0, 1)
  ],
}


def drawn(*shape: int) -> np.ndarray:
  return np.float32(np.random.default_rng(8).normal(size=shape))


@pytest.mark.slow
@pytest.mark.parametrize('family', MOVED)
def test_a_bank_of_moved_filters_is_found_again(family: Any) -> None:
  side = 4 if family[0] == 'crops' else 3
  stored = [3 * drawn(side, side, 2)]
  bank = [move for f in stored for move in MOVED[family](f)]
  order = np.random.default_rng(1).permutation(len(bank))
  bank = np.stack([bank[i] for i in order], -1)
  node = tied_filters.project(jnp.asarray(bank), *family)
  assert node.values.shape[-1] == 1
  if family[0] != 'crops':  # whose first crop is not known to be the first
    np.testing.assert_allclose(node.decode(), bank, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('family', MOVED)
def test_a_projection_is_nearer_than_its_start_and_one_to_one(
  family: Any,
) -> None:
  w = drawn(3, 3, 2, 10)
  node = tied_filters.project(jnp.asarray(w), *family)
  moves = len(MOVED[family](np.zeros((4, 4, 2))))
  assert node.values.shape[-1] == -(-10 // moves)
  assert len(set(np.asarray(node.order).tolist())) == 10
  assert np.sum((node.decode() - w) ** 2) < np.sum(w**2)
  # Means are the best for their assignment: no step makes them better.
  best = float(np.sum((node.decode() - w) ** 2))
  for change in (0.05, -0.05):
    other = node.replace(values=node.values.at[1, 1, 0, 0].add(change))
    assert float(np.sum((other.decode() - w) ** 2)) > best


def test_crelu_is_the_relu_of_the_bank() -> None:
  f = drawn(3, 3, 1, 2)
  bank = np.concatenate([f, -f], -1)
  made = recipe.parse('structured.crelu()').init(
    {'w': jnp.asarray(bank)}, Ctx()
  )
  assert made['w'].describe() == '4 filters -> 2, 36 -> 18 numbers, signs'
  np.testing.assert_allclose(made['w'].decode(), bank, atol=1e-6)


def test_weights_that_cannot_move_stay_or_are_refused() -> None:
  params = {'conv': jnp.asarray(drawn(3, 3, 1, 4)), 'fc': jnp.ones((4, 4))}
  made = recipe.parse('structured.rotate()').init(params, Ctx())
  assert made['fc'] is params['fc']
  for text, kernel, why in (
    ('structured.rotate()', jnp.ones((3, 5, 1, 4)), 'kernels'),
    ('structured.crop()', jnp.ones((1, 1, 8, 4)), 'kernels'),
    ('structured.crop(0)', params['conv'], 'an extent from 1'),
    ('structured.multi_bias(1)', params['conv'], 'copies from 2'),
  ):
    with pytest.raises(ValueError, match=why):
      recipe.parse(text).init({'w': kernel}, Ctx())
