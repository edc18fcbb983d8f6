"""Pruning of single weights by score or by threshold."""

import jax.numpy as jnp

from compress.method import Ctx, Method
from compress.prune.importance import Worth, named
from compress.prune.masked import Masked as Masked
from compress.prune.masked import Scores, share, shrinking
from compress.prune.per_layer import Goals, allotted, shares
from compress.schedule import Schedule
from compress.tree import Array, Params, Path


def weights(
  sparsity: float | dict[Path, float] | Goals,
  *,
  scope: str = 'layer',
  score: str = 'magnitude',
  schedule: Schedule | None = None,
  floor: float = 0.01,
) -> Method:
  r"""Prune the weights of least score and train the rest.

  The number of zeros is exactly `round(sparsity * n)` of the `n` weights in
  scope once the schedule is through. Ties are broken by index, and a pruned
  weight stays pruned (Han+ 2015, arXiv 1506.02626; gradual form: Zhu & Gupta
  2017, arXiv 1710.01878).

  Args:
    sparsity: Share of zeros among the weights, in [0, 1). Weights are the
      arrays of two axes or more; biases and norms are left alone. By path
      (`{'conv1/kernel': 0.5}`), each array gets its own share and those not
      named stay whole; a function counts the zeros of each in `init`.
    scope: 'layer' prunes the same share of each array, 'global' ranks all of
      them together.
    score: 'magnitude', 'taylor', 'fisher' or 'random' (the control). 'fisher'
      needs calibration data, and so does 'taylor' where it prunes before the
      first step.
    schedule: How the share grows over the run; by default all at once.
    floor: Share of each array, and at least one weight of it, that a global
      ranking must leave, so that no layer is ever emptied.

  Returns:
    The method.

  Raises:
    ValueError: If a sparsity is outside [0, 1), leaves less than the floor or
      names no weight, the scope, score or schedule is none, or the score
      needs data that is not there.
  """
  where = 'prune.weights'
  judge = named(where, score, schedule)
  if isinstance(sparsity, dict) or callable(sparsity):
    if scope != 'layer':
      raise ValueError(
        f'{where}: expected one sparsity for the scope {scope}, got '
        f'{sparsity!r}. Amounts by path go with the scope layer.'
      )
    goals = sparsity if callable(sparsity) else shares(where, sparsity)
    return allotted(where, judge, goals, schedule)
  choose = share(where, sparsity, scope, floor)
  return shrinking(where, judge, choose, schedule)


def threshold(quality: float, *, schedule: Schedule | None = None) -> Method:
  r"""Prune the weights below a multiple of their standard deviation.

  What is kept of each array is $|w| > q \sigma(w)$, and at least its largest
  weight (Han+ 2015, arXiv 1506.02626, section 3.1). The sparsity follows from
  the weights: a normal array loses 68 % at $q = 1$. With a schedule the
  quality grows, the deviation is that of the array as it is, zeros included,
  and a pruned weight stays pruned; `steps(n)` is the paper's iteration.

  Args:
    quality: The multiple q, 0 or more; small for sensitive layers, which
      `only` tells apart.
    schedule: How q grows over the run; by default it is whole at once.

  Returns:
    The method.

  Raises:
    ValueError: If the quality is negative or not finite, or the schedule none.
  """
  where = 'prune.threshold'
  if not 0 <= quality < float('inf'):
    raise ValueError(
      f'{where}: expected a quality of 0 or more, got {quality!r}. It is the '
      'threshold in standard deviations of the array.'
    )

  def choose(scores: Scores, part: Array) -> dict[Path, Array]:
    return {
      path: (x > part * quality) | (x == jnp.max(x))
      for path, x in scores.items()
    }

  return shrinking(where, _deviations, choose, schedule)


def _deviations(params: Params, ctx: Ctx) -> Worth:
  """Score by size in standard deviations of the array."""
  del params, ctx

  def worth(path: Path, w: Array) -> Array:
    del path
    spread = jnp.std(w)
    return jnp.abs(w) / jnp.where(spread > 0, spread, 1.0)

  return worth
