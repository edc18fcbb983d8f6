"""Schedules against the formula of the paper."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from compress import schedule

shares = st.floats(0, 1, width=32)


def zhu_gupta(t: int, begin: int, every: int, times: int) -> float:
  """Return equation 1 of arXiv 1710.01878, in steps, from 0 to 1."""
  if t < begin:
    return 0.0
  t = min(t, begin + times * every)
  return 1.0 + (0.0 - 1.0) * (1 - (t - begin) / (times * every)) ** 3


@pytest.mark.parametrize(
  ('begin', 'every', 'times'), [(0, 10, 6), (25, 5, 10), (10, 1, 90)]
)
def test_cubic_is_the_paper_s(begin: int, every: int, times: int) -> None:
  end = begin + every * times
  amount = schedule.cubic(begin / 100, end / 100)
  found = amount(jnp.arange(101) / 100)
  want = [zhu_gupta(t, begin, every, times) for t in range(101)]
  np.testing.assert_allclose(found, want, atol=1e-6)


@given(begin=shares, end=shares, one=shares, other=shares)
@settings(max_examples=60, deadline=None)
def test_cubic_rises_from_none_to_all(
  begin: float, end: float, one: float, other: float
) -> None:
  assume(end - begin > 1e-3)
  amount = schedule.cubic(begin, end)
  low, high = (
    float(amount(jnp.float32(p))) for p in (min(one, other), max(one, other))
  )
  assert 0.0 <= low <= high <= 1.0
  assert float(amount(jnp.float32(begin))) == 0.0
  assert float(amount(jnp.float32(end))) == 1.0
  assert float(amount(jnp.float32(1.0))) == 1.0


def test_linear_rises_evenly() -> None:
  found = schedule.linear(0.25, 0.75)(jnp.linspace(0.0, 1.0, 9))
  want = [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
  np.testing.assert_allclose(found, want, atol=1e-6)


def test_at_once_is_all_from_the_start() -> None:
  amount = jax.jit(schedule.at_once())
  assert [float(amount(jnp.float32(p))) for p in (0.0, 0.3, 1.0)] == [1.0] * 3


@pytest.mark.parametrize(
  ('count', 'begin', 'end', 'run'),
  [(4, 0.0, 1.0, 100), (10, 0.1, 0.7, 100), (1, 0.5, 0.6, 10), (3, 0, 1, 300)],
)
def test_steps_are_equal_and_equally_long(
  count: int, begin: float, end: float, run: int
) -> None:
  found = np.asarray(
    schedule.steps(count, begin, end)(jnp.arange(run + 1) / run)
  )
  starts = [
    round(run * (begin + i * (end - begin) / count)) for i in range(count)
  ]
  want = [sum(t >= s for s in starts) / count for t in range(run + 1)]
  np.testing.assert_allclose(found, want, rtol=1e-6)
  assert found[-1] == 1.0


@pytest.mark.parametrize('count', [0, -1, 2.0, math.nan])
def test_impossible_counts_are_refused(count: Any) -> None:
  with pytest.raises(ValueError, match=f'a count of 1 or more, got {count!r}'):
    schedule.steps(count)


@pytest.mark.parametrize(
  ('begin', 'end'),
  [(0.5, 0.5), (0.6, 0.2), (-0.1, 0.5), (0.0, 1.1), (math.nan, 0.5), (0.0, 0)],
)
def test_impossible_fractions_are_refused(begin: float, end: float) -> None:
  stepwise = functools.partial(schedule.steps, 3)
  for make in (schedule.cubic, schedule.linear, stepwise):
    with pytest.raises(ValueError, match='0 <= begin < end <= 1, got'):
      make(begin, end)
