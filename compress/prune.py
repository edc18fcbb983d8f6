"""Pruning of single weights: masks that hold an exact share of zeros."""

import jax
import jax.numpy as jnp

from compress import tree
from compress.mask import (
  UPDATES,
  Masked,
  due,
  expect_name,
  expect_schedule,
  masked,
  remasked,
  share,
)
from compress.method import Ctx, Method
from compress.schedule import Schedule, at_once
from compress.score import SCORES
from compress.tree import Params

__all__ = ['UPDATES', 'Masked', 'weights']


def weights(
  sparsity: float,
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
      arrays of two axes or more; biases and norms are left alone.
    scope: 'layer' prunes the same share of each array, 'global' ranks all of
      them together.
    score: 'magnitude' or 'random' (the control).
    schedule: How the share grows over the run; by default all at once.
    floor: Share of each array, and at least one weight of it, that a global
      ranking must leave, so that no layer is ever emptied.

  Returns:
    The method.

  Raises:
    ValueError: If the sparsity is outside [0, 1) or leaves less than the
      floor, or the scope, score or schedule is none.
  """
  where = 'prune.weights'
  amount = at_once() if schedule is None else schedule
  choose = share(where, sparsity, scope, floor)
  expect_schedule(where, amount)
  expect_name(where, 'score', score, SCORES)

  def init(params: Params, ctx: Ctx) -> Params:
    return mark(masked(where, params), ctx)

  def mark(params: Params, ctx: Ctx) -> Params:
    ranked = {
      path: jnp.where(
        node.mask, SCORES[score](path, tree.latent(node), ctx), -jnp.inf
      )
      for path, node in tree.find(Masked, params).items()
    }
    return remasked(params, choose(ranked, amount(ctx.progress)))

  def update(params: Params, ctx: Ctx) -> Params:
    return jax.lax.cond(due(ctx), lambda p: mark(p, ctx), lambda p: p, params)

  return Method(init, same_masks if schedule is None else update)


def same_masks(params: Params, ctx: Ctx) -> Params:
  """Keep the masks of one-shot pruning as they are."""
  del ctx
  return params
