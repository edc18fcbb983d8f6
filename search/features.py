"""Features of points for the kernel."""

import numpy as np

from search import space as spaces
from search.space import Space


def features(space: Space, points: np.ndarray) -> np.ndarray:
  """Return the features of points.

  Args:
    space: The space of d parameters.
    points: Snapped points, `[n, d]`, 0.5 for inactive parameters.

  Returns:
    The points, and for each condition whether it holds, `[n, d + e]`, so that
    the distance between configs with and without a parameter is fitted.
  """
  places = list({leaf.when: i for i, leaf in enumerate(space.leaves)}.items())
  columns = [i for when, i in places if when]
  return np.hstack([points, spaces.active(space, points)[:, columns]])


def categories(space: Space) -> np.ndarray:
  """Return which features are categories, `[d + e]`, bool."""
  extra = len({leaf.when for leaf in space.leaves if leaf.when})
  return np.array([bool(x.options) for x in space.leaves] + [False] * extra)
