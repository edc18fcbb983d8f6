"""Features: what the kernel compares of two points."""

import numpy as np

from search import space as spaces
from search.space import Space


def features(space: Space, points: np.ndarray) -> np.ndarray:
  """Return what the kernel compares.

  Args:
    space: The space of d parameters.
    points: Snapped, `[n, d]`; what is not active is in the middle.

  Returns:
    The points, and for each condition whether it holds, `[n, d + e]`. So two
    configs that lack a parameter are alike in it, and one that has it differs
    from one that has not by a distance that is fitted.
  """
  places = list({leaf.when: i for i, leaf in enumerate(space.leaves)}.items())
  columns = [i for when, i in places if when]
  return np.hstack([points, spaces.active(space, points)[:, columns]])


def categories(space: Space) -> np.ndarray:
  """Tell which features are categories, `[d + e]`, bool."""
  extra = len({leaf.when for leaf in space.leaves if leaf.when})
  return np.array([bool(x.options) for x in space.leaves] + [False] * extra)
