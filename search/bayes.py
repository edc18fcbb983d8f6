"""Bayesian optimization with Gaussian processes."""

from typing import NamedTuple

import jax
import numpy as np
from scipy.stats import norm, qmc

from search import designer, gp, maximize, pareto, warp
from search.acquisition import Goal
from search.designer import Allowed, Designer, Key, Point, State
from search.features import categories, features
from search.gp import Model
from search.space import Space

FANTASIES = 16
FIRST, CONSTRAINED = 4, 10  # points before the first model
EARLY, FEW = 10, 32  # steps and points of the fits that choose a warp
NOISY = 0.5  # part of the variance from which noise explains all


class Observations(NamedTuple):
  """Observations and pending points, sorted.

  Attributes:
    points: Observations, then pending, `[n + p, d]`.
    objectives: `[n, m]`; NaN for failed trials.
    constraints: At most 0 for feasible trials, `[n, c]`.
    fine: Whether trials did not fail, `[n]`.
    seconds: Times of trials, `[n]`; NaN if not known.
  """

  points: np.ndarray
  objectives: np.ndarray
  constraints: np.ndarray
  fine: np.ndarray
  seconds: np.ndarray

  @property
  def feasible(self) -> np.ndarray:
    """Return whether trials meet every constraint, `[n]`."""
    return self.fine & np.all(self.constraints <= 0, axis=1)


def bayes(
  space: Space,
  allowed: Allowed = None,
  first: int | None = None,
  reference: tuple[float, ...] | None = None,
  per_second: bool = False,
) -> Designer:
  """Return a designer that uses Gaussian processes.

  Args:
    space: The space of configs.
    allowed: Whether a config may be suggested; see `designer.designer`.
    first: Points of a Sobol sequence before the first model; by default 4, or
      10 where there are constraints to be learned too.
    reference: Reference point of the hypervolume, `[m]`; by default a tenth of
      the extent of all feasible trials beyond the worst.
    per_second: Whether to maximize the improvement per second (Snoek+ 2012,
      section 3.2), with a process of the logarithm of `Values.seconds`.

  Returns:
    The designer.

  Raises:
    ValueError: If `first` is below 2.
  """
  if first is not None and first < 2:
    raise ValueError(f'bayes: expected first >= 2, got {first!r}.')

  def rule(space: Space, state: State, key: Key, allowed: Allowed) -> Point:
    fine = [v for _, v in state.observations if np.isfinite(v.objectives).all()]
    count = len(state.observations) + len(state.pending)
    limited = any(v.constraints for _, v in state.observations)
    least = first or (CONSTRAINED if limited else FIRST)
    if count < least or len(fine) < 2:
      return designer.sobol_rule(space, state, key, allowed)
    with gp.precise():
      observed, rng = gathered(state), designer.generator(key)
      if not per_second:
        observed = observed._replace(
          seconds=np.full(len(observed.fine), np.nan)
        )
      goal, good = aim(space, observed, reference, rng)
      if is_lost(goal):
        return designer.sobol_rule(space, state, key, allowed)
      return maximize.best(space, goal, observed.points, good, rng, allowed)

  return designer.designer(space, rule, allowed)


def is_lost(goal: Goal) -> bool:
  """Return whether a single objective looks like noise.

  Its model would send the search to the corners, where its variance is largest.
  """
  if len(goal.corners[0, 0]) > 1:
    return False
  hyper = gp.unpack(np.asarray(goal.models.theta)[0])
  return float(hyper.noise) > NOISY * float(hyper.noise + hyper.scale)


def gathered(state: State) -> Observations:
  """Return the observations of a state as arrays, sorted by the points."""
  rows = sorted(state.observations)
  points = [p for p, _ in rows] + sorted(state.pending)
  objectives = np.array([v.objectives for _, v in rows])
  size = max(len(v.constraints) for _, v in rows)
  unknown = (np.nan,) * size  # a failed trial may have no constraints
  constraints = np.array(
    [v.constraints if len(v.constraints) == size else unknown for _, v in rows]
  )
  fine = np.isfinite(np.hstack([objectives, constraints])).all(axis=1)
  if not fine.all():
    failed = np.where(fine, -1.0, 1.0)[:, None]
    constraints = np.hstack([constraints, failed])
    objectives, constraints[:, :-1] = (
      np.where(fine[:, None], values, np.nan)
      for values in (objectives, constraints[:, :-1])
    )
  seconds = np.array([v.seconds for _, v in rows])
  return Observations(np.array(points), objectives, constraints, fine, seconds)


class Output(NamedTuple):
  """An objective or a constraint, modeled.

  Attributes:
    model: The process, with padded rows and a column for each fantasy.
    smooth: The output without noise, standardized or warped, at observed points
      and in the fantasies of pending ones, `[n + p, s]`.
    shift: Offset subtracted before division by `scale`, if not warped.
    scale: See `shift`.
  """

  model: Model
  smooth: np.ndarray
  shift: float
  scale: float


def aim(
  space: Space,
  observed: Observations,
  reference: tuple[float, ...] | None,
  rng: np.random.Generator,
) -> tuple[Goal, np.ndarray]:
  """Return the goal, and the observed points near which to search.

  Args:
    space: The space of configs.
    observed: The observations.
    reference: See `bayes`.
    rng: Generator of the fantasies of pending trials.
  """
  x, category = features(space, observed.points), categories(space)
  m, pending = observed.objectives.shape[1], len(x) - len(observed.objectives)
  columns = np.hstack([observed.objectives, observed.constraints]).T
  # Volumes are those of warped objectives, unless a reference has units.
  bent = m if m == 1 or reference is None else 0
  outputs = [
    output(x, y, category, rng, bend=j < bent, differ=m == 1 and j == 0)
    for j, y in enumerate(columns)
  ]
  timed, untimed = [], len(outputs)
  if np.sum(np.isfinite(observed.seconds)) > 1:
    took = np.log(np.maximum(observed.seconds, 1e-3))
    outputs.append(output(x, took, category, rng, bend=False, differ=False))
    timed = [outputs[-1].scale]
  rows = np.pad(observed.feasible, (0, pending), constant_values=True)
  corners, weight = np.zeros((1, 2, m)), np.ones(1)
  if observed.feasible.any() and m > 1:
    corners, weight = beyond(outputs[:m], rows, reference)
  goal = Goal(
    jax.tree.map(lambda *leaves: np.stack(leaves), *[o.model for o in outputs]),
    category,
    outputs[0].smooth[rows].min(axis=0) if rows.any() else np.zeros(1),
    corners,
    weight,
    np.array([-o.shift / o.scale for o in outputs[m:untimed]]),
    np.array(float(observed.feasible.any())),
    np.array(timed),
  )
  return goal, nearby(observed, outputs[:untimed], m)


def nearby(observed: Observations, outputs: list[Output], m: int) -> np.ndarray:
  """Return the best observed points, alternating between objectives."""
  n = len(observed.fine)
  violated = np.maximum(observed.constraints, 0.0)
  scale = np.array([o.scale for o in outputs[m:]])
  over = np.sum(np.nan_to_num(violated, nan=np.inf) / scale, axis=1)
  orders = []
  for o in outputs[:m]:
    value = np.where(observed.fine, o.smooth[:n, 0], np.inf)
    orders.append(
      np.lexsort((value, np.where(observed.feasible, 0.0, over + 1)))
    )
  front = pareto.front(
    np.array([o.smooth[:n, 0] for o in outputs[:m]]).T[observed.feasible]
  )
  ends = np.array(orders).T.ravel()[: maximize.BEST]
  middle = np.flatnonzero(observed.feasible)[front] if m > 1 else ends
  return observed.points[np.union1d(ends, middle)]


def output(
  x: np.ndarray,
  y: np.ndarray,
  category: np.ndarray,
  rng: np.random.Generator,
  bend: bool,
  differ: bool,
) -> Output:
  """Model an output.

  Args:
    x: Features of observed and then pending points, `[n + p, d]`.
    y: The observed output, `[n]`; NaN for failed trials.
    category: `[d]`, bool.
    rng: Generator of the fantasies of pending trials.
    bend: Whether the output may be warped.
    differ: Whether fantasies are sampled; otherwise all are the mean.

  Returns:
    The output in its most likely warp.
  """
  n, known = len(y), np.isfinite(y)
  tried = warp.warped(y[known]) if bend else [warp.standardized(y[known])]
  inputs, few = x[:n][known], gp.spread(y[known], FEW)
  # The most likely warp is known early; only that one is fitted to the end.
  fits = [
    (*gp.fit(inputs[few], z[few], category, None, EARLY), z, slope[few])
    for z, slope in tried
  ]
  begun, _, warped, _ = min(fits, key=lambda fit: fit[1] - fit[3].sum())
  theta, _ = gp.fit(inputs, warped, category, begun)
  z = np.zeros(len(x))
  z[:n][known] = warped
  data = gp.padded(x, z)
  data = data._replace(mask=np.pad(known, (0, len(data.y) - n)) * 1.0)
  model = gp.condition(theta, category, data, data.y[:, None])
  noise = gp.NOISE + float(np.exp(theta[-1]))
  smooth = z[:, None] - noise * np.asarray(model.alpha)[: len(x)]
  if len(x) > n:
    row = np.arange(len(data.y))
    drawn = imagined(model, category, slice(n, len(x)), rng, differ)
    outputs = np.tile(data.y[:, None], FANTASIES)
    outputs[n : len(x)] = drawn
    mask = np.where((row >= n) & (row < len(x)), 1.0, data.mask)
    model = gp.condition(theta, category, data._replace(mask=mask), outputs)
    smooth = np.vstack([np.tile(smooth[:n], FANTASIES), drawn])
  shift, scale = float(y[known].mean()), max(float(y[known].std()), 1e-12)
  return Output(model, smooth, shift, scale)


def imagined(
  model: Model,
  category: np.ndarray,
  pending: slice,
  rng: np.random.Generator,
  differ: bool,
) -> np.ndarray:
  """Sample fantasies of pending trials.

  Args:
    model: The process conditioned on the observations.
    category: `[d]`, bool.
    pending: Rows of the model.
    rng: Generator of the samples.
    differ: Whether they are sampled jointly; otherwise all are the mean.

  Returns:
    `[p, FANTASIES]`.
  """
  mean, spread = map(np.asarray, gp.joint(model, category))
  count = pending.stop - pending.start
  normal = np.zeros((count, FANTASIES))
  if differ:
    points = qmc.Sobol(count, rng=rng).random(FANTASIES)
    normal = norm.ppf(np.clip(points, 1e-6, 1 - 1e-6)).T
  block = spread[pending, pending] + 1e-9 * np.eye(count)
  return mean[pending, :1] + np.linalg.cholesky(block) @ normal


def beyond(
  outputs: list[Output], rows: np.ndarray, reference: tuple[float, ...] | None
) -> tuple[np.ndarray, np.ndarray]:
  """Return padded boxes that no feasible point dominates, and their weights."""
  values = np.array([o.smooth[rows, 0] for o in outputs]).T
  if reference is None:
    # Of all: the ends of a front that has just begun would keep it there.
    low, high = values.min(axis=0), values.max(axis=0)
    worst = high + 0.1 * np.maximum(high - low, 1e-3)
  else:
    affine = [(o.shift, o.scale) for o in outputs]
    worst = np.array(
      [(r - a) / b for r, (a, b) in zip(reference, affine, strict=True)]
    )
  corners = pareto.boxes(values[pareto.front(values)], worst)
  count = len(corners)
  more = max(32, 1 << (count - 1).bit_length()) - count
  empty = np.broadcast_to([[[-np.inf], [0.0]]], (more, 2, len(worst)))
  weight = np.pad(np.ones(count), (0, more))
  return np.concatenate([corners, empty]), weight
