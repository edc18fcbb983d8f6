"""Powers of two, taken out of weights and put back."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress import scaling

NUMBERS = st.tuples(st.integers(-255, 255), st.integers(-140, 120))


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
  st.lists(NUMBERS, min_size=3, max_size=3),
  st.sampled_from(['float32', 'bfloat16', 'float16']),
  st.integers(1, 4),
)
def test_values_and_units_give_the_weight_back(
  drawn: list[tuple[int, int]], name: str, factors: int
) -> None:
  numbers = np.array([np.ldexp(float(m), e) for m, e in drawn])
  most = float(jnp.finfo(name).max)
  w = jnp.asarray(np.clip(numbers, -most, most), name)
  values, unit = scaling.scaled(w, factors)
  assert values.dtype == unit.dtype == jnp.float32
  want = np.asarray(w).astype(np.float64)
  want[np.abs(want) < 2.0**-126] = 0  # subnormal
  back = np.asarray(values).astype(np.float64) * np.float64(unit) ** factors
  # What is far smaller than the largest number may become subnormal.
  far = np.abs(want) < np.max(np.abs(want)) * 2.0**-100
  np.testing.assert_array_equal(back[~far], want[~far])
  assert np.all(np.abs(back[far]) <= np.abs(want[far]))
  assert np.max(np.abs(want)) == 0 or 2.0**-52 <= np.max(values**2) < 2.0**52


@pytest.mark.parametrize('size', [0.0, 0.05, 1.0, 300.0])
def test_ordinary_weights_are_not_changed(size: float) -> None:
  w = jnp.array([size, -size / 3, 0.0])
  values, unit = scaling.scaled(w, 2)
  np.testing.assert_array_equal(values, w)
  assert unit == 1


def test_large_values_come_near_one() -> None:
  values, unit = scaling.scaled(jnp.array([30000.0], jnp.float16), 2)
  assert (float(values[0]), float(unit)) == (30000 / 2**14, 2**7)
