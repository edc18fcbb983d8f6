"""Products of kernels against NumPy and against layers in turn."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.lowrank import factors
from compress.lowrank.factors import LowRank, Tucker
from compress.prune.magnitude import Masked
from compress.quantize.integer_codes import Quantized

W = jnp.float32(np.random.default_rng(0).normal(size=(3, 5, 4, 6)))
SIDES = st.integers(1, 4)


def shortfall(w: np.ndarray, rank: int, fold: str) -> float:
  """Return what Eckart and Young leave of a folded kernel, by loops."""
  if fold == 'channel':
    rows = [w[y, x, c] for y, x, c in np.ndindex(*w.shape[:3])]
  else:
    rows = [w[y, :, c].ravel() for y, c in np.ndindex(w.shape[0], w.shape[2])]
  values = np.linalg.svd(np.array(rows, np.float64), compute_uv=False)
  return float(np.sum(values[rank:] ** 2))


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(st.tuples(SIDES, SIDES, SIDES, SIDES), st.data())
def test_truncation_is_the_nearest_of_its_rank(
  shape: tuple[int, int, int, int], data: st.DataObject
) -> None:
  w = np.random.default_rng(1).normal(size=shape)
  fold = data.draw(st.sampled_from(factors.FOLDS))
  matrix = factors.folded(jnp.float32(w), fold)
  rank = data.draw(st.integers(1, min(matrix.shape)))
  node = factors.truncated(jnp.float32(w), rank, fold)
  assert node.u.shape[-1] == node.v.shape[-2] == rank
  error = np.sum((np.asarray(node.decode()) - w) ** 2)
  np.testing.assert_allclose(error, shortfall(w, rank, fold), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('fold', factors.FOLDS)
def test_factors_are_layers_in_turn(fold: str) -> None:
  node = factors.truncated(W, 2, fold)
  x = jnp.float32(np.random.default_rng(2).normal(size=(2, 8, 9, 4)))

  def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    layer = nn.Conv(
      kernel.shape[-1], kernel.shape[:2], padding='VALID', use_bias=False
    )
    y: jax.Array = layer.apply({'params': {'kernel': kernel}}, x)  # type: ignore[assignment]
    return y

  np.testing.assert_allclose(
    conv(conv(x, node.u), node.v), conv(x, node.decode()), atol=1e-4
  )


@pytest.mark.slow
def test_tucker_is_exact_at_full_rank_and_orthogonal_below() -> None:
  full = factors.tucker(W, (4, 6))
  np.testing.assert_allclose(full.decode(), W, atol=1e-5)
  node = factors.tucker(W, (2, 3))
  assert [x.shape for x in node.factors().values()] == [
    (1, 1, 4, 2),
    (3, 5, 2, 3),
    (1, 1, 3, 6),
  ]
  # The best core for orthonormal sides keeps as much energy as it has.
  left = np.sum((np.asarray(node.decode()) - np.asarray(W)) ** 2)
  kept = np.sum(np.asarray(node.core) ** 2)
  np.testing.assert_allclose(left + kept, np.sum(np.asarray(W) ** 2), rtol=1e-5)


@pytest.mark.slow
def test_tucker_improves_on_its_first_guess() -> None:
  def lost(sweeps: int) -> float:
    node = factors.tucker(W, (1, 2), sweeps)
    return float(jnp.sum((node.decode() - W) ** 2))

  assert lost(10) < lost(1)


def test_a_depthwise_factor_takes_channels_only() -> None:
  u, rows = jnp.ones((1, 1, 4, 3)), jnp.arange(6.0).reshape(2, 1, 1, 3)
  got = factors.product(u, rows)
  assert got.shape == (2, 1, 4, 3)
  np.testing.assert_array_equal(got[:, 0, 2], rows[:, 0, 0])


@pytest.mark.parametrize('axis', [2, 3])
def test_zeros_around_reach_the_right_factor(axis: int) -> None:
  node = factors.tucker(W, (2, 3))
  size = W.shape[axis] + 2
  keep = jnp.array([i for i in range(size) if i not in (1, 4)])
  shape = (*W.shape[:axis], size, *W.shape[axis + 1 :])
  want = np.zeros(shape, np.float32)
  np.moveaxis(want, axis, 0)[np.asarray(keep)] = np.moveaxis(
    np.asarray(node.decode()), axis, 0
  )
  np.testing.assert_allclose(
    node.scatter(keep, axis, size).decode(), want, atol=1e-6
  )
  assert node.scatter(keep, 0, 9) is None


def test_a_gain_goes_to_the_last_factor() -> None:
  node, gain = factors.truncated(W, 2), jnp.arange(6.0)
  np.testing.assert_allclose(
    node.scale_channels(gain).decode(), node.decode() * gain, atol=1e-5
  )
  codes = Quantized(jnp.ones((2, 6), jnp.int8), jnp.ones(6), None, 4)
  coded = LowRank(jnp.ones((3, 2)), codes)
  assert coded.scale_channels(gain).v.scale.tolist() == gain.tolist()


def test_a_last_factor_that_cannot_scale_says_so() -> None:
  class Stiff(Masked):
    def scale_channels(self, gain: jax.Array) -> None:
      return None

  stiff = Stiff(jnp.ones((1, 1, 2, 3)), jnp.ones((1, 1, 2, 3), bool))
  node = Tucker(jnp.ones((1, 1, 2, 2)), jnp.ones((3, 3, 2, 2)), stiff)
  assert node.scale_channels(jnp.ones(3)) is None
