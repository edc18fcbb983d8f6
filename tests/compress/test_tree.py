"""Trees of nodes: splitting, naming, decoding, freezing."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from hypothesis import given, settings
from hypothesis import strategies as st

from compress import recipe, tree
from compress.method import Ctx
from compress.prune.magnitude import Masked
from compress.quantize.fake_quant import FakeQuantized
from compress.quantize.integer_codes import Inputs, Quantized
from compress.tree import Compressed

W = jnp.array([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])
MASK = jnp.array([[True, False, True], [False, True, True]])
RANGE = Inputs(jnp.float32(-1.0), jnp.float32(3.0), 2)


@struct.dataclass
class Sum(Compressed):
  """A weight as the sum of two that methods may compress further."""

  trainable = ('u', 'v')
  inner = ('u', 'v')
  u: Any
  v: Any

  def decode(self) -> jax.Array:
    """Return the sum."""
    return self.u + self.v


@struct.dataclass
class Noisy(Compressed):
  """A weight with noise, so that a test sees the keys."""

  trainable = ('w',)
  inner = ('w',)
  w: Any

  def decode(self) -> jax.Array:
    """Return the weight."""
    return self.w

  def decode_training(self, key: jax.Array | None) -> jax.Array:
    """Return what a draw leaves of the weight: twice is nothing."""
    return jax.random.normal(tree.expect_key('noisy', key)) - self.w


def nested() -> dict[str, Any]:
  """Return a tree with nodes of every depth."""
  return {
    'conv': {'bias': jnp.zeros(3), 'kernel': Masked(W, MASK)},
    'deep': Masked(FakeQuantized(W, RANGE, 4), MASK),
    'sum': Sum(FakeQuantized(2 * W, None, 4), Masked(W, MASK)),
    'table': W,
  }


weights = st.integers(1, 9).map(lambda i: i * W)
nodes = st.recursive(
  weights,
  lambda inner: st.one_of(
    inner.map(lambda w: Masked(w, MASK)),
    inner.map(lambda w: FakeQuantized(w, RANGE, 4)),
    inner.map(lambda w: FakeQuantized(w, None, 8)),
    st.builds(Sum, inner, inner),
  ),
  max_leaves=6,
)
trees = st.dictionaries(st.sampled_from('abc'), nodes, min_size=1)


@given(trees)
@settings(max_examples=40, deadline=None)
def test_merge_undoes_split(params: dict[str, Any]) -> None:
  trainable, frozen = tree.split(params)
  merged = tree.merge(trainable, frozen)
  assert jax.tree.structure(merged) == jax.tree.structure(params)
  for one, other in zip(
    jax.tree.leaves(merged), jax.tree.leaves(params), strict=True
  ):
    assert one is other
  parts = len(jax.tree.leaves(trainable)) + len(jax.tree.leaves(frozen))
  assert parts == len(jax.tree.leaves(params))


def test_split_separates_trainable_from_frozen() -> None:
  trainable, frozen = tree.split(nested())
  assert jax.tree.leaves(trainable['deep']) == [W]
  assert [x.shape for x in jax.tree.leaves(frozen['deep'])] == [(), (), (2, 3)]
  assert frozen['conv']['bias'] is None
  assert frozen['table'] is None
  assert frozen['sum'].v.mask is MASK
  codes = Quantized(jnp.zeros((2, 3), jnp.int8), jnp.ones(3), None, 8)
  assert not jax.tree.leaves(tree.split({'w': codes})[0])


def test_gradients_flow_to_trainable_leaves_only() -> None:
  trainable, frozen = tree.split({'w': Masked(W, MASK)})
  pulled = jax.grad(
    lambda f: jnp.sum(tree.decode(tree.merge(f, frozen))['w'] ** 2)
  )(trainable)
  np.testing.assert_array_equal(pulled['w'].w, 2 * W * MASK)
  assert pulled['w'].mask is None


def test_paths_do_not_enter_nodes() -> None:
  found = tree.paths(nested())
  assert list(found) == ['conv/bias', 'conv/kernel', 'deep', 'sum', 'table']
  assert isinstance(found['deep'], Masked)


def test_arrays_inside_nodes_keep_the_path_of_the_weight() -> None:
  observed = {}

  def note(path: str, x: jax.Array) -> jax.Array:
    observed[path] = x
    return x + 1

  params = tree.map_arrays(note, nested())
  # Two arrays inside one node are distinguished; a bias is no weight.
  assert sorted(observed) == ['conv/kernel', 'deep', 'sum/u', 'sum/v', 'table']
  np.testing.assert_array_equal(params['deep'].w.w, W + 1)
  np.testing.assert_array_equal(params['sum'].u.w, 2 * W + 1)
  np.testing.assert_array_equal(params['conv']['bias'], np.zeros(3))
  assert params['deep'].mask is MASK


def test_nodes_are_mapped_innermost_first() -> None:
  order = []

  def note(path: str, node: Any) -> Any:
    order.append((path, type(node).__name__))
    return node

  tree.map_nodes(Compressed, note, nested())
  assert order == [
    ('conv/kernel', 'Masked'),
    ('deep', 'FakeQuantized'),
    ('deep', 'Masked'),
    ('sum/u', 'FakeQuantized'),
    ('sum/v', 'Masked'),
    ('sum', 'Sum'),
  ]


def test_map_nodes_changes_one_kind_at_any_depth() -> None:
  params = tree.map_nodes(
    Masked, lambda _, node: node.replace(mask=~node.mask), nested()
  )
  np.testing.assert_array_equal(params['sum'].v.mask, ~MASK)
  np.testing.assert_array_equal(params['deep'].mask, ~MASK)
  assert params['deep'].w.bits == 4


def test_find_reaches_every_depth() -> None:
  assert sorted(tree.find(Masked, nested())) == ['conv/kernel', 'deep', 'sum/v']
  assert sorted(tree.find(FakeQuantized, nested())) == ['deep', 'sum/u']
  assert tree.find(Masked, {'w': W}) == {}


def test_descend_names_fields_only_where_there_are_several() -> None:
  names: list[str] = []
  for node in (Masked(W, MASK), Sum(W, W)):
    tree.descend(lambda path, x: names.append(path) or x, 'fc', node)
  assert names == ['fc', 'fc/u', 'fc/v']


@pytest.mark.parametrize(
  ('x', 'weight'),
  [
    (jnp.ones((1, 1)), True),
    (jnp.ones((2, 2), jnp.float16), True),
    (jnp.ones(4), False),
    (jnp.float32(1), False),
    (jnp.ones((2, 2), jnp.int8), False),
    (jnp.ones((2, 2), bool), False),
  ],
)
def test_weights_have_two_axes_and_a_float_type(x: Any, weight: bool) -> None:
  assert tree.is_weight(x) == weight


def test_latent_is_the_array_that_is_trained() -> None:
  assert tree.latent(W) is W
  assert tree.latent(Masked(FakeQuantized(W, None, 2), MASK)) is W
  assert tree.latent(FakeQuantized(Masked(W, MASK), None, 2)) is W
  codes = jnp.array([[1, 2, 3], [-1, 0, 1]], jnp.int8)
  coded = Quantized(codes, jnp.array([1.0, 0.5, 2.0]), None, 8)
  np.testing.assert_array_equal(
    tree.latent(Masked(coded, MASK)), [[1, 1, 6], [-1, 0, 2]]
  )
  np.testing.assert_array_equal(
    tree.latent(Masked(Sum(W, Masked(W, MASK)), MASK)), W + np.where(MASK, W, 0)
  )


def test_decode_goes_from_the_inside_out() -> None:
  # The grid sees the masked weight in one order and the whole in the other.
  two_bits = {
    'inside': FakeQuantized(Masked(W, MASK), None, 2),
    'outside': Masked(FakeQuantized(W, None, 2), MASK),
  }
  decoded = tree.decode(two_bits)
  np.testing.assert_array_equal(decoded['inside'], [[1, 0, 0], [0, 5, -6]])
  np.testing.assert_array_equal(decoded['outside'], [[0, 0, 0], [0, 5, -6]])


def test_every_node_draws_from_its_own_key() -> None:
  params = {'a': Noisy(W), 'b': Noisy(W), 'c': Noisy(Noisy(W)), 'd': W}
  key = jax.random.key(0)
  first, again = (
    tree.decode_training(params, key),
    tree.decode_training(params, key),
  )
  other = tree.decode_training(params, jax.random.key(1))
  corners = [float(x['a'][0, 0]) for x in (first, other)]
  assert len({*corners, float(first['b'][0, 0])}) == 3
  assert np.abs(first['c'] - W).min() > 1e-3
  np.testing.assert_array_equal(first['c'], again['c'])
  np.testing.assert_array_equal(first['d'], W)
  np.testing.assert_array_equal(tree.decode(params)['c'], W)
  assert tree.decode_training({}, key) == {}


@given(trees)
@settings(max_examples=40, deadline=None)
def test_freezing_keeps_the_bits(params: dict[str, Any]) -> None:
  frozen = tree.freeze(params)
  for name, x in tree.decode(params).items():
    np.testing.assert_array_equal(tree.decode(frozen)[name], x)
  # Frozen once, there is nothing left to freeze.
  again = tree.freeze(frozen)
  assert jax.tree.structure(again) == jax.tree.structure(frozen)


def test_freezing_takes_the_mask_into_the_weight_where_it_can() -> None:
  frozen = tree.freeze(nested())
  assert isinstance(frozen['conv']['kernel'], jax.Array)
  assert isinstance(frozen['deep'], Quantized)
  np.testing.assert_array_equal(frozen['deep'].codes[~MASK], np.zeros(2))
  stays = tree.freeze({'w': Masked(Sum(W, Masked(W, MASK)), MASK)})['w']
  assert isinstance(stays, Masked)
  assert isinstance(stays.w.v, jax.Array)


def test_grids_are_met_through_any_wrapping() -> None:
  x = jnp.array([-5.0, 0.2, 2.0])
  rounded = RANGE.round(x)
  assert not np.array_equal(rounded, x)
  grid = FakeQuantized(W, RANGE, 4)
  for node in (grid, Masked(grid, MASK), Masked(grid, MASK).freeze()):
    np.testing.assert_array_equal(node.transform_input(x), rounded)
  for node in (Masked(W, MASK), FakeQuantized(W, None, 4)):
    assert node.transform_input(x) is x


def test_nodes_that_cannot_scale_say_so() -> None:
  assert Sum(W, W).scale_channels(jnp.ones(3)) is None
  assert Sum(W, W).apply_mask(MASK) is None


@pytest.mark.parametrize('axis', [0, 1])
def test_scattered_is_the_inverse_of_taking(axis: int) -> None:
  size, keep = W.shape[axis], np.array([1, 0])
  part = jnp.take(W, keep, axis)
  found = np.asarray(tree.scattered(part, keep, axis, size, fill=7))
  np.testing.assert_array_equal(np.take(found, keep, axis), part)
  assert found.shape == W.shape
  assert np.all(np.delete(found, keep, axis) == 7)


def test_missing_leaves_are_filled_from_another_tree() -> None:
  part = {'a': Masked(W, MASK), 'b': None, 'c': {'d': None}}
  dense = {'a': 2 * W, 'b': W, 'c': {'d': MASK}}
  filled = tree.filled(part, dense)
  np.testing.assert_array_equal(filled['a'], np.where(MASK, W, 0))
  assert filled['b'] is W
  assert filled['c']['d'] is MASK


def test_nodes_hold_weights_by_what_they_decode_to() -> None:
  coded = Quantized(jnp.ones((2, 3), jnp.int8), jnp.ones(3), None, 8)
  assert tree.is_weight(coded)
  assert tree.is_weight(W)
  assert not tree.is_weight(Masked(jnp.ones(3), jnp.ones(3, bool)))
  assert not tree.is_weight(coded.codes)


def test_the_first_array_of_a_node_meets_the_input() -> None:
  assert tree.meeting(nested()) == {
    'conv/bias': 'conv/bias',
    'conv/kernel': 'conv/kernel',
    'deep': 'deep',
    'sum/u': 'sum',
    'table': 'table',
  }


@pytest.mark.slow
@pytest.mark.parametrize(
  'text',
  [
    'lc(prune.weights(0.5))',
    'admm(quantize.uniform(4))',
    'prune.l0(1.0)',
    'prune.variational(1.0)',
    'binary.weights(stochastic=True)',
    'prune.l0(1.0) >> quantize.uniform(4)',
  ],
)
def test_what_is_deployed_is_not_trained_where_training_differs(
  text: str,
) -> None:
  nodes = recipe.parse(text).init({'w': W}, Ctx(steps=9))
  trainable, frozen = tree.split(nodes)

  def loss(trainable: Any, decode: Any = tree.decode) -> jax.Array:
    return jnp.sum(decode(tree.merge(trainable, frozen))['w'] ** 2)

  assert np.isfinite(loss(trainable))  # it may be evaluated
  for grad in (jax.grad(loss), jax.jit(jax.value_and_grad(loss))):
    with pytest.raises(ValueError, match='or compress.decode_training'):
      grad(trainable)
  training = functools.partial(tree.decode_training, key=jax.random.key(0))
  assert jax.tree.leaves(jax.grad(loss)(trainable, training))


def test_learning_compression_trains_without_a_key() -> None:
  nodes = recipe.parse('lc(prune.weights(0.5))').init({'w': W}, Ctx(steps=9))
  np.testing.assert_array_equal(tree.decode_training(nodes)['w'], W)


@pytest.mark.parametrize(
  'text',
  [
    'prune.l0(1.0)',
    'prune.variational(1.0)',
    'binary.weights(stochastic=True)',
  ],
)
def test_what_draws_random_numbers_asks_for_a_key(text: str) -> None:
  nodes = recipe.parse(text).init({'w': W}, Ctx(steps=9))
  with pytest.raises(ValueError, match='expected a key in training'):
    tree.decode_training(nodes)


def test_a_node_that_decodes_with_a_key_is_refused() -> None:
  with pytest.raises(TypeError, match=r'is decode_training\(self, key\)'):

    class Keyed(Compressed):
      def decode(self, key: Any) -> Any:
        return key


@pytest.mark.parametrize('text', ['', 'prune.weights(0.5)', 'quantize.lsq(3)'])
def test_what_trains_as_it_is_deployed_needs_no_key(text: str) -> None:
  trainable, frozen = tree.split(recipe.parse(text).init({'w': W}, Ctx()))
  grads = jax.grad(
    lambda x: jnp.sum(tree.decode(tree.merge(x, frozen))['w'] ** 2)
  )(trainable)
  assert np.any(np.asarray(jax.tree.leaves(grads)[0]) != 0)


@pytest.mark.parametrize(
  ('text', 'want'),
  [
    ('', ['w']),
    ('quantize.lsq(3, per=1)', ['w/w']),  # steps [2, 3], one an entry
    ('quantize.lsq(3, per=2) >> prune.weights(0.5)', ['w/w/w']),
    ('prune.weights(0.5) >> quantize.uniform(4)', ['w/w/w']),
    ('prune.l0(1.0)', ['w/w']),
    ('prune.variational(1.0)', ['w/w']),
    ('lowrank.svd(1)', ['w/u', 'w/v']),
    ('lc(lowrank.svd(1))', ['w/goal/u', 'w/goal/v', 'w/w']),
    ('share.product(2, 1)', ['w/values']),
  ],
)
def test_nodes_say_what_decays(text: str, want: list[str]) -> None:
  params = {'b': jnp.ones(3), 'w': W}
  if text:
    params = recipe.parse(text).init(params, Ctx(0, 9, jax.random.key(0)))
  for part in (params, tree.split(params)[0]):
    marks = jax.tree_util.tree_leaves_with_path(tree.decayed(part))
    assert sorted(tree.join(path) for path, mark in marks if mark) == want
    assert jax.tree.structure(tree.decayed(part)) == jax.tree.structure(part)
