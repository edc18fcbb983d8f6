"""Optimal brain surgery against the formulas of the papers."""

import functools
import math
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compress import tree
from compress.method import Ctx, only
from compress.prune import magnitude
from compress.prune.masked import Masked
from compress.prune.obs import BlockProducts, damped, obs, saliency
from tests.nets import probe_with
from tests.runs import assert_same_bits

OWN = sys.modules[BlockProducts.__module__]
DRAWN = np.random.default_rng(0)
COUNT, DAMPING = 30, 0.05


def fixed(params: Any, grads: Any) -> Ctx:
  """Return a context whose probe gives certain gradients."""
  del params
  return Ctx(probe=probe_with(reduce=reducing(lambda *_: grads)))


def reducing(gradients: Any) -> Any:
  """Return `Probe.reduce`, given a function that stacks single gradients."""

  def reduce(params: Any, paths: Any, statistic: Any, count: int) -> Any:
    found = tree.paths(gradients(params, count))
    grads = {path: found[path][:count] for path in paths}
    (number,) = {len(g) for g in grads.values()}
    weights = tree.paths(tree.decode(params))
    parts = [  # of unequal sizes, as a statistic must allow
      statistic(weights, {path: g[part] for path, g in grads.items()})
      for part in (slice(0, 5), slice(5, None))
    ]
    return jax.tree.map(lambda a, b: (a + b) / number, *parts)

  return reduce


def woodbury(grads: np.ndarray) -> np.ndarray:
  """Return the inverse by the recursion over samples (equation 5 on)."""
  damping = DAMPING * (np.mean(grads**2) + 1e-6 * UNIT)
  inverse = np.eye(grads.shape[1]) / damping
  for g in grads:
    moved = inverse @ g
    inverse -= np.outer(moved, moved) / (len(grads) + g @ moved)
  return inverse


# One output of 11 inputs, a second one: blocks of 4 run over the border.
W = DRAWN.normal(size=(11, 2))
GRADS = DRAWN.normal(size=(COUNT, 11, 2)) @ np.diag([1.0, 3.0])
GRADS[:, 3] += GRADS[:, 2]  # inputs that go together
UNIT = np.mean(GRADS**2)
BLOCKS = [range(i, min(i + 4, 22)) for i in range(0, 22, 4)]


def by_hand(gone: set[int]) -> tuple[np.ndarray, np.ndarray]:
  """Return scores and the moved weights, by output, in full precision."""
  w, grads = W.T.ravel(), np.swapaxes(GRADS, 1, 2).reshape(COUNT, -1)
  scores, moved = np.zeros(22), w.copy()
  for block in map(list, BLOCKS):
    width = 4 - len(block)  # the last block is filled with 0
    inverse = woodbury(np.pad(grads[:, block], ((0, 0), (0, width))))
    at = w[block]
    scores[block] = at**2 / (2 * np.diag(inverse)[: len(block)])
    lost = [i for i, q in enumerate(block) if q in gone]
    if lost:
      pull = np.linalg.solve(inverse[np.ix_(lost, lost)], at[lost])
      moved[block] -= (inverse[:, lost] @ pull)[: len(block)]
  return scores, moved


def compress(sparsity: float, **chosen: Any) -> Masked:
  """Prune the weight by the method."""
  params = {'w': jnp.float32(W)}
  ctx = fixed(params, {'w': jnp.float32(GRADS)})
  made = obs(sparsity, block=4, damping=DAMPING, rounds=1, **chosen)
  return made.init(params, ctx)['w']


def matrices_of(block: int) -> tuple[jax.Array, jax.Array]:
  """Return the damped matrices of the weight."""
  products = BlockProducts(block)({}, {'w': jnp.float32(GRADS)})['w'] / COUNT
  return damped(products, 22, DAMPING)


@pytest.mark.slow
@pytest.mark.parametrize('count', [0, 1, 7, 15])
def test_scores_and_updates_match_the_formula(count: int) -> None:
  scores, _ = by_hand(set())
  gone = set(np.argsort(scores)[:count].tolist())
  node = compress(count / 22)
  mask = np.asarray(node.mask)
  assert set(np.flatnonzero(~mask.T.ravel())) == gone
  _, want = by_hand(gone)
  np.testing.assert_allclose(
    np.asarray(node.decode()).T.ravel(),
    np.where(mask.T.ravel(), want, 0),
    rtol=1e-3,
    atol=1e-4,
  )
  if count == 1:  # the formula for a single weight
    (q,) = gone
    block = next(b for b in BLOCKS if q in b)
    grads = np.swapaxes(GRADS, 1, 2).reshape(COUNT, -1)[:, list(block)]
    inverse = woodbury(grads)
    one = block.index(q)
    delta = -W.T.ravel()[q] * inverse[:, one] / inverse[one, one]
    np.testing.assert_allclose(
      want[list(block)], W.T.ravel()[list(block)] + delta, rtol=1e-9, atol=1e-9
    )


def test_the_scores_are_exact() -> None:
  node = Masked(jnp.float32(W), jnp.ones(W.shape, bool))
  found = matrices_of(4)
  scores = np.asarray(saliency(node, *found))
  np.testing.assert_allclose(scores.T.ravel(), by_hand(set())[0], rtol=1e-3)


def test_later_rounds_use_the_remaining_weights() -> None:
  mask = np.ones(W.shape, bool)
  mask[[0, 2, 5], [0, 0, 1]] = False
  node = Masked(jnp.float32(W), jnp.asarray(mask))
  matrices, unit = matrices_of(22)
  scores = np.asarray(saliency(node, matrices, unit)).T.ravel()
  left = np.flatnonzero(mask.T.ravel())
  fisher = float(unit) * np.asarray(matrices[0], np.float64)
  inverse = np.linalg.inv(fisher[np.ix_(left, left)])
  want = W.T.ravel()[left] ** 2 / (2 * np.diag(inverse))
  np.testing.assert_allclose(scores[left], want, rtol=1e-3)
  assert np.all(scores[~mask.T.ravel()] == -np.inf)


def test_products_by_input_are_those_of_blocks(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  grads = {'w': jnp.float32(DRAWN.normal(size=(5, 3, 2, 4, 7)))}
  for block in (1, 8, 24):  # of 24 inputs; none runs over two outputs
    statistic = BlockProducts(block)
    expected = statistic({}, grads)['w']
    monkeypatch.setattr(OWN, 'WIDE', 1)
    found = statistic({}, grads)['w']
    monkeypatch.undo()
    assert found.shape == (168 // block, block, block)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_gradients_are_bounded_by_default(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  params, ctx, x, y = trained()
  assert ctx.probe is not None
  asked = []

  def reduce(*given: Any) -> Any:
    asked.append(given[-1])
    return ctx.probe.reduce(*given)

  counting = ctx._replace(probe=ctx.probe._replace(reduce=reduce))
  made = obs(0.25, block=32)
  whole = made.init(params, counting)
  same = obs(0.25, block=32, samples=256, rounds=4).init(params, counting)
  assert asked == [256] * 8
  assert_same_bits(whole, same)
  asked.clear()
  sizes = sum(w.size for w in params.values())
  monkeypatch.setattr(OWN, 'NUMBERS', 500 * sizes)
  bounded = made.init(params, counting)
  obs(0.25, block=32, samples=200).init(params, counting)
  obs(0.25, block=32, rounds=3).init(params, counting)
  assert asked == [256] + [200] * 2 + [160] * 3
  plain = magnitude.weights(0.25).init(params, counting)
  dense, once, by_magnitude = (
    float(loss(tree.decode(p), x, y)) for p in (params, bounded, plain)
  )
  assert once - dense < 0.7 * (by_magnitude - dense)


def test_dead_inputs_are_pruned_first_without_updates() -> None:
  grads = GRADS.copy()
  grads[:, :4] = 0.0
  params = {'w': jnp.float32(W)}
  ctx = fixed(params, {'w': jnp.float32(grads)})
  made = obs(8 / 22, block=4, damping=1e-4, rounds=1)
  node = made.init(params, ctx)['w']
  assert not node.mask[:4].any()
  np.testing.assert_allclose(node.decode()[4:], W[4:], rtol=1e-5)
  silent = fixed(params, {'w': jnp.zeros((COUNT, 11, 2))})
  assert np.isfinite(made.init(params, silent)['w'].w).all()


# A trained network.


def apply(params: Any, x: jax.Array) -> jax.Array:
  """Return the logits of a network of two layers."""
  return jnp.maximum(x @ params['a'], 0) @ params['b']


def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
  """Return the mean cross entropy."""
  return jnp.mean(
    optax.softmax_cross_entropy_with_integer_labels(apply(params, x), y)
  )


@functools.cache
def trained() -> tuple[Any, Ctx, jax.Array, jax.Array]:
  """Return a trained network, its context and the training examples."""
  drawn = np.random.default_rng(1)
  x = jnp.float32(
    drawn.normal(size=(256, 12)) @ drawn.normal(size=(12, 12)) / 3
  )
  y = jnp.argmax(jnp.tanh(x) @ drawn.normal(size=(12, 4)), 1)
  params = {
    'a': jnp.float32(0.3 * drawn.normal(size=(12, 16))),
    'b': jnp.float32(0.3 * drawn.normal(size=(16, 4))),
  }

  @jax.jit
  def train(params: Any) -> Any:
    def step(_: Any, p: Any) -> Any:
      return jax.tree.map(lambda w, g: w - 0.3 * g, p, jax.grad(loss)(p, x, y))

    return jax.lax.fori_loop(0, 300, step, params)

  done = train(params)

  @functools.partial(jax.jit, static_argnums=1)
  def samples(at: Any, count: int) -> Any:
    def one(x: jax.Array, y: jax.Array) -> Any:
      return jax.grad(loss)(tree.filled(at, done), x[None], y[None])

    return jax.vmap(one)(x[:count], y[:count])

  return done, Ctx(probe=probe_with(reduce=reducing(samples))), x, y


@pytest.mark.slow
@pytest.mark.parametrize(
  ('scope', 'sparsity'), [('layer', 0.25), ('global', 0.6)]
)
def test_obs_increases_the_loss_less_than_magnitude(
  scope: str, sparsity: float
) -> None:
  params, ctx, x, y = trained()
  losses = {}
  for name, made in (
    ('magnitude', magnitude.weights(sparsity, scope=scope)),
    ('surgery', obs(sparsity, scope=scope, block=32)),
  ):
    nodes = made.init(params, ctx)
    kept = [n.mask for n in tree.find(Masked, nodes).values()]
    total = sum(m.size for m in kept)
    assert sum(int((~m).sum()) for m in kept) == round(sparsity * total)
    losses[name] = float(loss(tree.decode(nodes), x, y))
  dense = float(loss(params, x, y))
  assert losses['surgery'] - dense < 0.7 * (losses['magnitude'] - dense)


def test_one_array() -> None:
  params, ctx, _, _ = trained()
  single = only('b', obs(0.5, block=32)).init(params, ctx)
  assert [*tree.find(Masked, single)] == ['b']
  assert single['a'] is params['a']
  assert np.any(np.asarray(single['b'].decode()) != 0)


def test_calibration_data_is_required() -> None:
  with pytest.raises(ValueError, match='prune.obs: expected calibration data'):
    obs(0.5).init({'w': jnp.float32(W)}, Ctx())


def test_a_masked_weight_is_refused() -> None:
  params, ctx, _, _ = trained()
  once = magnitude.weights(0.5).init(params, ctx)
  with pytest.raises(ValueError, match='prune.obs: .*got .* at a'):
    obs(0.5).init(once, ctx)


@pytest.mark.parametrize(
  ('wrong', 'message'),
  [
    ({'sparsity': 1.0}, r'a sparsity in \[0, 1\), got 1.0'),
    ({'block': 0}, 'block of 1 or more, got 0'),
    ({'samples': 2.5}, 'samples of 1 or more, got 2.5'),
    ({'rounds': -1}, 'rounds of 1 or more, got -1'),
    ({'damping': 0.0}, 'a positive damping, got 0.0'),
    ({'damping': math.inf}, 'a positive damping, got inf'),
    ({'scope': 'all'}, 'a scope of layer, global'),
  ],
)
def test_impossible_arguments_are_refused(wrong: Any, message: str) -> None:
  with pytest.raises(ValueError, match=f'prune.obs: expected {message}'):
    obs(**{'sparsity': 0.5, **wrong})
