"""How an amount grows over a run: functions of the fraction that is done."""

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp

from compress.tree import Array

Schedule: TypeAlias = Callable[[Array], Array]  # progress -> [0, 1], rising


def at_once() -> Schedule:
  """Reach the whole amount before the first step (one-shot)."""
  return jnp.ones_like


def cubic(begin: float = 0.0, end: float = 0.6) -> Schedule:
  r"""Rise fast while weights are plentiful, then ever slower.

  $s(p) = 1 - (1 - \frac{p - b}{e - b})^3$, from Zhu & Gupta 2017 (arXiv
  1710.01878, equation 1), with progress in place of steps.

  Args:
    begin: Fraction of the run at which pruning begins.
    end: Fraction of the run at which the whole amount is reached.

  Returns:
    The schedule.

  Raises:
    ValueError: If not 0 <= begin < end <= 1.

  >>> float(cubic(0.0, 0.5)(jnp.float32(0.25)))
  0.875
  """
  if not 0 <= begin < end <= 1:
    raise ValueError(
      f'cubic: expected 0 <= begin < end <= 1, got {begin!r} and {end!r}. '
      'Both are fractions of the run.'
    )

  def amount(progress: Array) -> Array:
    left = jnp.clip((end - progress) / (end - begin), 0.0, 1.0)
    return 1.0 - left**3

  return amount


def linear(begin: float = 0.0, end: float = 1.0) -> Schedule:
  """Rise evenly between two fractions of the run.

  Args:
    begin: Fraction of the run at which the rise begins.
    end: Fraction of the run at which the whole amount is reached.

  Returns:
    The schedule.

  Raises:
    ValueError: If not 0 <= begin < end <= 1.

  >>> float(linear(0.0, 0.5)(jnp.float32(0.25)))
  0.5
  """
  if not 0 <= begin < end <= 1:
    raise ValueError(
      f'linear: expected 0 <= begin < end <= 1, got {begin!r} and {end!r}. '
      'Both are fractions of the run.'
    )
  return lambda p: jnp.clip((p - begin) / (end - begin), 0.0, 1.0)
