"""Grids of inputs against NumPy, and the gradient of their clip."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.quantize.affine import fake_quantize
from compress.quantize.integer_codes import Inputs

BITS = st.integers(2, 16)
X = np.linspace(-4.0, 7.0, 641, dtype=np.float32)


def jacob(x: np.ndarray, a: float, b: float, bits: int) -> np.ndarray:
  """Return equation 12 of arXiv 1712.05877 in doubles, its range nudged."""
  levels = 2**bits
  a, b = min(a, 0.0), max(b, 0.0)
  step = (b - a) / (levels - 1)
  below = round(-a / step)  # levels under 0
  a, b = -below * step, (levels - 1 - below) * step
  return np.round((np.clip(x.astype(float), a, b) - a) / step) * step + a


def off_ties(x: np.ndarray, step: float) -> np.ndarray:
  """Return where float32 and doubles must round alike."""
  return np.abs(np.abs(x / step) % 1 - 0.5) > 1e-2


@given(
  low=st.floats(-5, 2, width=32), span=st.floats(0.5, 9, width=32), bits=BITS
)
@settings(max_examples=50, deadline=None)
def test_inputs_are_rounded_as_in_the_paper(
  low: float, span: float, bits: int
) -> None:
  high = low + span
  found = fake_quantize(X, jnp.float32(low), jnp.float32(high), bits)
  want = jacob(X, low, high, bits)
  step = (max(high, 0.0) - min(low, 0.0)) / (2**bits - 1)
  sure = off_ties(X, step) if bits <= 10 else np.zeros(X.shape, bool)
  # Doubles may round a tie the other way: by one step, and never by more.
  error = np.abs(found - want)
  assert np.all(error <= 1.001 * step + 1e-5)
  assert np.all(error[sure] <= 1e-5)
  assert len(np.unique(found)) <= 2**bits


def test_the_grid_of_a_worked_example() -> None:
  # Steps of 1 from -1 to 2; the range [-0.9, 2.1] is nudged to them.
  x = jnp.array([-9.0, -0.9, -0.4, 0.0, 0.4, 1.4, 1.6, 9.0])
  found = fake_quantize(x, jnp.float32(-0.9), jnp.float32(2.1), 2)
  assert found.tolist() == [-1.0, -1.0, 0.0, 0.0, 0.0, 1.0, 2.0, 2.0]


@given(
  low=st.floats(-(2.0**99), 2.0**99, width=32),
  high=st.floats(-(2.0**99), 2.0**99, width=32),
  bits=BITS,
)
@settings(max_examples=50, deadline=None)
def test_zero_is_on_every_grid(low: float, high: float, bits: int) -> None:
  low, high = min(low, high), max(low, high)
  x = jnp.array([0.0, low, high])
  found = fake_quantize(x, jnp.float32(low), jnp.float32(high), bits)
  assert float(found[0]) == 0.0
  assert np.all(np.isfinite(found))


@pytest.mark.parametrize(
  ('observed', 'want'),
  [
    ((0.0, 0.0), [0.0, 1.0]),  # an input that was always 0: steps of 1
    ((3.0, 3.0), [0.0, 0.8]),  # constant above 0: from 0 to 3
    ((-3.0, -3.0), [-0.8, 0.0]),
    ((2e-38, 2e-38), [0.0, 1.0]),  # its step is too small for a float32
  ],
)
def test_constant_inputs_have_a_grid(
  observed: tuple[float, float], want: list[float]
) -> None:
  found = fake_quantize(
    jnp.array([-0.75, 0.75]), *map(jnp.float32, observed), bits=4
  )
  np.testing.assert_allclose(found, want, rtol=1e-6)


def test_inputs_pass_gradients_inside_their_range() -> None:
  low, high, bits = -1.0, 3.0, 3
  grad = jax.vmap(jax.grad(lambda x: fake_quantize(x, low, high, bits)))(X)
  step = (high - low) / (2**bits - 1)
  below = round(-low / step)
  ends = (-below * step, (2**bits - 1 - below) * step)
  # The surrogate is the clip alone, and its slope is found by differences.
  h = 1e-3
  slope = (np.clip(X + h, *ends) - np.clip(X - h, *ends)) / (2 * h)
  away = np.min(np.abs(X[:, None] - np.array(ends)), axis=1) > 2 * h
  np.testing.assert_allclose(grad[away], slope[away], atol=1e-3)
  assert {0.0, 1.0} == set(np.asarray(grad)[away].tolist())


def test_a_range_is_rounded_to_the_bits_it_holds() -> None:
  grid = Inputs(jnp.float32(0.0), jnp.float32(7.0), 3)
  assert grid.round(jnp.array([2.4, 2.6, 8.0])).tolist() == [2.0, 3.0, 7.0]
