"""What a weight is worth: an array -> an array of scores, high is kept.

A score first looks at the tree and the context, once, and then judges one
array at a time: `taylor(params, ctx)('fc/kernel', w)`. What it may look at
differs: before training there may be a probe with calibration data, at a step
there is the gradient of that step (`ctx.grads`), dense also where weights are
pruned. A score that finds neither says so.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from compress import tree
from compress.method import Ctx, expect_probe
from compress.random import draw, own
from compress.schedule import Schedule
from compress.tree import Array, Params, Path

SAMPLES = 256  # single-example gradients that estimate a Fisher matrix

Worth: TypeAlias = Callable[[Path, Array], Array]  # path, weight -> scores
Score: TypeAlias = Callable[[Params, Ctx], Worth]


def magnitude(params: Params, ctx: Ctx) -> Worth:
  """Score by size, |w| (Han+ 2015, arXiv 1506.02626)."""
  del params, ctx
  return lambda path, w: jnp.abs(w)


def random(params: Params, ctx: Ctx) -> Worth:
  """Score by chance: the control that every other score has to beat."""
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


def taylor(params: Params, ctx: Ctx) -> Worth:
  r"""Score by the first-order change of the loss, $|w \, g|$.

  Molchanov+ 2017 (arXiv 1611.06440, section 2.2) for single weights. The
  gradient $g$ is that of the step, or of all calibration data before training.
  """
  gradient = gradients('score.taylor', params, ctx)
  return lambda path, w: jnp.abs(w * gradient(path, w))


def fisher(params: Params, ctx: Ctx) -> Worth:
  r"""Score by the second-order change of the loss, $w^2 \, E[g^2] / 2$.

  The saliency of Optimal Brain Damage (LeCun+ 1989, section 2) with the
  diagonal of the empirical Fisher matrix for that of the Hessian: $g$ are the
  gradients of `SAMPLES` single calibration examples.
  """
  sample = samples('score.fisher', params, ctx, SAMPLES)
  return lambda path, w: w**2 * jnp.mean(sample(path, w) ** 2, axis=0) / 2


SCORES: dict[str, Score] = {
  'magnitude': magnitude,
  'random': random,
  'taylor': taylor,
  'fisher': fisher,
}
EARLY = ('fisher',)  # scores of calibration data alone, known before training


def named(where: str, score: str, schedule: Schedule | None) -> Score:
  """Return a score by name.

  Args:
    where: Who asks, for errors.
    score: A name of `SCORES`.
    schedule: When it is asked for; None is once, before training.

  Returns:
    The score.

  Raises:
    ValueError: If there is none of that name, or it cannot follow a schedule.
  """
  if score not in SCORES:
    raise ValueError(
      f'{where}: expected a score of {", ".join(SCORES)}, got {score!r}.'
    )
  if score in EARLY and schedule is not None:
    raise ValueError(
      f'{where}: expected no schedule with score={score!r}, got {schedule!r}. '
      "It asks calibration data, which is gone once training begins; 'taylor' "
      'uses the gradient of each step.'
    )
  return SCORES[score]


def gradients(where: str, params: Params, ctx: Ctx) -> Worth:
  """Return the gradient of the loss in each decoded weight.

  Args:
    where: Who asks, for errors.
    params: A tree of arrays and nodes.
    ctx: With the gradient of the step, or else a probe.

  Returns:
    A function of a path and the weight there; it raises ValueError where that
    is not an array of the network but, say, a factor of one.

  Raises:
    ValueError: If there is neither a gradient nor a probe.
  """
  dense = ctx.grads
  if dense is None:
    dense = expect_probe(where, ctx).grad(params)
  found = tree.paths(dense)
  return lambda path, w: _pick(where, found, path, w.shape, 0)


def samples(where: str, params: Params, ctx: Ctx, count: int) -> Worth:
  """Return single-example gradients in each decoded weight.

  Args:
    where: Who asks, for errors.
    params: A tree of arrays and nodes.
    ctx: With a probe.
    count: How many examples to ask for; there may be fewer.

  Returns:
    A function of a path and the weight there, giving `[examples, *shape]`; it
    raises ValueError as that of `gradients`.

  Raises:
    ValueError: If there is no probe.
  """
  found = tree.paths(expect_probe(where, ctx).samples(params, count))
  return lambda path, w: _pick(where, found, path, w.shape, 1)


def _pick(
  where: str,
  found: dict[Path, Array],
  path: Path,
  shape: tuple[int, ...],
  skip: int,
) -> Array:
  if path not in found or found[path].shape[skip:] != shape:
    raise ValueError(
      f'{where} at {path}: expected a weight of the network, which has a '
      f'gradient, got one of shape {shape} inside another node. Prune before '
      'what factors it, or choose score="magnitude".'
    )
  return found[path]
