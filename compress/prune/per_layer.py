"""Masks with an amount of their own: each array loses its own share."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp
from flax import struct

from compress import tree
from compress.method import Ctx, Method
from compress.prune import masked
from compress.prune.importance import Score
from compress.prune.masked import Masked
from compress.schedule import Schedule
from compress.tree import Array, Params, Path

# How many weights of each array become 0, asked once, in `init`.
Goals: TypeAlias = Callable[[Params, Ctx], dict[Path, Any]]


@struct.dataclass
class Allotted(Masked):
  """A masked weight that has its own number of zeros.

  Attributes:
    goal: How many positions are 0 once the schedule is through, `()` int32.
  """

  goal: Array


def allotted(
  where: str, score: Score, goals: Goals, schedule: Schedule | None
) -> Method:
  """Return the method that prunes each array to its own number of zeros.

  Args:
    where: Its name, for errors.
    score: What a weight is worth.
    goals: Counts the zeros; arrays that it does not name stay whole.
    schedule: How all counts grow over the run; None is all at once.

  Returns:
    The method.

  Raises:
    ValueError: If the schedule is none.
  """

  def mark(params: Params, ctx: Ctx, part: Array) -> Params:
    scores = masked.ranked(params, score, ctx)

    def keep(path: Path, goal: Array) -> Array:
      # Counted from the end, so that the whole amount is met exactly.
      left = jnp.round((1.0 - part) * goal).astype(jnp.int32)
      return masked.kept(scores[path], goal - left)

    nodes = tree.find(Allotted, params)
    masks = {path: keep(path, node.goal) for path, node in nodes.items()}
    return masked.remasked(params, masks)

  def begin(params: Params, ctx: Ctx) -> Params:
    masked.masked(where, params)  # refuses a second mask
    found = goals(params, ctx)

    def wrap(path: Path, w: Array) -> Any:
      if path not in found:
        return w
      return Allotted(w, jnp.ones(w.shape, bool), jnp.int32(found[path]))

    return tree.map_arrays(wrap, params)

  return masked.marking(where, begin, mark, schedule)


def shares(where: str, amounts: dict[Path, float]) -> Goals:
  """Return the goals that shares of zeros by path make.

  Args:
    where: Who asks, for errors.
    amounts: Shares in [0, 1) by path.

  Returns:
    The goals; they raise a ValueError where a path is that of no weight.

  Raises:
    ValueError: If a share is impossible.
  """
  for amount in amounts.values():
    masked.expect_sparsity(where, amount)

  def goals(params: Params, ctx: Ctx) -> dict[Path, int]:
    del ctx
    sizes: dict[Path, int] = {}
    tree.map_arrays(lambda path, w: sizes.setdefault(path, w.size), params)
    for path in amounts:
      if path not in sizes:
        raise ValueError(
          f'{where}: expected a sparsity of {", ".join(sizes)}, got one of '
          f'{path!r}.'
        )
    return {path: round(s * sizes[path]) for path, s in amounts.items()}

  return goals
