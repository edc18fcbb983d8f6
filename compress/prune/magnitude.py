"""Pruning of single weights by score or by threshold."""

import jax.numpy as jnp

from compress.method import Ctx, Method
from compress.prune.importance import Score, ScoreFn, score_by_name
from compress.prune.masked import Masked as Masked
from compress.prune.masked import Scores, prune_by_score
from compress.prune.per_layer import (
  ZeroCounts,
  counts_from_shares,
  prune_per_layer,
)
from compress.prune.selection import select_share
from compress.schedule import Schedule
from compress.tree import Array, Params, Path


def weights(
  sparsity: float | dict[Path, float] | ZeroCounts,
  *,
  scope: str = 'layer',
  score: str | Score = 'magnitude',
  schedule: Schedule | None = None,
  floor: float = 0.01,
) -> Method:
  r"""Prune the weights with the lowest scores.

  At the end of the schedule exactly `round(sparsity * n)` of the `n` weights in
  scope are 0. Ties are broken by index, and a pruned weight stays pruned
  (Han+ 2015, arXiv 1506.02626; gradual form: Zhu & Gupta 2017, arXiv
  1710.01878).

  Args:
    sparsity: Share of zeros among the weights, in [0, 1). Weights are the
      arrays of two axes or more; biases and norms are never pruned. By path
      (`{'conv1/kernel': 0.5}`), each array has its own share and the others
      are not pruned; a function returns the counts of zeros in `init`.
    scope: 'layer' prunes the same share of each array, 'global' ranks all of
      them together.
    score: 'magnitude', 'taylor', 'fisher' or 'random' (the control), or a
      function: parameters and context -> (path, weight) -> scores. 'fisher'
      needs calibration data, and so does 'taylor' before the first step.
    schedule: How the share grows over the run; by default one-shot.
    floor: Least share of each array, at least one weight, that a global
      ranking keeps, so that no layer is emptied.

  Returns:
    The method.

  Raises:
    ValueError: If a sparsity is outside [0, 1), leaves less than the floor or
      names no weight, the scope, score or schedule is unknown, or the score
      needs data that is missing.
  """
  where = 'prune.weights'
  score_fn = score_by_name(where, score, schedule)
  if isinstance(sparsity, dict) or callable(sparsity):
    if scope != 'layer':
      raise ValueError(
        f'{where}: expected one sparsity for the scope {scope}, got '
        f'{sparsity!r}. Sparsities by path need scope="layer".'
      )
    counts = (
      sparsity if callable(sparsity) else counts_from_shares(where, sparsity)
    )
    return prune_per_layer(where, score_fn, counts, schedule)
  select = select_share(where, sparsity, scope, floor)
  return prune_by_score(where, score_fn, select, schedule)


def threshold(quality: float, *, schedule: Schedule | None = None) -> Method:
  r"""Prune the weights below a multiple of their standard deviation.

  Each array keeps $|w| > q \sigma(w)$, and at least its largest weight (Han+
  2015, arXiv 1506.02626, section 3.1). The sparsity follows from the weights:
  68 % of a normal array at $q = 1$. With a schedule q grows, the deviation is
  that of the current array, zeros included, and a pruned weight stays pruned;
  `steps(n)` is the paper's iteration.

  Args:
    quality: The multiple q, 0 or more; smaller for sensitive layers, selected
      with `only`.
    schedule: How q grows over the run; by default one-shot.

  Returns:
    The method.

  Raises:
    ValueError: If the quality is negative or not finite, or the schedule is
      not callable.
  """
  where = 'prune.threshold'
  if not 0 <= quality < float('inf'):
    raise ValueError(
      f'{where}: expected a quality of 0 or more, got {quality!r}. It is the '
      'threshold in standard deviations of the array.'
    )

  def select(scores: Scores, part: Array) -> dict[Path, Array]:
    return {
      path: (x > part * quality) | (x == jnp.max(x))
      for path, x in scores.items()
    }

  return prune_by_score(where, _deviations, select, schedule)


def _deviations(params: Params, ctx: Ctx) -> ScoreFn:
  """Score by size in standard deviations of the array."""
  del params, ctx

  def score(path: Path, w: Array) -> Array:
    del path
    spread = jnp.std(w)
    return jnp.abs(w) / jnp.where(spread > 0, spread, 1.0)

  return score
