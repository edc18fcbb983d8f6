"""Sliced weights: what is left, where it stood, and cuts upon cuts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress import tree
from compress.channels import sliced as sliced_lib
from compress.channels.dependency import Group, Slice
from compress.channels.sliced import Sliced
from compress.prune.magnitude import Masked
from compress.quantize.fake_quant import FakeQuantized
from compress.quantize.integer_codes import Quantized
from tests.runs import assert_same_bits

W = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
ENTRIES = {1: np.array([[0, 2], [1, 3]]), 2: np.arange(6)[:, None]}


def group(*parts: tuple[int, np.ndarray]) -> Group:
  """Return a group that goes with one array along some axes."""
  return Group(
    'g', tuple(Slice('w', a, np.array(e), 'consumes') for a, e in parts)
  )


def sliced(keep: tuple[int, ...], axis: int) -> Sliced:
  """Return what is left of the array along one axis."""
  at = jnp.array(keep, jnp.int32)
  return Sliced(jnp.take(W, at, axis), at, axis, W.shape[axis])


@given(st.integers(0, 2), st.data())
@settings(max_examples=6, deadline=None)
def test_what_was_removed_decodes_to_zero(
  axis: int, data: st.DataObject
) -> None:
  size = W.shape[axis]
  left = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
  want = W * np.expand_dims(left, [i for i in range(3) if i != axis])
  node = sliced(tuple(np.flatnonzero(left).tolist()), axis)
  np.testing.assert_array_equal(node.decode(), want)
  np.testing.assert_array_equal(node.filled(), want)


def test_zeroing_gives_what_cut_weights_decode_to() -> None:
  groups = [
    Group('a', (Slice('w', 1, ENTRIES[1], 'produces'),)),
    Group('b', (Slice('w', 2, ENTRIES[2], 'consumes'),)),
  ]
  before = {'a': np.array([True, True]), 'b': np.arange(6) != 2}
  params = {'w': jnp.array(W), 'other': jnp.ones(3), 'none': None}
  once = sliced_lib.cut_all(params, groups, before)
  for start in (params, once):
    zeroed = sliced_lib.zeroing(start, groups)
    for keeps in (
      before,
      {'a': np.array([True, False]), 'b': np.arange(6) > 1},
      {'a': np.array([True, False]), 'b': np.arange(6) == 3},
    ):
      if start is once:
        keeps = {**keeps, 'b': keeps['b'] & before['b']}
      expected = tree.decode(sliced_lib.cut_all(params, groups, keeps))
      assert_same_bits(zeroed(keeps), expected)


@pytest.mark.slow
@given(st.lists(st.booleans(), min_size=6, max_size=6), st.booleans())
@settings(max_examples=6, deadline=None)
def test_cuts_along_two_axes_commute(keep: list[bool], turned: bool) -> None:
  cuts = [(1, np.array([True, False])), (2, np.array(keep))]
  params, want = {'w': jnp.array(W), 'other': jnp.ones(3)}, W.copy()
  for axis, kept in cuts[:: -1 if turned else 1]:
    params = sliced_lib.cut(params, group((axis, ENTRIES[axis])), kept)
    for gone in ENTRIES[axis][~kept].ravel():
      want[(slice(None),) * axis + (gone,)] = 0
  np.testing.assert_array_equal(tree.decode(params)['w'], want)
  assert params['other'].shape == (3,)
  x = params['w']
  assert sliced_lib.unsliced(x).shape == (3, 2, sum(keep))
  assert [sliced_lib.size_along(x, axis) for axis in range(3)] == [3, 4, 6]
  np.testing.assert_array_equal(sliced_lib.kept(x, 1), [0, 2])
  np.testing.assert_array_equal(sliced_lib.kept(x, 2), np.flatnonzero(keep))
  assert sliced_lib.kept(x, 0) is None


@pytest.mark.slow
@given(
  st.lists(st.booleans(), min_size=2, max_size=2),
  st.lists(st.booleans(), min_size=4, max_size=4),
)
@settings(max_examples=6, deadline=None)
def test_two_groups_share_an_axis(one: list[bool], other: list[bool]) -> None:
  # As behind a concatenation; another axis is cut between the two.
  params = {'w': jnp.array(W)}
  params = sliced_lib.cut(params, group((2, [[0], [3]])), np.array(one))
  both = np.array([False, True])
  params = sliced_lib.cut(params, group((1, ENTRIES[1])), both)
  rest = group((2, [[1], [2], [4], [5]]))
  params = sliced_lib.cut(params, rest, np.array(other))
  left = np.insert(np.array(other), [0, 2], one)
  want = W * left
  want[:, [0, 2]] = 0
  np.testing.assert_array_equal(tree.decode(params)['w'], want)
  assert sliced_lib.unsliced(params['w']).shape == (3, 2, left.sum())
  np.testing.assert_array_equal(
    sliced_lib.kept(params['w'], 2), np.flatnonzero(left)
  )


def test_a_group_may_hold_an_array_twice() -> None:
  square = {'w': jnp.arange(16.0).reshape(4, 4)}
  each = np.arange(4)[:, None]
  keep = np.array([True, False, True, True])
  small = sliced_lib.cut(square, group((0, each), (1, each)), keep)
  np.testing.assert_array_equal(
    tree.decode(small)['w'], np.outer(keep, keep) * square['w']
  )
  assert sliced_lib.unsliced(small['w']).shape == (3, 3)


def test_only_kept_entries_are_trained() -> None:
  trainable, frozen = tree.split({'w': sliced((1, 4), 2)})
  assert [x.shape for x in jax.tree.leaves(trainable)] == [(3, 4, 2)]
  assert [x.tolist() for x in jax.tree.leaves(frozen)] == [[1, 4]]
  grads = jax.grad(lambda f: jnp.sum(tree.decode(tree.merge(f, frozen))['w']))(
    trainable
  )
  np.testing.assert_array_equal(grads['w'].w, np.ones((3, 4, 2)))


@pytest.mark.slow
@pytest.mark.parametrize('axis', [0, 1, 2])
def test_grids_and_masks_inside_fill_to_the_same_bits(axis: int) -> None:
  node = sliced((0, 2), axis)
  grid = node.replace(w=FakeQuantized(node.w, None, 8))
  mask = node.replace(w=Masked(node.w, node.w > 0))
  for wrapped, kind in ((grid, Quantized), (mask, jax.Array)):
    frozen = sliced_lib.filled(tree.freeze({'w': wrapped}))['w']
    assert isinstance(frozen, kind)
    np.testing.assert_array_equal(
      tree.decode({'w': frozen})['w'], tree.decode({'w': wrapped})['w']
    )


def test_a_node_that_cannot_scatter_stays_inside() -> None:
  inner = Masked(Masked(jnp.ones((3, 2)), jnp.eye(3, 2) > 0), jnp.ones((3, 2)))
  node = Sliced(inner, jnp.array([0, 2]), 1, 4)
  assert node.filled() is node
