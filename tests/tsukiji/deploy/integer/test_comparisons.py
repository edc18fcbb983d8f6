"""One comparison of an integer in place of a norm and an activation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import tree
from compress.binary.inputs import Signed
from compress.binary.weights import Binarized
from tsukiji.deploy import artefact
from tsukiji.deploy.integer.binary_layers import forward
from tsukiji.deploy.integer.comparisons import threshold
from tsukiji.graph.capture import capture

RNG = np.random.default_rng(0)


def test_a_norm_turns_where_its_formula_says() -> None:
  gamma = np.float32([0.7, -1.3, 0.2, -0.4, 0.0, 0.0])
  mu = np.float32([3.3, -2.2, 90.0, 90.0, 1.0, 1.0])
  beta = np.float32([0.5, 0.25, 1.0, 1.0, 0.3, -0.3])
  sigma = np.float32([1.5, 4.0, 2.0, 2.0, 1.0, 1.0])
  found = threshold(lambda a: gamma * (a - mu) / sigma + beta, 20, 6)
  assert found is not None
  sums = np.arange(-20, 21)[:, None]
  with np.errstate(divide='ignore'):
    at = mu - beta * sigma / gamma
  want = np.where(gamma > 0, sums >= at, sums <= at)
  want[:, 4], want[:, 5] = True, False  # no gain: the bias alone
  np.testing.assert_array_equal(found(jnp.asarray(sums)), want)


def test_a_sign_that_turns_twice_is_no_threshold() -> None:
  assert threshold(lambda a: a**2 - 4, 5, 2) is None
  assert threshold(lambda a: a, 0, 3) is not None


def signs(
  n: int, m: int, scale: Any = None, turn: Any = None, taps: int = 3
) -> Signed:
  """Return a weight of signs that multiplies signs."""
  bits = jnp.asarray(RNG.integers(0, 2, (taps, n, m)), bool)
  return Signed(Binarized(bits, scale), turn, 'clipped', False)


def pool(x: jax.Array) -> jax.Array:
  """Return the largest of two neighbours."""
  return jnp.maximum(x[:, :-1], x[:, 1:])


GAIN = jnp.float32([0.7, -1.2, 0.4, -0.3])
UP = jnp.float32([0.7, 1.2, 0.4, 0.3])
TURN = jnp.float32([0.23, -0.37, 0.01, 0.13])  # no ties
Between = Callable[[jax.Array], jax.Array]
# What is between two convolutions, and whether it is one comparison.
BETWEEN: dict[str, tuple[Between, bool]] = {
  'a norm': (lambda x: jnp.tanh((x - 0.4) * GAIN + 0.2), True),
  'a pool before': (lambda x: jnp.tanh(pool(x) * GAIN + 0.2), True),
  'a pool behind': (lambda x: pool(jnp.tanh(x * GAIN + 0.2)), True),
  'two pools': (lambda x: pool(pool(jnp.tanh(x * GAIN))), True),
  'a pool of what rises': (lambda x: 0.1 - pool(jnp.tanh(x * UP)) * GAIN, True),
  'a pool of what falls': (lambda x: 0.1 - pool(jnp.tanh(x * GAIN)), False),
  'a slope': (lambda x: jnp.where(x >= 0.1, x, 0.2 * jnp.tanh(x)) - 0.3, True),
  'a hill': (lambda x: jnp.tanh(x) ** 2 - 0.5, False),
  'other places': (lambda x: jnp.tanh(x) + x[:, ::-1], False),
  'a gain a place': (
    lambda x: jnp.tanh(x) + jnp.arange(x.shape[1])[:, None] - 2.5,
    False,
  ),
  'two pools of one': (lambda x: pool(jnp.tanh(x)) + pool(x), False),
  'a pool of its own': (lambda x: jnp.tanh(pool(x)) + x[:, 1:], False),
}


def assert_same(
  fn: Callable[..., Any], params: Any, x: jax.Array, compared: bool
) -> None:
  """Compare a network with its floats, and expect comparisons or none."""
  graph, variables = capture(fn, params, x), {'params': tree.paths(params)}
  run = forward(graph, variables)
  want = artefact.forward(graph, variables)(x)
  np.testing.assert_allclose(run(x), want, rtol=1e-5, atol=1e-5)
  assert ('tanh' not in str(jax.make_jaxpr(run)(x))) == compared


def conv(x: jax.Array, w: Any) -> jax.Array:
  """Convolve rows; what is padded counts as 0."""
  return jax.lax.conv_general_dilated(
    x, w, (1,), 'SAME', dimension_numbers=('NWC', 'WIO', 'NWC')
  )


@pytest.mark.parametrize(
  'turn', [None, pytest.param(TURN, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize('name', sorted(BETWEEN))
def test_what_is_between_is_a_comparison(name: str, turn: Any) -> None:
  between, compared = BETWEEN[name]
  params = {'a': signs(3, 4, jnp.float32(0.2)), 'b': signs(4, 2, turn=turn)}
  x = jnp.float32(RNG.normal(size=(5, 6, 3)))
  assert_same(
    lambda p, x: conv(between(conv(x, p['a'])), p['b']), params, x, compared
  )


def test_a_scale_below_0_turns_what_is_pooled() -> None:
  x = jnp.float32(RNG.normal(size=(5, 6, 3)))
  for scale, compared in ((UP, True), (GAIN, False)):
    params = {'a': signs(3, 4, scale), 'b': signs(4, 2)}
    assert_same(
      lambda p, x: conv(jnp.tanh(pool(conv(x, p['a'])) + 0.1), p['b']),
      params,
      x,
      compared,
    )


@pytest.mark.parametrize('turn', [None, jnp.float32(RNG.normal(size=24))])
def test_signs_are_joined_unless_they_turn_by_place(turn: Any) -> None:
  x = jnp.float32(RNG.normal(size=(5, 6, 3)))
  last = signs(24, 2, turn=turn)
  flat = last.replace(w=Binarized(last.w.signs[0], None))
  params = {'a': signs(3, 4), 'b': flat}

  def network(p: Any, x: jax.Array) -> jax.Array:
    y = jnp.tanh(conv(x, p['a']) * GAIN)
    return y.reshape(len(x), -1) @ p['b']

  assert_same(network, params, x, turn is None)


def test_a_value_may_be_read_elsewhere_too() -> None:
  x = jnp.float32(RNG.normal(size=(5, 6, 3)))
  params = {'a': signs(3, 4), 'b': signs(4, 4), 'c': signs(4, 2)}

  def network(p: Any, x: jax.Array) -> jax.Array:
    y = conv(x, p['a']) * GAIN
    return conv(jnp.tanh(conv(jnp.tanh(y + 0.1), p['b']) + y), p['c'])

  assert_same(network, params, x, False)
