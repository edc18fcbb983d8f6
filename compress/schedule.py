"""Schedules: the growth of an amount as a function of the progress of a run."""

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp

from compress.tree import Array

Schedule: TypeAlias = Callable[[Array], Array]  # progress -> [0, 1], rising


def at_once() -> Schedule:
  """Return the schedule that has the full amount before the first step."""
  return jnp.ones_like


def cubic(begin: float = 0.0, end: float = 0.6) -> Schedule:
  r"""Return the schedule that rises fast at first, then more and more slowly.

  $s(p) = 1 - (1 - \frac{p - b}{e - b})^3$, from Zhu & Gupta 2017 (arXiv
  1710.01878, equation 1), with progress in place of steps.

  Args:
    begin: Fraction of the run at which pruning begins.
    end: Fraction of the run at which the full amount is reached.

  Returns:
    The schedule.

  Raises:
    ValueError: If not 0 <= begin < end <= 1.

  >>> float(cubic(0.0, 0.5)(jnp.float32(0.25)))
  0.875
  """
  _check('cubic', begin, end)

  def amount(progress: Array) -> Array:
    left = jnp.clip((end - progress) / (end - begin), 0.0, 1.0)
    return 1.0 - left**3

  return amount


def linear(begin: float = 0.0, end: float = 1.0) -> Schedule:
  """Return the schedule that rises evenly between two fractions of the run.

  Args:
    begin: Fraction of the run at which the rise begins.
    end: Fraction of the run at which the full amount is reached.

  Returns:
    The schedule.

  Raises:
    ValueError: If not 0 <= begin < end <= 1.

  >>> float(linear(0.0, 0.5)(jnp.float32(0.25)))
  0.5
  """
  _check('linear', begin, end)
  return lambda p: jnp.clip((p - begin) / (end - begin), 0.0, 1.0)


def steps(count: int, begin: float = 0.0, end: float = 1.0) -> Schedule:
  r"""Return the schedule of equal steps with training in between.

  $s(p) = \frac{1}{n} (1 + \lfloor n \frac{p - b}{e - b} \rfloor)$ inside
  [b, e): each of the n steps is followed by as much training (Han+ 2015, arXiv
  1506.02626, section 3.4).

  Args:
    count: Number of steps, n >= 1.
    begin: Fraction of the run at which the first step is taken.
    end: Fraction of the run at which the training of the last step ends.

  Returns:
    The schedule.

  Raises:
    ValueError: If the count is no positive integer, or not
      0 <= begin < end <= 1.

  >>> [float(steps(4)(jnp.float32(p))) for p in (0.0, 0.3, 0.75)]
  [0.25, 0.5, 1.0]
  """
  if not isinstance(count, int) or count < 1:
    raise ValueError(
      f'steps: expected a count of 1 or more, got {count!r}. It is the number '
      'of times that the network is pruned.'
    )
  _check('steps', begin, end)

  def amount(progress: Array) -> Array:
    done = count * (progress - begin) / (end - begin)
    # Half a thousandth, so that a step on the border counts despite rounding.
    return jnp.clip(jnp.floor(done + 1.0005), 0, count) / count

  return amount


def _check(where: str, begin: float, end: float) -> None:
  if not 0 <= begin < end <= 1:
    raise ValueError(
      f'{where}: expected 0 <= begin < end <= 1, got {begin!r} and {end!r}. '
      'Both are fractions of the run.'
    )
