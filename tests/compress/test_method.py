"""The algebra of methods: chaining, restricting, looking ahead."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import method, tree
from compress.method import Ctx, Method, chain, only
from compress.prune import magnitude
from compress.prune.magnitude import Masked
from compress.quantize.fake_quant import FakeQuantized
from compress.quantize.uniform import uniform

PARAMS = {
  'conv': {'bias': jnp.zeros(2), 'kernel': jnp.ones((3, 3, 1, 2))},
  'fc': {'bias': jnp.zeros(4), 'kernel': jnp.arange(8.0).reshape(2, 4)},
}


def adding(amount: float) -> Method:
  """Return a method with three distinguishable parts."""

  def add(params: Any, ctx: Ctx) -> Any:
    del ctx
    return tree.map_arrays(lambda _, x: x + amount, params)

  def loss(params: Any, ctx: Ctx) -> jax.Array:
    return amount * len(tree.paths(params)) * jnp.asarray(ctx.step)

  return Method(add, add, loss)


def seeing(observed: list[Ctx]) -> Method:
  """Return a method that writes down what it may look at."""

  def note(params: Any, ctx: Ctx) -> Any:
    observed.append(ctx)
    return params

  def loss(params: Any, ctx: Ctx) -> jax.Array:
    return method.zero(note(params, ctx), ctx)

  return Method(note, note, loss)


@pytest.mark.parametrize(
  ('step', 'progress'), [(0, 0.0), (3, 0.25), (12, 1.0), (15, 1.0)]
)
def test_progress_is_the_share_of_the_run(step: int, progress: float) -> None:
  assert float(Ctx(step, 12).progress) == progress
  traced = jax.jit(lambda step: Ctx(step, 12).progress)
  assert float(traced(step)) == progress


def test_later_methods_go_inside() -> None:
  both = chain(magnitude.weights(0.5), uniform(4))
  node = both.init(PARAMS, Ctx())['fc']['kernel']
  assert isinstance(node, Masked)
  assert isinstance(node.w, FakeQuantized)
  other = chain(uniform(4), magnitude.weights(0.5))
  node = other.init(PARAMS, Ctx())['fc']['kernel']
  assert isinstance(node, FakeQuantized)
  assert isinstance(node.w, Masked)


def test_chains_run_left_to_right() -> None:
  double = Method(lambda params, ctx: jax.tree.map(lambda x: 2 * x, params))
  one = {'w': jnp.ones((1, 1))}
  assert float(chain(adding(1.0), double).init(one, Ctx())['w'][0, 0]) == 4.0
  assert float(chain(double, adding(1.0)).init(one, Ctx())['w'][0, 0]) == 3.0


def test_later_methods_see_what_earlier_ones_have_changed() -> None:
  observed = []

  def note(params: Any, ctx: Ctx) -> Any:
    observed.append(ctx.stats)
    return params

  double = Method(lambda params, ctx: jax.tree.map(lambda x: 2 * x, params))
  probe: Any = type('P', (), {'ranges': staticmethod(lambda p: {'w': p['w']})})
  ctx = Ctx(stats={'w': 0}, probe=probe)
  chain(Method(note), double, chain(double, Method(note))).init({'w': 1}, ctx)
  assert observed == [{'w': 0}, {'w': 4}]
  observed.clear()
  chain(double, Method(note)).init({'w': 1}, ctx._replace(probe=None))
  assert observed == [{'w': 0}]  # nobody could tell


def test_losses_add_up() -> None:
  both = chain(adding(1.0), Method(), adding(0.5))
  assert float(both.loss(PARAMS, Ctx(step=2))) == 2 * (1.0 + 0.5) * 4
  assert float(chain().loss(PARAMS, Ctx())) == 0.0


def test_the_unit_hands_back_what_it_got() -> None:
  assert chain().init(PARAMS, Ctx()) is PARAMS
  assert chain().update(PARAMS, Ctx()) is PARAMS
  one = magnitude.weights(0.5)
  assert chain(one) is one


def test_only_does_not_change_the_rest() -> None:
  method = only('fc/kernel', adding(1.0))
  for part in (method.init, method.update):
    after = part(PARAMS, Ctx())
    assert after['conv']['kernel'] is PARAMS['conv']['kernel']
    assert after['fc']['bias'] is PARAMS['fc']['bias']
    np.testing.assert_array_equal(
      after['fc']['kernel'], np.arange(1.0, 9.0).reshape(2, 4)
    )
  assert float(method.loss(PARAMS, Ctx(step=1))) == 1.0


def test_only_matches_full_paths() -> None:
  with pytest.raises(ValueError, match="got 'fc'.*Nearest: 'fc/kernel'"):
    only('fc', adding(1.0)).init(PARAMS, Ctx())
  twins = {'kernel': jnp.ones((2, 2)), 'kernel_2': jnp.ones((2, 2))}
  after = only('kernel', adding(1.0)).init(twins, Ctx())
  assert [float(x[0, 0]) for x in after.values()] == [2.0, 1.0]
  # A bias is in the tree, but it is no weight that a method could take.
  with pytest.raises(ValueError, match='conv/kernel, fc/kernel'):
    only('fc/bias', adding(1.0)).init(PARAMS, Ctx())


def test_only_reaches_weights_inside_nodes() -> None:
  pruned = magnitude.weights(0.5).init(PARAMS, Ctx())
  after = only('fc/kernel', uniform(4)).init(pruned, Ctx())
  assert isinstance(after['fc']['kernel'].w, FakeQuantized)
  assert not tree.is_node(after['conv']['kernel'].w)


def test_only_separates_methods_of_one_kind() -> None:
  both = chain(
    only('conv/.*', magnitude.weights(0.5)),
    only('fc/.*', magnitude.weights(0.25)),
  )
  params = both.init(PARAMS, Ctx())
  assert int(jnp.sum(~params['conv']['kernel'].mask)) == 9
  assert int(jnp.sum(~params['fc']['kernel'].mask)) == 2


def test_only_restricts_a_global_ranking() -> None:
  params = only('fc/.*', magnitude.weights(0.5, scope='global')).init(
    PARAMS, Ctx()
  )
  np.testing.assert_array_equal(
    params['fc']['kernel'].mask, np.arange(8).reshape(2, 4) >= 4
  )
  assert not tree.is_node(params['conv']['kernel'])


def test_only_shows_gradients_of_its_weights() -> None:
  observed: list[Ctx] = []
  watched = only('fc/.*', seeing(observed))
  for part in (watched.init, watched.update, watched.loss):
    part(PARAMS, Ctx(step=5, grads=PARAMS))
    part(PARAMS, Ctx(step=5))
  assert len(observed) == 6
  assert all(ctx.step == 5 for ctx in observed)
  for ctx in observed[::2]:
    assert list(tree.paths(ctx.grads)) == ['fc/bias', 'fc/kernel']
  assert all(ctx.grads is None for ctx in observed[1::2])


@pytest.mark.parametrize('where', ['(', '*', '[a-'])
def test_only_refuses_what_is_no_pattern(where: str) -> None:
  with pytest.raises(ValueError, match='expected a regular expression'):
    only(where, adding(1.0))


def test_only_in_a_network_without_weights() -> None:
  with pytest.raises(ValueError, match="Nearest: 'none'"):
    only('.*', adding(1.0)).init({'bias': jnp.zeros(3)}, Ctx())


def test_abstract_computes_nothing() -> None:
  shape = jax.ShapeDtypeStruct((10_000, 10_000, 100), jnp.float32)
  huge = {'fc': {'kernel': shape}}  # 40 GB, were it ever made
  found = method.abstract(uniform(4), huge, Ctx())
  assert found == huge


@pytest.mark.parametrize('step', [0, 3])
def test_a_run_without_steps_is_done(step: int) -> None:
  assert float(Ctx(step, 0).progress) == 1.0
  assert float(jax.jit(lambda n: Ctx(step, n).progress)(0)) == 1.0


def test_shapes_are_traced_and_computed_only_if_need_be() -> None:
  x, requested = jnp.arange(-1.0, 3.0), []

  def values() -> jax.Array:
    requested.append(1)
    return x

  found = method.traced(lambda x: {'y': x[:2]}, x, values)
  assert found == {'y': jax.ShapeDtypeStruct((2,), jnp.float32)}
  assert not requested
  for fn in (
    lambda x: x[: int(x.max())],
    lambda x: jnp.asarray(np.asarray(x)[:2]),
  ):
    found = method.traced(fn, x, values)
    assert found == jax.ShapeDtypeStruct((2,), jnp.float32)
  assert len(requested) == 2
  with pytest.raises(TypeError):
    method.traced(lambda x: x + 'text', x, values)
