"""Pruning of single weights: masks that hold an exact share of zeros."""

import itertools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from compress import tree
from compress.method import Ctx, Method
from compress.schedule import Schedule, at_once
from compress.score import SCORES
from compress.tree import Array, Compressed, Key, Params, Path

UPDATES = 100  # how often a mask may change in one run


@struct.dataclass
class Masked(Compressed):
  """A weight with positions held at exactly 0.

  Attributes:
    w: The weight, any shape; what is pruned keeps its last value here.
    mask: True where the weight is kept, the shape of `w`.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  inner: ClassVar[tuple[str, ...]] = ('w',)

  w: Any
  mask: Array

  def decode(self, key: Key | None) -> Array:
    """Return `where(mask, w, 0)`."""
    del key
    return jnp.where(self.mask, self.w, 0)

  def freeze(self) -> Any:
    """Return the zeroed weight; its zeros need no mask beside them."""
    if not tree.is_node(self.w):
      return jnp.where(self.mask, self.w, 0)
    zeroed = self.w.zeroed(self.mask)
    return self if zeroed is None else zeroed


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
    floor: Share of each array that a global ranking must leave, so that no
      layer is ever emptied.

  Returns:
    The method.

  Raises:
    ValueError: If the sparsity is outside [0, 1), leaves less than the floor,
      or the scope or score is unknown.
  """
  _check(sparsity, scope, score, floor)
  amount = schedule or at_once()

  def init(params: Params, ctx: Ctx) -> Params:
    def wrap(path: Path, w: Array) -> Masked:
      return Masked(w, jnp.ones(w.shape, bool))

    _refuse_masks(params)
    return mark(tree.map_arrays(wrap, params), ctx._replace(step=0))

  def mark(params: Params, ctx: Ctx) -> Params:
    nodes = tree.find(Masked, params)
    scores = {
      path: SCORES[score](path, tree.latent(node), ctx)
      for path, node in nodes.items()
    }
    share = sparsity * amount(ctx.progress)
    masks = _masks(scores, nodes, share, scope, floor)
    return tree.map_nodes(
      Masked, lambda path, node: node.replace(mask=masks[path]), params
    )

  def update(params: Params, ctx: Ctx) -> Params:
    due = jnp.floor(ctx.progress * UPDATES) != jnp.floor(
      ctx._replace(step=ctx.step - 1).progress * UPDATES
    )
    return jax.lax.cond(due, lambda p: mark(p, ctx), lambda p: p, params)

  return Method(init, same_masks if schedule is None else update)


def same_masks(params: Params, ctx: Ctx) -> Params:
  """Keep the masks of one-shot pruning as they are."""
  del ctx
  return params


def _masks(
  scores: dict[Path, Array],
  nodes: dict[Path, Masked],
  share: Array,
  scope: str,
  floor: float,
) -> dict[Path, Array]:
  """Return the new mask of every node."""
  ranked = {
    path: jnp.where(nodes[path].mask, s, -jnp.inf).ravel()
    for path, s in scores.items()
  }
  if scope == 'layer':
    kept = {path: _keep(s, share) for path, s in ranked.items()}
  else:
    guarded = [_guard(s, floor) for s in ranked.values()]
    whole = _keep(jnp.concatenate(guarded), share)
    ends = list(itertools.accumulate(s.size for s in guarded))[:-1]
    kept = dict(zip(ranked, jnp.split(whole, ends), strict=True))
  return {path: kept[path].reshape(nodes[path].mask.shape) for path in kept}


def _keep(scores: Array, share: Array) -> Array:
  """Drop exactly `round(share * n)` of the lowest scores, ties by index."""
  drop = jnp.round(share * scores.size).astype(jnp.int32)
  order = jnp.argsort(scores, stable=True)
  rank = (
    jnp.zeros(scores.size, jnp.int32)
    .at[order]
    .set(jnp.arange(scores.size, dtype=jnp.int32))
  )
  return rank >= drop


def _guard(scores: Array, floor: float) -> Array:
  """Put the best `floor` of an array out of reach of a global ranking."""
  return jnp.where(_keep(scores, jnp.float32(1 - floor)), jnp.inf, scores)


def _check(sparsity: float, scope: str, score: str, floor: float) -> None:
  if not 0 <= sparsity < 1:
    raise ValueError(
      f'prune.weights: expected a sparsity in [0, 1), got {sparsity!r}. '
      'It is the share of weights that become 0.'
    )
  if scope == 'global' and not 0 <= floor <= 1 - sparsity:
    raise ValueError(
      f'prune.weights: expected a floor in [0, {1 - sparsity:.4g}], got '
      f'{floor!r}. Each layer keeps at least this share of its weights.'
    )
  for what, got, names in (
    ('scope', scope, ('layer', 'global')),
    ('score', score, tuple(SCORES)),
  ):
    if got not in names:
      raise ValueError(
        f'prune.weights: expected a {what} of {", ".join(names)}, got {got!r}.'
      )


def _refuse_masks(params: Params) -> None:
  masked = tree.find(Masked, params)
  if masked:
    raise ValueError(
      f'prune.weights: expected weights that are not pruned yet, got a mask '
      f'at {next(iter(masked))}. Give each weight one pruning method; '
      "`only('path', ...)` tells them apart."
    )
