"""Penalties against formulas in numpy, and what they do in training."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress import tree
from compress.method import Ctx, chain, only
from compress.prune import magnitude
from compress.quantize.uniform import uniform
from compress.regularize import penalties
from compress.schedule import at_once, linear

DRAWN = np.random.default_rng(0)
CONV = DRAWN.normal(size=(3, 3, 4, 2))
DENSE = DRAWN.normal(size=(8, 5))
PARAMS = {
  'conv': {'bias': jnp.full(2, 9.0), 'kernel': jnp.float32(CONV)},
  'fc': {'bias': jnp.full(5, 9.0), 'kernel': jnp.float32(DENSE)},
}


def grouped(w: np.ndarray, axis: int) -> list[np.ndarray]:
  """Return the groups of an array, the slow and plain way."""
  return [w.take(i, axis=axis).ravel() for i in range(w.shape[axis])]


@pytest.mark.parametrize(
  ('method', 'want'),
  [
    (penalties.l1(0.3), 0.3 * (abs(CONV).sum() + abs(DENSE).sum())),
    (penalties.l2(0.3), 0.15 * ((CONV**2).sum() + (DENSE**2).sum())),
    *(
      (
        penalties.group_lasso(0.3, axis=axis),
        0.3
        * sum(
          math.sqrt(g.size) * np.linalg.norm(g)
          for w in (CONV, DENSE)
          for g in grouped(w, axis)
        ),
      )
      for axis in (-1, -2)
    ),
    (only('fc/.*', penalties.l1(2.0)), 2 * abs(DENSE).sum()),
    (penalties.l1(1.0, schedule=linear(0.2, 0.6)), None),
  ],
)
def test_penalties_are_the_formulas(method: Any, want: float | None) -> None:
  if want is None:  # a quarter of the way up at 0.3
    want = 0.25 * (abs(CONV).sum() + abs(DENSE).sum())
  found = method.loss(PARAMS, Ctx(3, 10))
  assert (found.shape, found.dtype) == ((), jnp.float32)
  np.testing.assert_allclose(found, want, rtol=1e-5)


@pytest.mark.parametrize('name', ['l1', 'l2', 'group_lasso'])
def test_latent_arrays_are_penalized_under_any_node(name: str) -> None:
  penal = getattr(penalties, name)(0.3)
  nested = chain(magnitude.weights(0.5), uniform(2)).init(PARAMS, Ctx())
  np.testing.assert_array_equal(
    penal.loss(nested, Ctx()), penal.loss(PARAMS, Ctx())
  )


@pytest.mark.slow
@pytest.mark.parametrize('axis', [-1, -2])
def test_group_gradients_match_differences_and_are_0_at_0(axis: int) -> None:
  lasso = penalties.group_lasso(0.7, axis=axis)

  def cost(w: Any) -> Any:
    return lasso.loss({'w': w}, Ctx())

  w = jnp.float32(DENSE)
  slope, e = jax.grad(cost)(w), 1e-2
  bump = jnp.zeros_like(w).at[1, 2].set(e)
  difference = (cost(w + bump) - cost(w - bump)) / (2 * e)
  np.testing.assert_allclose(slope[1, 2], difference, rtol=1e-2)
  dead = w.at[:, 3].set(0.0) if axis == -1 else w.at[3].set(0.0)
  slope = jax.grad(cost)(dead)
  assert np.all(np.isfinite(slope))
  assert not np.any(slope.take(3, axis=axis))


@pytest.mark.slow
@given(
  by=st.floats(0, 2, width=32),
  axis=st.sampled_from([None, -1, -2]),
  seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_soft_thresholds_minimize_their_objective(
  by: float, axis: int | None, seed: int
) -> None:
  """The proximal operator is argmin |x - w|^2 / 2 + by * penalty(x)."""
  drawn = np.random.default_rng(seed)
  w = np.float32(drawn.normal(size=(3, 4)))
  found = np.asarray(penalties.soft_threshold(jnp.asarray(w), by, axis))
  assert np.all(found * w >= 0)

  def objective(x: np.ndarray) -> float:
    groups = [x] if axis is None else grouped(x, axis)
    cost = (
      abs(x).sum()
      if axis is None
      else sum(math.sqrt(g.size) * np.linalg.norm(g) for g in groups)
    )
    return float(((x - w) ** 2).sum() / 2 + by * cost)

  least = objective(found.astype(np.float64))
  for _ in range(20):
    nearby = found + 0.05 * drawn.normal(size=w.shape)
    assert objective(nearby) >= least - 1e-6


def test_shrinking_sums_to_its_strength() -> None:
  shrink, steps = penalties.shrink(0.5, schedule=linear(0.1, 0.7)), 20
  params = shrink.init(PARAMS, Ctx(0, steps))
  for step in range(1, steps + 1):
    params = shrink.update(params, Ctx(step, steps))
  want = np.sign(DENSE) * np.maximum(np.abs(DENSE) - 0.5, 0)
  found = np.asarray(params['fc']['kernel'])
  np.testing.assert_allclose(found, want, atol=1e-5)
  assert 0.2 < np.mean(found == 0) < 0.8
  np.testing.assert_array_equal(params['fc']['bias'], 9.0)


def test_without_training_the_strength_is_applied_once() -> None:
  want = penalties.soft_threshold(PARAMS['fc']['kernel'], 0.5, -1)
  for method, ctx in (
    (penalties.shrink(0.5, axis=-1), Ctx(steps=0)),
    (penalties.shrink(0.5, axis=-1, schedule=at_once()), Ctx(0, 10)),
  ):
    params = method.init(PARAMS, ctx)
    np.testing.assert_array_equal(params['fc']['kernel'], want)
    after = method.update(params, ctx._replace(step=4))
    np.testing.assert_array_equal(after['fc']['kernel'], want)


def train(method: Any, steps: int = 200) -> Any:
  """Fit `y = x w` where only the first two inputs of six matter."""
  x = jnp.float32(np.random.default_rng(1).normal(size=(64, 6)))
  y = x @ jnp.array([[2.0], [-1.5], [0.0], [0.0], [0.0], [0.0]])
  params = method.init({'w': jnp.ones((6, 1)) * 0.3}, Ctx(0, steps))
  tx = optax.adam(optax.cosine_decay_schedule(0.05, steps))

  @jax.jit
  def step(params: Any, opt: Any, at: Any) -> Any:
    trainable, frozen = tree.split(params)

    def loss(trainable: Any) -> Any:
      nodes = tree.merge(trainable, frozen)
      error = jnp.mean((x @ tree.decode(nodes)['w'] - y) ** 2)
      return error + method.loss(nodes, Ctx(at, steps))

    updates, opt = tx.update(jax.grad(loss)(trainable), opt, trainable)
    params = tree.merge(optax.apply_updates(trainable, updates), frozen)
    return method.update(params, Ctx(at + 1, steps)), opt

  opt = tx.init(tree.split(params)[0])
  for at in range(steps):
    params, opt = step(params, opt, jnp.int32(at))
  return np.asarray(tree.decode(params)['w']).ravel()


def test_shrink_zeroes_irrelevant_weights() -> None:
  found = train(penalties.shrink(0.5))
  assert not found[2:].any()
  # The pull outlasts the optimizer's last steps, which are shorter.
  np.testing.assert_allclose(found[:2], [2.0, -1.5], atol=0.25)


def test_a_penalty_by_itself_makes_no_zeros() -> None:
  penalty = penalties.l1(0.05)
  assert np.all(train(penalty))
  found = train(
    chain(penalty, magnitude.weights(4 / 6, schedule=linear(0.5, 0.6)))
  )
  assert not found[2:].any()
  np.testing.assert_allclose(found[:2], [2.0, -1.5], atol=0.1)


@pytest.mark.parametrize('name', ['l1', 'l2', 'group_lasso', 'shrink'])
@pytest.mark.parametrize(
  ('strength', 'wrong', 'message'),
  [
    (-0.1, {}, 'a strength of 0 or more, got -0.1'),
    (math.inf, {}, 'a strength of 0 or more, got inf'),
    (math.nan, {}, 'a strength of 0 or more, got nan'),
    (0.1, {'schedule': 0.5}, 'a schedule, got 0.5'),
  ],
)
def test_impossible_arguments_are_refused(
  name: str, strength: float, wrong: Any, message: str
) -> None:
  with pytest.raises(ValueError, match=f'regularize.{name}: .* {message}'):
    getattr(penalties, name)(strength, **wrong)


@pytest.mark.parametrize('name', ['group_lasso', 'shrink'])
def test_groups_are_outputs_or_inputs(name: str) -> None:
  with pytest.raises(ValueError, match=rf'{name}: expected the axis .* got 0'):
    getattr(penalties, name)(0.1, axis=0)
