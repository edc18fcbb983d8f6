"""Scores: what is kept, what data says of it, and what is open_probability."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import compress
from compress import tree
from compress.method import Ctx, Probe, only
from compress.prune import importance, masked
from compress.prune.magnitude import weights
from compress.schedule import cubic

W = jnp.array([[0.5, -3.0], [0.0, 2.0]])
CTX = Ctx(key=jax.random.key(7))
DRAWN = np.random.default_rng(0)
PARAMS = {
  name: {'kernel': jnp.float32(DRAWN.normal(size=shape))}
  for name, shape in {'a': (3, 4), 'b': (4, 2)}.items()
}
INPUTS = jnp.float32(DRAWN.normal(size=(300, 3)))


def apply(params: Any, x: jax.Array) -> jax.Array:
  """Return the outputs of a tiny network."""
  return jnp.tanh(x @ params['a']['kernel']) @ params['b']['kernel']


def loss(params: Any, x: jax.Array) -> jax.Array:
  """Return what it loses on an example, in the mean."""
  return jnp.mean(jnp.sum(apply(params, x), -1))


def probed(inputs: jax.Array) -> Probe:
  """Return the probe of the tiny network."""
  return compress.probe(apply, PARAMS, inputs, loss, inputs)


def by_hand(x: np.ndarray) -> dict[str, np.ndarray]:
  """Return the gradient of one example, from the chain rule."""
  a, b = (np.asarray(PARAMS[name]['kernel']) for name in 'ab')
  hidden = np.tanh(x @ a)
  back = (1 - hidden**2) * b.sum(1)
  return {
    'a/kernel': np.outer(x, back),
    'b/kernel': np.outer(hidden, np.ones(2)),
  }


def test_magnitude_ignores_the_sign() -> None:
  worth = importance.magnitude({}, Ctx())
  assert worth('w', W).tolist() == [[0.5, 3.0], [0.0, 2.0]]


def test_random_is_a_function_of_path_and_key() -> None:
  worth = importance.random({}, CTX)
  first = np.asarray(worth('a/kernel', W))
  again = jax.jit(lambda w: worth('a/kernel', w))(-W)
  np.testing.assert_array_equal(again, first)
  assert len(set(first.ravel().tolist())) == first.size
  other_path = worth('b/kernel', W)
  other_key = importance.random({}, Ctx(key=jax.random.key(8)))('a/kernel', W)
  assert not np.any(np.asarray(other_path) == first)
  assert not np.any(np.asarray(other_key) == first)


def test_random_is_uniform() -> None:
  drawn = np.asarray(importance.random({}, CTX)('w', jnp.zeros((100, 100))))
  counts, _ = np.histogram(drawn, bins=10, range=(0.0, 1.0))
  # Each bin is binomial with mean 1000 and standard deviation 30.
  assert counts.sum() == drawn.size
  assert np.all(np.abs(counts - 1000) < 150)


def test_random_needs_a_key() -> None:
  with pytest.raises(ValueError, match='score.random at fc/kernel.*key'):
    importance.random({}, Ctx())('fc/kernel', W)


def test_taylor_uses_the_probe_before_training() -> None:
  grads = [by_hand(x) for x in np.asarray(INPUTS)]
  worth = importance.taylor(PARAMS, Ctx(probe=probed(INPUTS)))
  for path, w in tree.paths(PARAMS).items():
    mean = np.mean([g[path] for g in grads], axis=0)
    np.testing.assert_allclose(
      worth(path, w), np.abs(w * mean), rtol=1e-4, atol=1e-6
    )


def test_taylor_uses_the_gradient_of_the_step_in_training() -> None:
  grads = jax.tree.map(lambda w: w + 1, PARAMS)
  worth = importance.taylor(
    PARAMS, Ctx(3, 9, grads=grads, probe=probed(INPUTS))
  )
  w = PARAMS['a']['kernel']
  np.testing.assert_allclose(worth('a/kernel', -w), jnp.abs(w * (w + 1)))


def test_fisher_is_the_mean_square_of_single_gradients() -> None:
  grads = [by_hand(x) for x in np.asarray(INPUTS[: importance.SAMPLES])]
  worth = importance.fisher(PARAMS, Ctx(probe=probed(INPUTS)))
  for path, w in tree.paths(PARAMS).items():
    square = np.mean([g[path] ** 2 for g in grads], axis=0)
    np.testing.assert_allclose(worth(path, w), w**2 * square / 2, rtol=1e-4)


@pytest.mark.parametrize('name', ['taylor', 'fisher'])
def test_calibration_data_is_required(name: str) -> None:
  with pytest.raises(ValueError, match=f'score.{name}: expected calibration'):
    weights(0.5, score=name).init(PARAMS, Ctx())


def test_scores_of_one_array_use_the_full_network() -> None:
  ctx = Ctx(probe=probed(INPUTS))
  for name in ('taylor', 'fisher'):
    single = only('b/.*', weights(0.5, score=name)).init(PARAMS, ctx)
    both = weights(0.5, score=name).init(PARAMS, ctx)
    assert [*tree.find(masked.Masked, single)] == ['b/kernel']
    np.testing.assert_array_equal(
      single['b']['kernel'].mask, both['b']['kernel'].mask
    )


def test_gradual_taylor_follows_the_steps() -> None:
  made = only('a/.*', weights(0.5, score='taylor', schedule=cubic(0.0, 1)))
  begun = made.init(PARAMS, Ctx(0, 2, probe=probed(INPUTS)))
  assert begun['a']['kernel'].mask.all()
  w = PARAMS['a']['kernel']
  wanted = jnp.arange(12.0).reshape(3, 4)  # of |w g|
  grads = {**PARAMS, 'a': {'kernel': wanted / w}}
  done = made.update(begun, Ctx(2, 2, grads=grads))
  np.testing.assert_array_equal(done['a']['kernel'].mask, wanted >= 6)


def test_factors_have_no_gradient() -> None:
  factor = {'a': {'kernel': W}}
  ctx = Ctx(grads=PARAMS)
  with pytest.raises(
    ValueError, match=r'taylor at a/kernel: .*\(2, 2\) inside'
  ):
    weights(0.5, score='taylor').init(factor, ctx)
  with pytest.raises(ValueError, match='taylor at c: expected a weight of'):
    weights(0.5, score='taylor').init({'c': W}, ctx)


def test_fisher_cannot_follow_a_schedule() -> None:
  with pytest.raises(ValueError, match="no schedule with score='fisher'"):
    weights(0.5, score='fisher', schedule=cubic())


def test_scores_are_known_by_name() -> None:
  for name in ('magnitude', 'random', 'taylor', 'fisher'):
    assert importance.score_by_name('x', name, None) is getattr(
      importance, name
    )
  with pytest.raises(ValueError, match="x: expected a score .*got 'size'"):
    importance.score_by_name('x', 'size', None)
