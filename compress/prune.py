"""Pruning of single weights: masks that hold an exact share of zeros."""

import itertools
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct

from compress import tree
from compress.method import Ctx, Method
from compress.schedule import Schedule, at_once
from compress.score import SCORES
from compress.tree import Array, Compressed, Key, Params, Path

UPDATES = 100  # how often a mask may change in one run
# How many weights of each array become 0, asked once, in `init`.
Goals: TypeAlias = Callable[[Params, Ctx], dict[Path, Any]]


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


@struct.dataclass
class Allotted(Masked):
  """A masked weight that has its own number of zeros.

  Attributes:
    goal: How many positions are 0 once the schedule is through, `()` int32.
  """

  goal: Array

  def freeze(self) -> Any:
    """Return what is stored; the goal is met and forgotten."""
    return Masked(self.w, self.mask).freeze()


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
    score: 'magnitude' or 'random' (the control).
    schedule: How the share grows over the run; by default all at once.
    floor: Share of each array, and at least one weight of it, that a global
      ranking must leave, so that no layer is ever emptied.

  Returns:
    The method.

  Raises:
    ValueError: If the sparsity is outside [0, 1), leaves less than the floor
      or names no weight, or the scope, score or schedule is none.
  """
  amount = at_once() if schedule is None else schedule
  _check(sparsity, scope, score, amount, floor)
  goals_of = _goals(sparsity)
  share: Any = None if goals_of else sparsity

  def init(params: Params, ctx: Ctx) -> Params:
    _refuse_masks(params)
    goals = goals_of(params, ctx) if goals_of else {}

    def wrap(path: Path, w: Array) -> Any:
      whole = jnp.ones(w.shape, bool)
      if not goals_of:
        return Masked(w, whole)
      return Allotted(w, whole, goals[path]) if path in goals else w

    params = tree.map_arrays(wrap, params)
    if scope == 'global':
      _check_room(params, share, floor)
    return mark(params, ctx)

  def mark(params: Params, ctx: Ctx) -> Params:
    part = amount(ctx.progress)

    def keep(ranked: Array, goal: Any = None) -> Array:
      # Counted from the end, so that the whole amount is met exactly.
      whole = round(share * ranked.size) if goal is None else goal
      left = jnp.round((1.0 - part) * whole).astype(jnp.int32)
      return _keep(ranked, whole - left)

    nodes = tree.find(Masked, params)
    ranked = {
      path: jnp.where(
        node.mask, SCORES[score](path, tree.latent(node), ctx), -jnp.inf
      )
      for path, node in nodes.items()
    }
    if scope == 'global':
      masks = _together(keep, ranked, floor)
    else:
      goals = {
        path: getattr(node, 'goal', None) for path, node in nodes.items()
      }
      masks = {path: keep(x, goals[path]) for path, x in ranked.items()}
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


def _keep(scores: Array, drop: Array | int) -> Array:
  """Return False at the `drop` lowest scores, ties by index."""
  order = jnp.argsort(scores, axis=None, stable=True)
  rank = (
    jnp.zeros(scores.size, jnp.int32)
    .at[order]
    .set(jnp.arange(scores.size, dtype=jnp.int32))
  )
  return (rank >= drop).reshape(scores.shape)


def _together(
  keep: Callable[[Array], Array], ranked: dict[Path, Array], floor: float
) -> dict[Path, Array]:
  """Rank all arrays as one, with the best of each out of reach."""
  guarded = [
    jnp.where(_keep(x, x.size - _least(x.size, floor)), jnp.inf, x).ravel()
    for x in ranked.values()
  ]
  ends = list(itertools.accumulate(x.size for x in guarded))[:-1]
  parts = jnp.split(keep(jnp.concatenate(guarded)), ends)
  return {
    path: part.reshape(x.shape)
    for (path, x), part in zip(ranked.items(), parts, strict=True)
  }


def _least(size: int, floor: float) -> int:
  """Return how many weights of an array a global ranking must leave."""
  return max(1, round(floor * size))


def _goals(sparsity: Any) -> Goals | None:
  """Return what counts the zeros of each array, None for one share of all."""
  if not isinstance(sparsity, dict):
    return sparsity if callable(sparsity) else None

  def goals(params: Params, ctx: Ctx) -> dict[Path, Array]:
    sizes: dict[Path, int] = {}
    tree.map_arrays(lambda path, w: sizes.setdefault(path, w.size), params)
    for path in sparsity:
      if path not in sizes:
        raise ValueError(
          f'prune.weights: expected a sparsity of {", ".join(sizes)}, got one '
          f'of {path!r}.'
        )
    return {p: jnp.int32(round(s * sizes[p])) for p, s in sparsity.items()}

  return goals


def _check(
  sparsity: Any, scope: str, score: str, amount: Schedule, floor: float
) -> None:
  shares = sparsity.values() if isinstance(sparsity, dict) else [sparsity]
  for share in [] if callable(sparsity) else shares:
    if not 0 <= share < 1:
      raise ValueError(
        f'prune.weights: expected a sparsity in [0, 1), got {share!r}. '
        'It is the share of weights that become 0.'
      )
  if scope == 'global' and (isinstance(sparsity, dict) or callable(sparsity)):
    raise ValueError(
      'prune.weights: expected one sparsity for the scope global, got '
      f'{sparsity!r}. Amounts by path go with the scope layer.'
    )
  if not callable(amount):
    raise ValueError(
      f'prune.weights: expected a schedule, got {amount!r}. Call one of '
      'compress.schedule, as cubic(0.0, 0.5).'
    )
  if not 0 <= floor <= 1:
    raise ValueError(
      f'prune.weights: expected a floor in [0, 1], got {floor!r}. Each array '
      'keeps at least this share of its weights.'
    )
  for what, got, names in (
    ('scope', scope, ('layer', 'global')),
    ('score', score, tuple(SCORES)),
  ):
    if got not in names:
      raise ValueError(
        f'prune.weights: expected a {what} of {", ".join(names)}, got {got!r}.'
      )


def _check_room(params: Params, sparsity: float, floor: float) -> None:
  sizes = [node.mask.size for node in tree.find(Masked, params).values()]
  left = sum(sizes) - round(sparsity * sum(sizes))
  least = sum(_least(size, floor) for size in sizes)
  if least > left:
    raise ValueError(
      f'prune.weights: expected a floor that leaves at most {left} of '
      f'{sum(sizes)} weights, got {floor!r}, which leaves {least} in '
      f'{len(sizes)} arrays. Lower the sparsity or the floor.'
    )


def _refuse_masks(params: Params) -> None:
  masked = tree.find(Masked, params)
  if masked:
    raise ValueError(
      f'prune.weights: expected weights that are not pruned yet, got a mask '
      f'at {next(iter(masked))}. Give each weight one pruning method; '
      "`only('path', ...)` tells them apart."
    )
