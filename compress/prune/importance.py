"""Importance scores of weights: low scores are pruned first.

A score is a function of the tree and the context that returns a function of
one array: `taylor(params, ctx)('fc/kernel', w)`. Before training, data comes
from the probe (`ctx.probe`); in training, from the gradient of the step
(`ctx.grads`), which is dense also where weights are pruned. A score that needs
data and finds neither raises a ValueError.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from compress import hessian, tree
from compress.errors import expect_name
from compress.method import Ctx, expect_probe
from compress.random import draw, own
from compress.schedule import Schedule
from compress.tree import Array, Params, Path

SAMPLES = 256  # single-example gradients that estimate a Fisher matrix

ScoreFn: TypeAlias = Callable[[Path, Array], Array]  # path, weight -> scores
Score: TypeAlias = Callable[[Params, Ctx], ScoreFn]


def magnitude(params: Params, ctx: Ctx) -> ScoreFn:
  """Score by size, |w| (Han+ 2015, arXiv 1506.02626)."""
  del params, ctx
  return lambda path, w: jnp.abs(w)


def random(params: Params, ctx: Ctx) -> ScoreFn:
  """Score at random: the control for every other score."""
  del params

  def worth(path: Path, w: Array) -> Array:
    if ctx.key is None:
      raise ValueError(
        f'score.random at {path}: expected a key in the context, got None. '
        'Pass Ctx(key=jax.random.key(seed)).'
      )
    key = own(ctx.key, path)
    return draw(jax.random.uniform, key, w.shape)

  return worth


def taylor(params: Params, ctx: Ctx) -> ScoreFn:
  r"""Score by the first-order change of the loss, $|w \, g|$.

  Molchanov+ 2017 (arXiv 1611.06440, section 2.2) for single weights. The
  gradient $g$ is that of the step, or of all calibration data before training.
  """
  gradient = gradients('score.taylor', params, ctx)
  return lambda path, w: jnp.abs(w * gradient(path, w))


def fisher(params: Params, ctx: Ctx) -> ScoreFn:
  r"""Score by the second-order change of the loss, $w^2 \, E[g^2] / 2$.

  The saliency of Optimal Brain Damage (LeCun+ 1989, section 2) with the
  diagonal of the empirical Fisher matrix for that of the Hessian: $g$ are the
  gradients of `SAMPLES` single calibration examples.
  """
  where = 'score.fisher'
  probe = expect_probe(where, ctx)
  found = probe.reduce(params, weight_paths(params), hessian.squares, SAMPLES)
  return lambda path, w: w**2 * _pick(where, found, path, w.shape) / 2


SCORES: dict[str, Score] = {
  'magnitude': magnitude,
  'random': random,
  'taylor': taylor,
  'fisher': fisher,
}
NEEDS_CALIBRATION = ('fisher',)  # scores that exist before training only


def score_by_name(
  where: str, score: str | Score, schedule: Schedule | None
) -> Score:
  """Return a score by name, or one that is a function.

  Args:
    where: Name of the caller, for error messages.
    score: A name in `SCORES`, or a `Score`.
    schedule: When it is computed; None is once, before training.

  Returns:
    The score.

  Raises:
    ValueError: If there is no score of that name, or it cannot be computed in
      training.
  """
  if callable(score):
    return score
  expect_name(where, 'score', score, SCORES)
  if score in NEEDS_CALIBRATION and schedule is not None:
    raise ValueError(
      f'{where}: expected no schedule with score={score!r}, got {schedule!r}. '
      "It needs calibration data, which is used before training only; 'taylor' "
      'uses the gradient of each step.'
    )
  return SCORES[score]


def gradients(where: str, params: Params, ctx: Ctx) -> ScoreFn:
  """Return the gradient of the loss in each decoded weight.

  Args:
    where: Name of the caller, for error messages.
    params: A tree of arrays and nodes.
    ctx: With the gradient of the step, or else a probe.

  Returns:
    A function of a path and the weight there; it raises a ValueError for an
    array that is not a weight of the network, such as a factor of one.

  Raises:
    ValueError: If there is neither a gradient nor a probe.
  """
  dense = ctx.grads
  if dense is None:
    dense = expect_probe(where, ctx).grad(params)
  found = tree.paths(dense)
  return lambda path, w: _pick(where, found, path, w.shape)


def weight_paths(params: Params) -> tuple[Path, ...]:
  """Return the paths of the weights of the network among the given arrays.

  Arrays that are only a part of a weight, as a factor, are left out.
  """
  dense = tree.paths(jax.eval_shape(tree.decode, params))
  found: dict[Path, Array] = {}
  tree.map_arrays(lambda path, w: found.setdefault(path, w), params)
  return tuple(
    path
    for path, w in found.items()
    if path in dense and dense[path].shape == w.shape
  )


def _pick(
  where: str,
  found: dict[Path, Array],
  path: Path,
  shape: tuple[int, ...],
) -> Array:
  if path not in found or found[path].shape != shape:
    raise no_gradient(where, path, shape)
  return found[path]


def no_gradient(where: str, path: Path, shape: tuple[int, ...]) -> ValueError:
  """Return the error for an array that is not a weight of the network."""
  return ValueError(
    f'{where} at {path}: expected a weight of the network, which has a '
    f'gradient, got one of shape {shape} inside another node. Prune before '
    'factorizing, or choose score="magnitude".'
  )
