"""Learning and compressing in turn: every projection, one loop."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe, tree
from compress.learning_compression import Learning
from compress.method import Ctx, Method
from compress.prune.masked import Masked
from tests import toy

W = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
PROJECTIONS = (
  'binary.weights()',
  'lowrank.plus_sparse(1, 0.8, examples=0, sweeps=3)',
  'lowrank.svd(1)',
  'prune.blocks(0.5, (2, 1))',
  'prune.n_m(2, 4)',
  'prune.weights(0.5) >> quantize.uniform(3)',
  'prune.weights(0.8) >> share.kmeans(3)',
  'quantize.half()',
  'quantize.ternary()',
  'share.hashed(0.3)',
  'share.product(4, 2)',
)


# The others search, and need not find the same again.
EXACT = [text for text in PROJECTIONS if not re.search('share|plus', text)]


def keyed(method: Method) -> Method:
  """Return a method whose context always has the same key."""

  def with_key(ctx: Ctx) -> Ctx:
    return ctx._replace(key=jax.random.key(7))

  return Method(
    lambda params, ctx: method.init(params, with_key(ctx)),
    lambda params, ctx: method.update(params, with_key(ctx)),
    method.loss,
  )


def descend(
  method: Method, slope: Any, steps: int, lr: float, start: np.ndarray
) -> list[Any]:
  """Return the nodes before and after each step of gradient descent."""
  nodes = method.init({'w': jnp.asarray(start)}, Ctx(0, steps))
  history = [nodes]

  @jax.jit
  def step(nodes: Any, at: Any) -> Any:
    trainable, frozen = tree.split(nodes)
    dense, pull = jax.vjp(
      lambda f: tree.decode_training(tree.merge(f, frozen), jax.random.key(0))[
        'w'
      ],
      trainable,
    )
    direct = jax.grad(
      lambda f: method.loss(tree.merge(f, frozen), Ctx(at, steps))
    )(trainable)
    grads = jax.tree.map(jnp.add, pull(slope(dense))[0], direct)
    trainable = jax.tree.map(lambda x, g: x - lr * g, trainable, grads)
    return method.update(tree.merge(trainable, frozen), Ctx(at + 1, steps))

  for at in range(steps):
    nodes = step(nodes, jnp.int32(at))
    history.append(nodes)
  return history


@pytest.mark.slow
@pytest.mark.parametrize('text', PROJECTIONS)
def test_every_projection_ends_near_what_it_stands_for(text: str) -> None:
  done = toy.fit(
    keyed(recipe.parse(f'lc({text}, mu=1.0, rounds=10, finetune_at=1.0)')),
    steps=100,
  )
  node = done.nodes['w']
  np.testing.assert_array_equal(
    tree.decode(tree.freeze(done.nodes))['w'], done.w
  )
  again = keyed(recipe.parse(text)).init({'w': jnp.asarray(done.w)}, Ctx())
  assert jax.tree.structure(again['w']) == jax.tree.structure(node.goal)
  assert not np.array_equal(done.w, node.w)
  if text in EXACT:  # feasible: a projection leaves what it gave
    np.testing.assert_allclose(tree.decode(again)['w'], done.w, atol=1e-5)


def test_it_is_the_algorithm_by_hand() -> None:
  """Carreira-Perpinan & Idelbayev 2017, figure 2, for pruning."""
  steps, rounds, mu, growth, lr = 12, 3, 0.5, 2.0, 0.1
  text = f'lc(prune.weights(0.5), mu={mu}, growth={growth}, rounds=3'
  method = recipe.parse(f'{text}, finetune_at=1.0)')
  target = np.ones((6, 4), np.float32)
  history = descend(method, lambda w: w - target, steps, lr, W)

  def project(w: np.ndarray) -> np.ndarray:
    order = np.argsort(np.abs(w), axis=None, kind='stable')
    out = w.copy()
    out.flat[order[: w.size // 2]] = 0
    return out

  w, goal, dual = W.astype(float), project(W).astype(float), np.zeros_like(W)
  for at in range(steps):
    w = w - lr * ((w - target) + mu * (w - goal - dual / mu))
    if (at + 1) % (steps // rounds) == 0:
      last = at + 1 == steps  # which compresses the weights themselves
      goal = project(w if last else w - dual / mu)
      dual = dual - mu * (w - goal)
      mu *= growth
    node = history[at + 1]['w']
    np.testing.assert_allclose(node.w, w, atol=1e-5)
    np.testing.assert_allclose(-mu * node.dual, dual, atol=1e-4)
    np.testing.assert_allclose(
      tree.decode(history[at + 1])['w'], _kept(goal, node), atol=1e-5
    )


def _kept(goal: np.ndarray, node: Learning) -> np.ndarray:
  """Return a goal moved as far as the optimizer moves what it holds: not."""
  assert isinstance(node.goal, Masked)
  return np.where(node.goal.mask, goal, 0)


def test_low_rank_reaches_reduced_rank_regression() -> None:
  """The best network of rank 1 is known where the loss is quadratic."""
  drawn = np.random.default_rng(1)
  x = drawn.normal(size=(60, 6)) @ np.diag([5.0, 3, 2, 1, 0.5, 0.3])
  y = x @ drawn.normal(size=(6, 4)) + drawn.normal(size=(60, 4))
  full = np.linalg.lstsq(x, y, rcond=None)[0]
  side = np.linalg.svd(x @ full)[2][:1]
  best = full @ side.T @ side

  def loss(w: Any) -> float:
    return float(np.mean((x @ np.asarray(w, float) - y) ** 2))

  def slope(w: Any) -> Any:
    return jnp.float32(x.T / len(x)) @ (jnp.float32(x) @ w - jnp.float32(y))

  method = recipe.parse(
    'lc(lowrank.svd(1), mu=5.0, growth=1.05, rounds=30, finetune_at=1.0)'
  )
  history = descend(method, slope, 600, 0.02, full.astype(np.float32))
  direct, learned = (loss(tree.decode(history[i])['w']) for i in (0, -1))
  assert loss(best) <= learned < loss(best) + 0.3 * (direct - loss(best))


def test_fine_tuning_is_that_of_the_method() -> None:
  method = recipe.parse(
    'admm(lowrank.svd(1), rho=0.1, rounds=2, finetune_at=0.5)'
  )
  history = descend(method, lambda w: w - 1.0, 8, 0.1, W)
  nodes = [nodes['w'] for nodes in history]
  assert [bool(node.finetuning) for node in nodes] == [False] * 4 + [True] * 5
  # Free weights move before, the factors after; and no penalty is left.
  assert not np.array_equal(nodes[3].w, nodes[4].w)
  assert np.array_equal(nodes[5].w, nodes[8].w)
  assert np.array_equal(nodes[0].goal.u, nodes[1].goal.u)
  assert not np.array_equal(nodes[5].goal.u, nodes[8].goal.u)
  assert float(method.loss(history[-1], Ctx(8, 8))) == 0
  assert float(method.loss(history[1], Ctx(1, 8))) > 0


def test_without_multipliers_it_is_the_quadratic_penalty() -> None:
  method = recipe.parse(
    'lc(prune.weights(0.5), rounds=4, finetune_at=1.0, dual=False)'
  )
  for nodes in descend(method, lambda w: w - 1.0, 8, 0.1, W):
    assert not np.any(nodes['w'].dual)


def test_training_decodes_the_free_weight_and_serving_the_other() -> None:
  params = {'w': jnp.asarray(W), 'bias': jnp.ones(4)}
  method = recipe.parse('lc(prune.weights(0.5))')
  nodes = method.init(params, Ctx(0, 9))
  assert nodes['bias'] is params['bias']
  np.testing.assert_array_equal(
    tree.decode_training(nodes, jax.random.key(0))['w'], W
  )
  served = np.asarray(tree.decode(nodes)['w'])
  assert np.sum(served == 0) == 12
  assert isinstance(tree.freeze(nodes)['w'], jax.Array)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('lc(lowrank.svd(0.5))', 'structure does not depend'),
    ('lc(regularize.l1(0.1))', 'expected a method that compresses'),
    ('quantize.half() >> lc(prune.weights(0.5))', 'Put it first'),
  ],
)
def test_what_it_cannot_learn_is_refused(text: str, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    recipe.parse(text).init({'w': jnp.asarray(W)}, Ctx(0, 9))


def test_what_comes_behind_is_refused() -> None:
  method = recipe.parse('lc(prune.weights(0.5)) >> quantize.half()')
  nodes = method.init({'w': jnp.asarray(W)}, Ctx(0, 9))
  with pytest.raises(ValueError, match='lc: .* Put it inside'):
    method.update(nodes, Ctx(1, 9))


@pytest.mark.parametrize(
  'change',
  ['mu=0.0', 'growth=0.5', 'rounds=0', 'finetune_at=0.0', 'finetune_at=1.5'],
)
def test_impossible_arguments_are_refused(change: str) -> None:
  name = change.split('=')[0].replace('mu', 'penalty')
  with pytest.raises(ValueError, match=f'lc: expected .*{name}'):
    recipe.parse(f'lc(prune.weights(0.5), {change})')
