"""Masks that hold weights at exactly 0, and the selection of positions."""

import itertools
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct

from compress import kinds, tree
from compress.errors import expect_name, expect_schedule, expect_sparsity
from compress.method import Ctx, Method
from compress.prune.importance import Score
from compress.schedule import Schedule, at_once
from compress.tree import Array, Compressed, Key, Params, Path

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

  def decode(self, key: Key | None) -> Array:
    """Return `where(mask, w, 0)`."""
    del key
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


def keep_highest(scores: Array, drop: Array | int) -> Array:
  """Return False at the `drop` lowest scores, ties broken by index.

  >>> keep_highest(jnp.array([3.0, 1.0, 1.0]), 1).tolist()
  [True, False, True]
  """
  order = jnp.argsort(scores, axis=None, stable=True)
  rank = (
    jnp.zeros(scores.size, jnp.int32)
    .at[order]
    .set(jnp.arange(scores.size, dtype=jnp.int32))
  )
  return (rank >= drop).reshape(scores.shape)


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


def select_share(
  where: str, sparsity: float, scope: str, floor: float
) -> Select:
  """Return a selection with an exact sparsity, by array or over all arrays.

  Args:
    where: Name of the caller, for error messages.
    sparsity: Share of zeros, in [0, 1).
    scope: 'layer' or 'global'.
    floor: Least share of each array that a global ranking keeps; at least one
      weight.

  Returns:
    The selection.

  Raises:
    ValueError: If the sparsity, scope or floor is impossible.
  """
  expect_sparsity(where, sparsity)
  expect_name(where, 'scope', scope, ('layer', 'global'))
  if not 0 <= floor <= 1:
    raise ValueError(
      f'{where}: expected a floor in [0, 1], got {floor!r}. It is the least '
      'share of its weights that each array keeps.'
    )

  def keep(scores: Array, part: Array) -> Array:
    # Counted from the end, so that the target is met exactly.
    target = round(sparsity * scores.size)
    rest = jnp.round((1.0 - part) * target).astype(jnp.int32)
    return keep_highest(scores, target - rest)

  def by_layer(scores: Scores, part: Array) -> dict[Path, Array]:
    return {path: keep(x, part) for path, x in scores.items()}

  def globally(scores: Scores, part: Array) -> dict[Path, Array]:
    _check_room(where, [x.size for x in scores.values()], sparsity, floor)
    return _select_globally(lambda x: keep(x, part), scores, floor)

  return by_layer if scope == 'layer' else globally


def _select_globally(
  keep: Callable[[Array], Array], scores: Scores, floor: float
) -> dict[Path, Array]:
  """Rank all arrays as one; the best weights of each are kept first."""
  guarded = [
    jnp.where(
      keep_highest(x, x.size - _least(x.size, floor)), jnp.inf, x
    ).ravel()
    for x in scores.values()
  ]
  ends = list(itertools.accumulate(x.size for x in guarded))[:-1]
  parts = jnp.split(keep(jnp.concatenate(guarded)), ends)
  return {
    path: part.reshape(x.shape)
    for (path, x), part in zip(scores.items(), parts, strict=True)
  }


def _least(size: int, floor: float) -> int:
  """Return how many weights of an array a global ranking keeps at least."""
  return max(1, round(floor * size))


def _check_room(
  where: str, sizes: list[int], sparsity: float, floor: float
) -> None:
  left = sum(sizes) - round(sparsity * sum(sizes))
  least = sum(_least(size, floor) for size in sizes)
  if least > left:
    raise ValueError(
      f'{where}: expected a floor that leaves at most {left} of {sum(sizes)}, '
      f'got {floor!r}, which leaves {least} in {len(sizes)} arrays. Lower the '
      'sparsity or the floor.'
    )
