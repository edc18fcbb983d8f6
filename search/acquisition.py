"""Acquisition functions, in logarithms, and their maximization.

All outputs are minimized and standardized. The logarithm keeps a gradient
where the improvement underflows (Ament et al. 2023, arXiv 2310.20708).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.scipy.special import log_ndtr, logsumexp
from jax.scipy.stats import norm

from search import gp
from search.gp import Array, Model

FAR = -100.0  # where the asymptote of log h is exact to 1e-7
CLIMB = 30  # steps of L-BFGS


class Goal(NamedTuple):
  """The data of an acquisition function.

  Attributes:
    models: One process for each objective, then each constraint: the fields of
      a `Model` stacked on a first axis.
    category: Which features are categories, `[d]`, bool.
    best: The incumbent for each fantasy, `[s]`; used with one objective.
    corners: Boxes beyond the Pareto front, `[boxes, 2, objectives]`; used if
      there are several.
    weight: 1 for a box, 0 for padding, `[boxes]`.
    limits: Upper limit of each constraint, `[constraints]`.
    improve: 1, or 0 while no feasible point is known and only the constraints
      are optimized, `()`.
    seconds: With costs in time, the deviation of the logarithm of the time of a
      trial, which the last process models, `[1]`; else `[0]`.
  """

  models: Model
  category: Array
  best: Array
  corners: Array
  weight: Array
  limits: Array
  improve: Array
  seconds: Array


def log_h(z: Array) -> Array:
  r"""Return $\log(\phi(z) + z \Phi(z))$ without underflow.

  Below -1 it is $\log\phi(z) + \log(1 - |z| \Phi(z) / \phi(z))$, and far below
  $\log\phi(z) - 2 \log|z|$ (Ament et al. 2023, equation 9).

  >>> round(float(log_h(jnp.zeros(()))), 4)
  -0.9189
  """
  near = jnp.maximum(z, -1.0)
  mid = jnp.clip(z, FAR, -1.0)
  far = jnp.minimum(z, FAR)
  ratio = jnp.exp(jnp.log(-mid) + log_ndtr(mid) - norm.logpdf(mid))
  return jnp.where(
    z > -1.0,
    jnp.log(norm.pdf(near) + near * norm.cdf(near)),
    jnp.where(
      z > FAR,
      norm.logpdf(mid) + jnp.log1p(-ratio),
      norm.logpdf(far) - 2 * jnp.log(-far),
    ),
  )


def log_ei(mean: Array, deviation: Array, best: Array) -> Array:
  r"""Return the log of the expected improvement below `best`.

  $\log\sigma + \log h((b - \mu) / \sigma)$ (Jones et al. 1998, equation 15).
  """
  return jnp.log(deviation) + log_h((best - mean) / deviation)


def log_ehvi(mean: Array, deviation: Array, goal: Goal) -> Array:
  r"""Return the log of the expected improvement of the hypervolume.

  Exact for independent objectives: over boxes $[l, u]$ that no point of the
  front beats, $\sum \prod_j (EI_j(u_j) - EI_j(l_j))$, where $EI_j(t)$ is the
  expected improvement below $t$ (Yang et al. 2019, arXiv 1904.12672).

  Args:
    mean: `[objectives, p]`.
    deviation: `[objectives, p]`.
    goal: The goal, with its boxes.

  Returns:
    `[p]`.
  """
  low, high = goal.corners[:, 0, :, None], goal.corners[:, 1, :, None]
  open_ = jnp.isneginf(low)
  floor = jnp.where(open_, high - 1.0, low)
  above = log_ei(mean, deviation, high)
  below = log_ei(mean, deviation, floor)
  cut = jnp.log(-jnp.expm1(jnp.minimum(below - above, -1e-12)))
  each = jnp.sum(above + jnp.where(open_, 0.0, cut), axis=1)
  return logsumexp(each, axis=0, b=goal.weight[:, None])


def score(goal: Goal, x: Array) -> Array:
  r"""Return the log acquisition: log EI or log EHVI, plus log P(feasible).

  With fantasies of pending trials it is the log of the mean over them, and with
  costs in time that of the improvement per second (Snoek et al. 2012, section
  3.2).

  Args:
    goal: The goal.
    x: Features, `[p, d]`.

  Returns:
    `[p]`.
  """
  mean, deviation = jax.vmap(gp.predict, (0, None, None))(
    goal.models, goal.category, x
  )
  gain: Array
  m = len(deviation) - len(goal.limits) - len(goal.seconds)
  end = m + len(goal.limits)
  over = (goal.limits[:, None] - mean[m:end, :, 0]) / deviation[m:end]
  feasible = jnp.sum(log_ndtr(over), axis=0)
  if m == 1:
    each = log_ei(mean[0], deviation[0, :, None], goal.best)
    gain = logsumexp(each, axis=1) - jnp.log(len(goal.best))
  else:
    gain = log_ehvi(mean[:m, :, 0], deviation[:m], goal)
  cost = jnp.sum(goal.seconds[:, None] * mean[end:, :, 0], axis=0)
  return goal.improve * gain + feasible - cost


scores = jax.jit(score)


@jax.jit
def rise(goal: Goal, x: Array) -> tuple[Array, Array]:
  """Return the sum of the scores of some points and its gradient."""
  return jax.value_and_grad(lambda at: jnp.sum(score(goal, at)))(x)


def climb(goal: Goal, starts: np.ndarray, free: np.ndarray) -> np.ndarray:
  """Follow the gradient from each start, in the unit cube.

  Args:
    goal: The goal.
    starts: Features, `[k, d]`.
    free: Which features may move, `[k, d]`, bool.

  Returns:
    `[k, d]`.
  """

  def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
    x = starts.copy()
    x[free] = flat
    total, slope = rise(goal, x)
    return -float(total), -np.asarray(slope)[free]

  found = starts.copy()
  if free.any():
    found[free] = scipy.optimize.minimize(
      value,
      starts[free],
      jac=True,
      method='L-BFGS-B',
      bounds=[(0.0, 1.0)] * int(free.sum()),
      options={'maxiter': CLIMB},
    ).x
  return found
