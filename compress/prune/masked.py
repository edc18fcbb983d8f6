"""Masks that hold weights at exactly 0, and when they change."""

from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct

from compress import kinds, tree
from compress.errors import expect_schedule
from compress.method import Ctx, Method
from compress.prune.importance import Score
from compress.schedule import Schedule, at_once
from compress.tree import Array, Compressed, Params, Path

UPDATES = 100  # mask updates in one run, at most

Scores: TypeAlias = dict[Path, Array]  # -inf where a weight is pruned already
Select: TypeAlias = Callable[[Scores, Array], dict[Path, Array]]
"""(scores, fraction of the target) -> mask of each weight."""


@struct.dataclass
class Masked(Compressed):
  """A weight with positions held at exactly 0.

  Attributes:
    w: The weight, any shape; pruned positions keep their last value here.
    mask: True where the weight is kept, the shape of `w`.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  kind: ClassVar[str] = kinds.MASK
  inner: ClassVar[tuple[str, ...]] = ('w',)

  w: Any
  mask: Array

  def decode(self) -> Array:
    """Return `where(mask, w, 0)`."""
    return jnp.where(self.mask, self.w, 0)

  def freeze(self) -> Any:
    """Return the weight with zeros written into it, without the mask."""
    if not tree.is_node(self.w):
      return jnp.where(self.mask, self.w, 0)
    zeroed = self.w.apply_mask(self.mask)
    return Masked(self.w, self.mask) if zeroed is None else zeroed

  def scale_channels(self, gain: Array) -> Any:
    """Return the node times `gain`; None if its content cannot be scaled."""
    w = tree.scaled(self.w, gain)
    return None if w is None else self.replace(w=w)


def add_masks(
  where: str,
  params: Params,
  node: Callable[[Array, Array], Masked] = Masked,
) -> Params:
  """Wrap every weight in a mask that keeps all positions.

  Args:
    where: Name of the caller, for error messages.
    params: A tree of arrays and nodes.
    node: Constructor of the node, given a weight and its mask.

  Returns:
    The tree with a node around each innermost weight.

  Raises:
    ValueError: If a weight is masked already, or cannot represent 0.
  """
  kinds.refuse(where, kinds.MASK, params)
  return tree.map_arrays(
    lambda path, w: node(w, jnp.ones(w.shape, bool)), params
  )


def replace_masks(params: Params, masks: dict[Path, Array]) -> Params:
  """Return the tree with new masks, given by path."""
  return tree.map_nodes(
    Masked, lambda path, node: node.replace(mask=masks[path]), params
  )


def map_latent(
  where: str, path: Path, node: Masked, change: Callable[[Array], Array]
) -> Any:
  """Apply a function to the trained array under a mask and its quantizers.

  Args:
    where: Name of the caller, for error messages.
    path: That of the node, for the error.
    node: The masked weight.
    change: Array -> array, of the shape of the mask.

  Returns:
    The node around the changed array.

  Raises:
    ValueError: If there is no single array of that shape, as in a
      factorization.
  """

  def visit(path: Path, x: Any) -> Any:
    if tree.is_node(x) and len(x.inner) == 1:
      return tree.descend(visit, path, x)
    if tree.is_node(x) or x.shape != node.mask.shape:
      raise ValueError(
        f'{where} at {path}: expected one array of shape {node.mask.shape} '
        f'under the mask, got {type(x).__name__}. Put what changes the shape '
        'before this method in the chain.'
      )
    return change(x)

  return visit(path, node)


def due(ctx: Ctx, times: int = UPDATES) -> Array:
  """Return whether masks change at this step, one of `times` in a run."""
  before = ctx._replace(step=ctx.step - 1).progress
  return jnp.floor(ctx.progress * times) != jnp.floor(before * times)


def masked_scores(params: Params, score: Score, ctx: Ctx) -> Scores:
  """Return the scores of every masked weight, -inf where it is pruned."""
  worth = score(params, ctx)
  return {
    path: jnp.where(
      node.mask,
      worth(path, jnp.where(node.mask, tree.latent(node), 0)),
      -jnp.inf,
    )
    for path, node in tree.find(Masked, params).items()
  }


def prune_by_score(
  where: str, score: Score, select: Select, schedule: Schedule | None
) -> Method:
  """Return a method that prunes by score and never regrows.

  Args:
    where: Name of the method, for error messages.
    score: Importance of each weight.
    select: Positions to keep, given scores and a fraction of the target.
    schedule: Growth of that fraction over the run; None is one-shot.

  Returns:
    The method.

  Raises:
    ValueError: If the schedule is not callable.
  """

  def mark(params: Params, ctx: Ctx, part: Array) -> Params:
    return replace_masks(
      params, select(masked_scores(params, score, ctx), part)
    )

  def begin(params: Params, ctx: Ctx) -> Params:
    del ctx
    return add_masks(where, params)

  return prune_on_schedule(where, begin, mark, schedule)


def prune_on_schedule(
  where: str,
  begin: Callable[[Params, Ctx], Params],
  mark: Callable[[Params, Ctx, Array], Params],
  schedule: Schedule | None,
) -> Method:
  """Return a method that adds masks and updates them on a schedule.

  Args:
    where: Name of the method, for error messages.
    begin: Adds masks that keep all positions.
    mark: Sets the masks, given a fraction of the target.
    schedule: Growth of that fraction over the run; None is one-shot.

  Returns:
    The method.

  Raises:
    ValueError: If the schedule is not callable.
  """
  amount = at_once() if schedule is None else schedule
  expect_schedule(where, amount)

  def again(params: Params, ctx: Ctx) -> Params:
    return mark(params, ctx, amount(ctx.progress))

  def init(params: Params, ctx: Ctx) -> Params:
    return again(begin(params, ctx), ctx)

  def update(params: Params, ctx: Ctx) -> Params:
    return jax.lax.cond(due(ctx), lambda p: again(p, ctx), lambda p: p, params)

  return Method(init, same_masks if schedule is None else update)


def same_masks(params: Params, ctx: Ctx) -> Params:
  """Return the parameters: one-shot masks do not change in training."""
  del ctx
  return params
