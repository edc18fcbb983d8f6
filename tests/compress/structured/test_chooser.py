"""The choice of a structure, and its description."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from compress import recipe, tree
from compress.method import Ctx
from compress.structured.chooser import Chosen, candidates
from compress.unchanged import UnchangedWarning

DRAWN = np.random.default_rng(6).normal(size=64)
PARAMS = {
  'turns': jnp.float32(scipy.linalg.hadamard(16)),
  'shifts': jnp.float32(scipy.linalg.toeplitz(DRAWN[:16], DRAWN[16:32])),
}


@pytest.mark.slow
def test_each_weight_gets_the_structure_it_has() -> None:
  text = 'structured.auto(0.5, sensitivity="energy")'
  made = recipe.parse(text).init(PARAMS, Ctx())
  assert made['turns'].family == 'butterfly'
  assert made['shifts'].family == 'toeplitz'
  for path, node in made.items():
    np.testing.assert_allclose(node.decode(), PARAMS[path], atol=1e-3)
    losses = [loss for _, loss in node.tried]
    assert losses == sorted(losses)
    assert len(losses) > 4
    assert f'sensitivity: {node.tried[0][0]} ' in node.describe()
    assert 'circulant/2 +' in node.describe()


@pytest.mark.slow
def test_weights_too_small_for_tiles_are_left_with_a_warning() -> None:
  params = {**PARAMS, 'small': jnp.ones((2, 2))}
  method = recipe.parse('structured.auto(0.3, sensitivity="energy")')
  with pytest.warns(UnchangedWarning, match='left small unchanged: no tiles'):
    made = method.init(params, Ctx())
  assert made['small'] is params['small']
  assert tree.is_node(made['turns'])


def test_what_was_tried_is_not_stored() -> None:
  text = 'structured.auto(0.3, sensitivity="energy", families=("circulant",))'
  made = recipe.parse(text).init(PARAMS, Ctx())
  frozen = tree.freeze(made)
  assert tree.find(Chosen, made)
  assert not tree.find(Chosen, frozen)
  np.testing.assert_array_equal(
    frozen['turns'].decode(), made['turns'].decode()
  )


@pytest.mark.parametrize('size', [0.1, 0.3])
def test_candidates_are_the_smallest_that_fit(size: float) -> None:
  found = candidates((64, 32), size, ('circulant', 'fastfood', 'toeplitz'))
  assert {c.family for c in found} >= {'circulant', 'fastfood'}
  for c in found:
    lines = {'circulant': 1, 'fastfood': 3, 'toeplitz': 2 * c.rank}[c.family]
    share = lines / c.block
    if c.block <= 32:
      assert share <= size < 2 * share


@pytest.mark.parametrize(
  ('arguments', 'why'),
  [
    ('1.0', r'a size in \(0, 1\)'),
    ('0.5, sensitivity="none"', 'sensitivity of energy'),
    ('0.5, families=("other",)', 'families of butterfly'),
    ('0.001', 'fewer numbers than some weight of shifts'),
    ('0.5', 'calibration data'),
  ],
)
def test_what_cannot_be_is_refused(arguments: str, why: str) -> None:
  with pytest.raises(ValueError, match=why):
    recipe.parse(f'structured.auto({arguments})').init(PARAMS, Ctx())
