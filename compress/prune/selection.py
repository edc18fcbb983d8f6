"""Selection of the weights to keep, by score."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from compress.errors import expect_name, expect_sparsity
from compress.prune.masked import Scores, Select
from compress.tree import Array, Path


@jax.jit
def keep_highest(scores: Array, drop: Array | int) -> Array:
  """Return False at the `drop` lowest scores, ties broken by index.

  The score at rank `drop` is found bit by bit, by counting: much faster than
  sorting, and exact. As in sorting, NaN is the highest.

  >>> keep_highest(jnp.array([3.0, 1.0, 1.0]), 1).tolist()
  [True, False, True]
  """
  keys = _ordered(scores.ravel())
  drop = jnp.asarray(drop, jnp.uint32)
  border = _largest(
    lambda key: jnp.sum(keys < key, dtype=jnp.uint32) <= drop, 32
  )
  below, ties = keys < border, keys == border
  rest = drop - jnp.sum(below, dtype=jnp.uint32)
  index = jnp.arange(keys.size, dtype=jnp.uint32)
  end = _largest(
    lambda i: jnp.sum(ties & (index < i), dtype=jnp.uint32) <= rest,
    keys.size.bit_length(),
  )
  dropped = below | (ties & (index < end))
  return ~dropped.reshape(scores.shape)


def _ordered(x: Array) -> Array:
  """Return uint32 numbers in the order of floats; equal where those are.

  In integers throughout: compiled code may take subnormal floats for zero.
  """
  bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
  sign = jnp.uint32(1 << 31)
  size = bits & ~sign
  bits = jnp.where(size == 0, 0, bits)  # one zero
  nan = size > jnp.uint32(0x7F800000)
  return jnp.where(
    nan, ~jnp.uint32(0), jnp.where(bits < sign, bits | sign, ~bits)
  )


def _largest(test: Callable[[Array], Array], bits: int) -> Array:
  """Return the largest number of some bits that passes a monotonic test."""

  def step(i: Array, found: Array) -> Array:
    tried = found | (jnp.uint32(1) << (bits - 1 - i).astype(jnp.uint32))
    return jnp.where(test(tried), tried, found)

  return jax.lax.fori_loop(0, bits, step, jnp.uint32(0))


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
