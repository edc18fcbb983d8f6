"""Maximization of the acquisition: candidates, ascent, neighbors."""

import numpy as np
from scipy.stats import qmc

from search import acquisition, designer
from search import space as spaces
from search.acquisition import Goal
from search.designer import Allowed, Point
from search.features import features
from search.parameter import levels
from search.space import Space

WIDE, NEAR = 1024, 512  # candidates everywhere, and around the best
STARTS = 4  # of each of them that climb
BEST = 5  # observed points around which candidates lie
SAME = 1e-6  # of the range
LEVELS = 12  # values of a parameter that are tried around a point


def best(
  space: Space,
  goal: Goal,
  known: np.ndarray,
  good: np.ndarray,
  rng: np.random.Generator,
  allowed: Allowed,
) -> Point:
  """Return the new allowed point of the highest score.

  Args:
    space: The space of d parameters.
    goal: The goal.
    known: Points that were tried or are pending, `[n, d]`.
    good: Points near which the score may be high, `[k, d]`.
    rng: Generator of the candidates.
    allowed: Whether a config may be suggested.

  Returns:
    The point; a random one if all candidates are known.
  """
  halves = candidates(space, good, rng)
  pool = np.vstack([leading(space, goal, half, allowed) for half in halves])
  for _ in range(2 if any(leaf.whole for leaf in space.leaves) else 1):
    risen = climbed(space, goal, pool[: 2 * STARTS], allowed)
    around = neighbors(space, leading(space, goal, risen, allowed)[0], rng)
    pool = np.vstack([risen, around, pool])
  # Points that climbed to a known point are of no use.
  fresh = pool[~is_known(pool, known)]
  if not len(fresh):
    return designer.drawn(space, rng, allowed)
  return tuple(leading(space, goal, fresh, allowed)[0].tolist())


def is_known(points: np.ndarray, known: np.ndarray) -> np.ndarray:
  """Return which points differ by less than `SAME` from a known one, `[n]`."""
  gap = np.abs(points[:, None] - known).max(axis=2)
  return gap.min(axis=1, initial=1.0) < SAME


def candidates(
  space: Space, good: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Return points that fill the cube, and points around good ones.

  A near point differs in all parameters or a third of them, by 0.1 % to 30 %
  of the range, or where there are levels by drawing anew.
  """
  d = len(space.names)
  wide = qmc.Sobol(d, rng=rng).random(WIDE)
  center = good[rng.integers(len(good), size=NEAR)]
  size = 10 ** rng.uniform(-3.0, -0.5, (NEAR, 1))
  step = center + size * rng.standard_normal((NEAR, d))
  whole = np.array([leaf.whole for leaf in space.leaves])
  step = np.where(whole, rng.random((NEAR, d)), step)
  share = np.where(whole, 0.3, rng.choice([0.3, 1.0], (NEAR, 1)))
  near = np.where(rng.random((NEAR, d)) < share, step, center)
  return spaces.snap(space, wide), spaces.snap(space, np.clip(near, 0.0, 1.0))


def leading(
  space: Space, goal: Goal, pool: np.ndarray, allowed: Allowed
) -> np.ndarray:
  """Return the `STARTS` best allowed points of a pool, best first.

  Where fewer are, they are repeated; where none is, one is drawn.
  """
  more = -len(pool) % NEAR  # so that few programs are compiled
  padded = np.vstack([pool, np.repeat(pool[:1], more, axis=0)])
  scores = np.asarray(acquisition.scores(goal, features(space, padded)))
  found: list[np.ndarray] = []
  for i in np.argsort(-scores[: len(pool)], kind='stable'):
    if designer.is_allowed(space, tuple(pool[i]), allowed):
      found.append(pool[i])
    if len(found) == STARTS:
      break
  if not found:
    rng = np.random.default_rng(len(pool))
    found = [np.array(designer.drawn(space, rng, allowed))]
  return np.array([found[i % len(found)] for i in range(STARTS)])


def climbed(
  space: Space, goal: Goal, starts: np.ndarray, allowed: Allowed
) -> np.ndarray:
  """Follow the gradient from allowed points, back to the allowed region.

  Integers and choices stay. What became forbidden goes back half of the way to
  its start until it is allowed.
  """
  whole = np.array([leaf.whole for leaf in space.leaves])
  x = features(space, starts)
  free = np.zeros(x.shape, bool)
  free[:, : len(whole)] = spaces.active(space, starts) & ~whole
  ends = acquisition.climb(goal, x, free)[:, : len(whole)]
  return np.array(
    [retreated(space, a, b, allowed) for a, b in zip(starts, ends, strict=True)]
  )


def retreated(
  space: Space, start: np.ndarray, end: np.ndarray, allowed: Allowed
) -> np.ndarray:
  """Return the furthest allowed point from start to end, by bisection."""
  if designer.is_allowed(space, tuple(end), allowed):
    return end
  good, bad = 0.0, 1.0
  for _ in range(12):
    middle = (good + bad) / 2
    point = start + middle * (end - start)
    if designer.is_allowed(space, tuple(point), allowed):
      good = middle
    else:
      bad = middle
  return start + good * (end - start)


def neighbors(
  space: Space, point: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
  """Return the points that differ in one integer or choice, `[k, d]`."""
  found = [point]
  for i, leaf in enumerate(space.leaves):
    count = levels(leaf)
    spots = (np.arange(count) + 0.5) / max(count, 1)
    if count > LEVELS:
      spots = rng.random(LEVELS)
    for spot in spots:
      found.append(np.where(np.arange(len(point)) == i, spot, point))
  return spaces.snap(space, np.array(found))
