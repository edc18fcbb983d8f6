r"""The designer that goes down the slopes that trials tell.

From the best trial a step is taken against its slope, a quarter of the range of
the steepest parameter long; where that was in vain, half as far, and so on: a
backtracking line search, as a function of the set of what was told. Where all
steps from the best were in vain the next best has its turn. With hypergradients
as slopes (`tsukiji.hypergradient`) it is the gradient-based optimisation of
hyper-parameters of Bengio 2000 and Franceschi+ 2017 (arXiv 1703.01785).
"""

import numpy as np

from search import designer, pick
from search.designer import Allowed, Designer, Key, Point, State
from search.space import Space

REACH = 0.25  # of the range, the first step in the steepest parameter
HALVINGS = 4


def descent(space: Space, allowed: Allowed = None, first: int = 2) -> Designer:
  """Return the designer.

  Args:
    space: What varies; choices and integers stay as the first points have them
      unless a slope moves them by half a step.
    allowed: Tells whether a config may be suggested; see `designer.designer`.
    first: Points of a Sobol sequence before the first step.

  Returns:
    The designer. Tell it `Values.slopes`, `[d]` in the order of `space.names`;
    trials without are no place to start from.
  """

  def rule(space: Space, state: State, key: Key, allowed: Allowed) -> Point:
    known = np.array([p for p, _ in state.told] + [*state.pending])
    if len(known) >= first:
      for point, slope in _ranked(state):
        for halving in range(HALVINGS + 1):
          end = stepped(space, point, slope, REACH / 2**halving)
          new = not pick.is_known(np.array([end]), known).any()
          if new and designer.is_allowed(space, end, allowed):
            return end
    return designer.sobol_rule(space, state, key, allowed)

  return designer.designer(space, rule, allowed)


def stepped(
  space: Space, point: Point, slope: tuple[float, ...], length: float
) -> Point:
  """Return where a step against a slope ends, inside of the cube.

  Args:
    space: The space of d parameters.
    point: Where it begins, `[d]`.
    slope: `[d]`.
    length: Of the step along the steepest parameter that may still move.

  Returns:
    `[d]`, on the cells of integers and choices.
  """
  x, g = np.array(point), np.array(slope)
  outwards = ((x <= 0) & (g > 0)) | ((x >= 1) & (g < 0))
  g = np.where(outwards, 0.0, g)
  end = x - length * g / max(np.abs(g).max(), 1e-30)
  return designer.as_point(space, np.clip(end, 0.0, 1.0))


def _ranked(state: State) -> list[tuple[Point, tuple[float, ...]]]:
  """Return the trials that told slopes, with those, the best first."""
  found = [
    (v.objectives[0], point, v.slopes)
    for point, v in state.told
    if v.slopes
    and np.isfinite([*v.objectives, *v.slopes]).all()
    and all(c <= 0 for c in v.constraints)
  ]
  return [(point, slopes) for _, point, slopes in sorted(found)]
