"""Ranks that energy and Bayes find, on spectra that are known."""

from typing import Any

import numpy as np
import pytest

from compress.lowrank import rank_selection

DRAWN = np.random.default_rng(0)


def noisy(rank: int, noise: float, shape: tuple[int, int]) -> np.ndarray:
  """Return a product of normal factors under normal noise."""
  one, other = (
    DRAWN.normal(size=(shape[0], rank)),
    DRAWN.normal(size=(rank, shape[1])),
  )
  return one @ other + noise * DRAWN.normal(size=shape)


@pytest.mark.parametrize('rank', [0, 1, 3, 8])
@pytest.mark.parametrize('shape', [(40, 100), (100, 40), (60, 60)])
def test_bayes_finds_the_rank_above_the_noise(
  rank: int, shape: tuple[int, int]
) -> None:
  assert rank_selection.vbmf(noisy(rank, 0.5, shape)) == rank


def test_bayes_is_independent_of_units() -> None:
  matrix = noisy(4, 1.0, (30, 50))
  assert (
    rank_selection.vbmf(1e-4 * matrix) == rank_selection.vbmf(1e4 * matrix) == 4
  )
  assert rank_selection.vbmf(np.zeros((3, 4))) == 0


def test_bayes_threshold_is_that_of_random_matrices() -> None:
  """At the noise that is true, what is left is above all noise."""
  noise, (short, long) = 0.7, (50, 200)
  alpha = short / long
  edge = noise * (np.sqrt(short) + np.sqrt(long))  # of Marchenko and Pastur
  tau = 2.5129 * np.sqrt(alpha)
  bound = np.sqrt(long * noise**2 * (1 + tau) * (1 + alpha / tau))
  assert edge < bound < 1.2 * edge
  u, _ = np.linalg.qr(DRAWN.normal(size=(short, 2)))
  v, _ = np.linalg.qr(DRAWN.normal(size=(long, 2)))
  pure = noise * DRAWN.normal(size=(short, long))
  signal = u @ np.diag([3 * bound, 0.3 * bound]) @ v.T
  assert rank_selection.vbmf(pure + signal) == 1


@pytest.mark.parametrize(
  ('share', 'want'), [(0.5, 1), (0.89, 1), (0.91, 2), (0.9999, 3)]
)
def test_energy_is_of_squares(share: float, want: int) -> None:
  assert rank_selection.energy(np.diag([3.0, 0.99, 0.1]), share) == want


def test_numbers_are_ranks_and_values_are_not_read() -> None:
  untouched: Any = None
  assert rank_selection.resolve(3, untouched) == 3
  assert rank_selection.resolve('vbmf', np.zeros((2, 2))) == 1


@pytest.mark.parametrize(
  'rank',
  [0, -1, 0.0, 1.0, 1.5, True, None, 'vb', (1, 0), (1, 2, 3), {'fc': 0}],
)
def test_what_is_no_rank_is_refused(rank: Any) -> None:
  with pytest.raises(ValueError, match='here: expected'):
    rank_selection.expect('here', rank)
