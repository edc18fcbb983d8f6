"""Masks with a number of zeros for each array."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp
from flax import struct

from compress import tree
from compress.errors import expect_sparsity
from compress.method import Ctx, Method
from compress.prune import masked, selection
from compress.prune.importance import Score
from compress.prune.masked import Masked
from compress.schedule import Schedule
from compress.tree import Array, Params, Path

# Number of zeros of each array, called once, in `init`.
ZeroCounts: TypeAlias = Callable[[Params, Ctx], dict[Path, Any]]


@struct.dataclass
class PerLayerMasked(Masked):
  """A masked weight with its own number of zeros.

  Attributes:
    zeros: Number of zeros at the end of the schedule, `()` int32.
  """

  zeros: Array


def prune_per_layer(
  where: str, score: Score, counts: ZeroCounts, schedule: Schedule | None
) -> Method:
  """Return a method that prunes each array to its own number of zeros.

  Args:
    where: Name of the method, for error messages.
    score: Importance of each weight.
    counts: Number of zeros by path; other arrays are not pruned.
    schedule: How all counts grow over the run; None is one-shot.

  Returns:
    The method.

  Raises:
    ValueError: If the schedule is not callable.
  """

  def mark(params: Params, ctx: Ctx, part: Array) -> Params:
    scores = masked.masked_scores(params, score, ctx)

    def keep(path: Path, zeros: Array) -> Array:
      # Counted from the end, so that the target is met exactly.
      rest = jnp.round((1.0 - part) * zeros).astype(jnp.int32)
      return selection.keep_highest(scores[path], zeros - rest)

    nodes = tree.find(PerLayerMasked, params)
    masks = {path: keep(path, node.zeros) for path, node in nodes.items()}
    return masked.replace_masks(params, masks)

  def begin(params: Params, ctx: Ctx) -> Params:
    masked.add_masks(where, params)  # raises on a second mask
    found = counts(params, ctx)

    def wrap(path: Path, w: Array) -> Any:
      if path not in found:
        return w
      return PerLayerMasked(w, jnp.ones(w.shape, bool), jnp.int32(found[path]))

    return tree.map_arrays(wrap, params)

  return masked.prune_on_schedule(where, begin, mark, schedule)


def counts_from_shares(where: str, amounts: dict[Path, float]) -> ZeroCounts:
  """Return the counts of zeros for shares of zeros by path.

  Args:
    where: Name of the caller, for error messages.
    amounts: Shares in [0, 1) by path.

  Returns:
    The counts; calling them raises a ValueError if a path is unknown.

  Raises:
    ValueError: If a share is impossible.
  """
  for amount in amounts.values():
    expect_sparsity(where, amount)

  def counts(params: Params, ctx: Ctx) -> dict[Path, int]:
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

  return counts
