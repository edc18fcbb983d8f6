"""Grids by tensor, channel and group, against NumPy in doubles."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.quantize import affine

BITS = st.sampled_from([2, 3, 8, 16])
PER = st.sampled_from(['tensor', 'channel', 4, 7])
W = np.random.default_rng(0).normal(size=(3, 3, 2, 5)).astype(np.float32)


def cut(w: np.ndarray, per: Any) -> list[np.ndarray]:
  """Return the values of each column, as lists of positions of `w.ravel()`."""
  places = np.arange(w.size).reshape(-1, w.shape[-1])
  if per == 'tensor':
    return [places.ravel()]
  if per == 'channel':
    return list(places.T)
  count = math.ceil(len(places) / per)
  size = math.ceil(len(places) / count)
  starts = range(0, len(places), size)
  return [x for i in starts for x in places[i : i + size].T]


@pytest.mark.slow
@given(per=PER, bits=BITS, symmetric=st.booleans())
@settings(max_examples=20, deadline=None)
def test_each_column_is_rounded_on_its_own(
  per: Any, bits: int, symmetric: bool
) -> None:
  w = W + np.float32(0.3)
  found = affine.quantize(jnp.asarray(w), bits, per, None, symmetric)
  values = np.asarray(affine.dequantize(*found)).ravel()
  for places in cut(w, per):
    x = w.ravel()[places].astype(float)
    if symmetric:
      top = 2 ** (bits - 1) - 1
      low, high, step = -top, top, np.abs(x).max() / top
    else:
      ends = min(x.min(), 0), max(x.max(), 0)
      step = (ends[1] - ends[0]) / (2**bits - 1)
      low = -round(-ends[0] / step)
      high = low + 2**bits - 1
    code = np.clip(np.round(x / step), low, high)
    error = np.abs(values[places] - code * step)
    tie = np.abs(np.abs(x / step) % 1 - 0.5) < 1e-2 * 2 ** max(0, bits - 10)
    assert np.all(error <= np.where(tie, 1.001 * step, 1e-5))


@given(per=PER, bits=BITS, symmetric=st.booleans())
@settings(max_examples=20, deadline=None)
def test_zero_is_a_code_and_codes_fit(
  per: Any, bits: int, symmetric: bool
) -> None:
  w = jnp.asarray(W).at[0].set(0.0)
  codes, scale, zero = affine.quantize(w, bits, per, None, symmetric)
  assert not np.any(affine.dequantize(codes, scale, zero)[0])
  half = 2 ** (bits - 1)
  assert float(codes.min()) >= -half + symmetric
  assert float(codes.max()) <= half - 1
  assert np.all(np.asarray(codes) == np.round(codes))
  assert (zero is None) == symmetric
  assert zero is None or zero.shape == scale.shape


@pytest.mark.parametrize('symmetric', [True, False])
@pytest.mark.parametrize('per', ['tensor', 'channel', 4])
def test_columns_of_zeros_are_zeros(per: Any, symmetric: bool) -> None:
  w = jnp.asarray(W).at[..., 2].set(0.0)
  for x in (w, 0 * w):
    found = affine.dequantize(*affine.quantize(x, 4, per, None, symmetric))
    assert np.all(np.isfinite(found))
    assert not np.any(found[..., 2])


@pytest.mark.parametrize(
  ('rows', 'per'), [(1, 1), (7, 2), (9, 2), (10, 4), (10, 6), (5, 9), (23, 7)]
)
def test_the_number_of_groups_determines_their_bounds(
  rows: int, per: int
) -> None:
  channels = 2
  w = np.arange(rows * channels, dtype=np.float32).reshape(rows, channels)
  parts = affine.columns(jnp.asarray(w), per, fill=-1.0)
  size, count, _ = parts.shape
  assert size <= per
  assert count == math.ceil(rows / per)
  ids = np.arange(count)[:, None] + np.zeros((count, channels))
  group = np.asarray(affine.broadcast_columns(jnp.asarray(ids), w.shape))
  for i in range(count):
    inside = np.asarray(parts)[:, i]
    np.testing.assert_array_equal(
      inside[inside >= 0], w[group[:, 0] == i].ravel()
    )


@pytest.mark.parametrize('per', ['tensor', 'channel', 4])
@pytest.mark.parametrize('symmetric', [True, False])
def test_a_share_of_the_range_is_a_smaller_grid(
  per: Any, symmetric: bool
) -> None:
  parts = affine.columns(jnp.asarray(W), per)
  share = jnp.full(parts.shape[1:], 0.5)
  complete = affine.quantize(jnp.asarray(W), 8, per, None, symmetric)
  found = affine.quantize(jnp.asarray(W), 8, per, share, symmetric)
  np.testing.assert_allclose(found.scale, complete.scale / 2, rtol=1e-6)
  spread = np.abs(affine.dequantize(*found)).max()
  assert spread < 0.6 * np.abs(W).max()


def test_gains_pass_through_grids_with_a_step_a_channel() -> None:
  gain = jnp.array([1.0, 2.0, 4.0, 0.5, 0.25])  # exact in binary
  for per in ('channel', 4):
    codes, scale, _ = affine.quantize(jnp.asarray(W), 4, per)
    after, wider, _ = affine.quantize(jnp.asarray(W) * gain, 4, per)
    np.testing.assert_array_equal(codes, after)
    np.testing.assert_array_equal(wider, scale * gain)


def test_a_worked_example_by_groups() -> None:
  w = jnp.array([[1.0], [-3.0], [10.0], [30.0]])
  codes, scale, _ = affine.quantize(w, 3, 2)
  assert scale.tolist() == [[1.0], [10.0]]
  assert codes.ravel().tolist() == [1.0, -3.0, 1.0, 3.0]


@pytest.mark.parametrize('per', ['row', 0, -1, 2.0, None, True])
def test_impossible_columns_are_refused(per: Any) -> None:
  with pytest.raises(ValueError, match="here: expected per='tensor', .* got"):
    affine.expect_per('here', per)


@pytest.mark.parametrize('bits', [0, 1, 17, 33, 4.0, None])
def test_impossible_widths_are_refused(bits: Any) -> None:
  with pytest.raises(ValueError, match='here: expected b from 2 to 16, got'):
    affine.expect_bits('here', 'b', bits)


def test_ranges_are_finite_and_wide() -> None:
  affine.expect_range('here', 'fc', -1.0, 2.0)
  for low, high in ((-1.0, math.inf), (-math.inf, 0.0), (0.0, math.nan)):
    with pytest.raises(
      ValueError, match='here at fc: .*finite range of inputs, got'
    ):
      affine.expect_range('here', 'fc', low, high)
  with pytest.raises(ValueError, match='inputs that differ, got only 3'):
    affine.expect_range('here', 'fc', 3.0, 3.0)


def test_decoding_keeps_the_type_of_the_scale() -> None:
  found = jax.eval_shape(
    affine.dequantize,
    jnp.ones((2, 3), jnp.int8),
    jnp.ones(3),
    jnp.ones(3, jnp.int8),
  )
  assert (found.shape, found.dtype) == ((2, 3), jnp.float32)


@pytest.mark.parametrize('bits', [3, 4, 5])
def test_compiled_grids_have_the_same_steps(bits: int) -> None:
  def steps(w: jax.Array) -> tuple[jax.Array, ...]:
    ends = affine.asymmetric_scale(jnp.min(w), jnp.max(w), bits)
    return (affine.symmetric_scale(w, bits, 'tensor'), *ends)

  compiled = jax.jit(steps)
  for seed in range(20):
    w = np.float32(np.random.default_rng(seed).normal(size=(9, 4)))
    want = np.abs(w).max() / np.float32(2 ** (bits - 1) - 1)
    assert steps(w) == compiled(w)
    assert steps(w)[0] == want
