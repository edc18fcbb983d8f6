"""Fixed-point factors against exact products."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tsukiji.deploy.integer import fixed_point


@given(
  x=st.integers(-(2**31) + 1, 2**31 - 1),
  factor=st.floats(1e-12, 0.999999, allow_subnormal=False),
)
@settings(max_examples=200, deadline=None)
def test_factors_multiply_to_the_nearest_or_one_off(
  x: int, factor: float
) -> None:
  found = fixed_point.times(
    np.int32([x]), fixed_point.fixed(np.array([factor]))
  )
  assert found.dtype == np.int32
  exact = x * factor
  # Half for the last rounding; as much of it for the first; 31 bits.
  assert abs(int(found[0]) - exact) <= 0.5 + 0.5 + abs(x) * factor / 2**31


def test_factors_of_a_worked_example() -> None:
  found = fixed_point.fixed(np.array([0.5, 0.375, 1.0, 6.0, 0.0]))
  assert found.multiplier.tolist() == [2**30, 3 * 2**29, 2**30, 3 * 2**29, 0]
  assert found.shift.tolist() == [0, -1, 1, 3, 0]
  x = np.int32([7, 8, -9, 100, 5])
  assert fixed_point.times(x, found).tolist() == [4, 3, -9, 600, 0]


def test_factors_round_up_to_a_power_of_two() -> None:
  found = fixed_point.fixed(np.array([1 - 2.0**-40]))
  assert (found.multiplier[0], found.shift[0]) == (2**30, 1)
  big = fixed_point.times(
    np.int32([2**30]), fixed_point.fixed(np.array([64.0]))
  )
  assert big[0] == 2**30  # what exceeds 32 bits saturates, and never wraps
