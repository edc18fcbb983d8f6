"""Warps: monotone maps of outputs that make them more Gaussian."""

import numpy as np

OFFSETS = (
  1.0,
  0.1,
  0.01,
)  # of the logarithms, as multiples of the median above the minimum


def standardized(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Return outputs of mean 0 and variance 1, and the logs of the slopes.

  >>> standardized(np.array([1.0, 3.0]))
  (array([-1.,  1.]), array([-0., -0.]))
  """
  scale = max(float(y.std()), 1e-12)
  return (y - y.mean()) / scale, np.full(len(y), -np.log(scale))


def warped(y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
  r"""Return standardized outputs, and warped by increasingly bent logarithms.

  $\log(y - \min y + c)$, standardized, spreads good outputs and compresses bad
  ones, as Vizier's logarithmic warp (Song et al. 2024, arXiv 2408.11527,
  section 3.2). The warp is chosen by likelihood as in HEBO (Cowen-Rivers et al.
  2022, section 3.1), for which the density of `y` needs the slope of the map.

  Args:
    y: Finite outputs to be minimized, `[n]`.

  Returns:
    Pairs of warped outputs `[n]` and $\log|dz_i / dy_i|$, `[n]`.
  """
  found = [standardized(y)]
  above = y - y.min()
  middle = float(np.median(above))
  for offset in OFFSETS if middle > 0 else ():
    z, slope = standardized(np.log(above + offset * middle))
    found.append((z, slope - np.log(above + offset * middle)))
  return found
