"""Choice of a rank: by number, by energy, or by variational Bayes."""

from typing import Any, TypeAlias

import numpy as np

# A number; a share of the energy; 'vbmf'; or one of these by path.
Rank: TypeAlias = Any
GRID = 256  # noise levels evaluated at once
REFINEMENTS = 4


def expect(where: str, rank: Rank) -> None:
  """Check a rank.

  Raises:
    ValueError: If it is none.
  """
  if isinstance(rank, dict):
    for one in rank.values():
      expect(where, one)
  elif isinstance(rank, tuple):
    if len(rank) != 2 or not all(type(n) is int for n in rank):
      raise ValueError(
        f'{where}: expected two ranks, of inputs and outputs, got {rank!r}.'
      )
    for one in rank:
      expect(where, one)
  elif type(rank) is int:
    if rank < 1:
      raise ValueError(
        f'{where}: expected a rank of 1 or more, got {rank!r}. Rank 0 would '
        'remove the layer.'
      )
  elif not (rank == 'vbmf' or (type(rank) is float and 0 < rank < 1)):
    raise ValueError(
      f"{where}: expected a rank as 8, a share of the energy as 0.9, or 'vbmf'"
      f', got {rank!r}.'
    )


def resolve(rank: Rank, matrix: Any) -> int:
  """Return the rank of a matrix as a number.

  Args:
    rank: A number, a share of the energy, or 'vbmf'.
    matrix: `[rows, columns]`; its values are read only where the rank depends
      on them.

  Returns:
    The rank, at least 1.
  """
  if type(rank) is int:
    return rank
  values = np.asarray(matrix, np.float64)
  return max(1, vbmf(values) if rank == 'vbmf' else energy(values, rank))


def energy(matrix: np.ndarray, share: float) -> int:
  r"""Return the least r with $\sum_{i \le r} s_i^2 \ge e \sum_i s_i^2$.

  >>> energy(np.diag([3.0, 1.0, 0.1]), 0.95)
  2
  """
  square = np.cumsum(np.linalg.svd(matrix, compute_uv=False) ** 2)
  return int(np.searchsorted(square, share * square[-1])) + 1


def vbmf(matrix: np.ndarray) -> int:
  r"""Return the rank that empirical variational Bayes finds above the noise.

  The global analytic solution of Nakajima+ 2013 (Journal of Machine Learning
  Research 14, theorem 2 and corollary 1): with $L \le M$ sides, $\alpha = L/M$
  and $\bar\tau = 2.5129 \sqrt\alpha$, what remains are the singular values
  above $\sqrt{M \sigma^2 (1 + \bar\tau)(1 + \alpha / \bar\tau)}$, where the
  noise $\sigma^2$ minimizes the free energy.

  Args:
    matrix: `[rows, columns]`.

  Returns:
    The rank; 0 if there is only noise.
  """
  short, long = sorted(matrix.shape)
  s2 = np.linalg.svd(matrix, compute_uv=False) ** 2
  if not s2[0] > 0:
    return 0
  alpha = short / long
  tau = 2.5129 * np.sqrt(alpha)
  bound = (1 + tau) * (1 + alpha / tau)
  noise = _noise(s2, alpha, long, bound)
  return int(np.sum(s2 > long * noise * bound))


def _noise(s2: np.ndarray, alpha: float, long: int, bound: float) -> float:
  """Return the noise of least free energy, by refining a grid."""
  short = len(s2)
  last = max(0, min(int(np.ceil(short / (1 + alpha))), short) - 1)
  high = s2.sum() / (short * long)
  low = max(s2[last] / (long * bound), s2[last:].mean() / long, high * 1e-9)
  low, high = min(low, high), max(low, high)
  for _ in range(REFINEMENTS):
    tries = np.geomspace(low, high, GRID)
    at = int(
      np.argmin([_free_energy(s2, x, alpha, long, bound) for x in tries])
    )
    low, high = tries[max(at - 1, 0)], tries[min(at + 1, GRID - 1)]
  return float(tries[at])


def _free_energy(
  s2: np.ndarray, noise: float, alpha: float, long: int, bound: float
) -> float:
  """Return the free energy at a noise, up to constants (equation 28)."""
  x = np.maximum(s2 / (long * noise), 1e-300)
  signal, rest = x[x > bound], x[x <= bound]
  shift = signal - (1 + alpha)
  tau = 0.5 * (shift + np.sqrt(shift**2 - 4 * alpha))
  return float(
    np.sum(rest - np.log(rest))
    + np.sum(signal - tau + np.log((tau + 1) / signal))
    + alpha * np.sum(np.log(tau / alpha + 1))
  )
