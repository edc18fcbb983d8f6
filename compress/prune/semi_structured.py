"""Semi-structured sparsity that hardware can exploit: N:M and blocks.

A weight is treated as a matrix `[inputs, outputs]`: all axes but the last are
inputs, in the order in which the array stores them.
"""

import math

import jax.numpy as jnp

from compress.method import Method
from compress.prune.importance import Score, score_by_name
from compress.prune.masked import Scores, prune_by_score
from compress.prune.selection import select_share
from compress.schedule import Schedule
from compress.tree import Array, Path


def n_m(
  n: int,
  m: int,
  *,
  score: str | Score = 'magnitude',
  schedule: Schedule | None = None,
) -> Method:
  r"""Keep n of every m consecutive inputs of each output.

  2:4 is the pattern of sparse tensor cores (Mishra+ 2021, arXiv
  2104.08378, section 3). If m does not divide the inputs, the last r inputs
  keep $\min(n, r)$.

  Args:
    n: Weights kept in each group, 1 to m.
    m: Length of a group along the inputs.
    score: As `prune.weights`.
    schedule: Growth of the m - n zeros of each group; by default one-shot.

  Returns:
    The method.

  Raises:
    ValueError: If not 1 <= n <= m, the score or schedule is unknown, or the
      score needs data that is missing.
  """
  where = 'prune.n_m'
  score_fn = score_by_name(where, score, schedule)
  if not (isinstance(n, int) and isinstance(m, int) and 1 <= n <= m):
    raise ValueError(
      f'{where}: expected whole numbers 1 <= n <= m, got {n!r} and {m!r}. Of '
      'every m inputs, n are kept.'
    )

  def keep(x: Array, part: Array) -> Array:
    groups = _matrix(x, (m, 1))
    order = jnp.argsort(groups, axis=1, stable=True)
    rank = jnp.argsort(order, axis=1)
    return _array(rank >= jnp.round(part * (m - n)), x.shape)

  def select(scores: Scores, part: Array) -> dict[Path, Array]:
    return {path: keep(x, part) for path, x in scores.items()}

  return prune_by_score(where, score_fn, select, schedule)


def blocks(
  sparsity: float,
  shape: tuple[int, int] = (4, 4),
  *,
  scope: str = 'layer',
  score: str | Score = 'magnitude',
  schedule: Schedule | None = None,
  floor: float = 0.01,
) -> Method:
  r"""Prune the blocks of the matrix with the lowest $\sqrt{\sum s^2}$.

  For the magnitude that is the L2 norm of the block (Narang+ 2017, arXiv
  1711.02782, with the norm in place of the maximum). Exactly
  `round(sparsity * n)` of the n blocks in scope are pruned; blocks at the
  border are truncated.

  Args:
    sparsity: Share of blocks that become 0, in [0, 1).
    shape: Inputs and outputs of a block.
    scope: 'layer' or 'global', as `prune.weights`.
    score: As `prune.weights`.
    schedule: How the share grows over the run; by default one-shot.
    floor: Share of the blocks of each array that a global ranking keeps.

  Returns:
    The method.

  Raises:
    ValueError: If the shape is not two positive integers; else as
      `prune.weights`.
  """
  where = 'prune.blocks'
  score_fn = score_by_name(where, score, schedule)
  select_blocks = select_share(where, sparsity, scope, floor)
  sides = shape if isinstance(shape, tuple) else ()
  if len(sides) != 2 or not all(isinstance(n, int) and n > 0 for n in sides):
    raise ValueError(
      f'{where}: expected a shape of two positive integers, got {shape!r}. '
      'They are the inputs and the outputs of a block.'
    )

  def norm(x: Array) -> Array:
    cut = _matrix(x, shape)
    here = cut > -jnp.inf
    energy = jnp.sum(jnp.where(here, cut, 0) ** 2, axis=(1, 3))
    return jnp.where(jnp.any(here, axis=(1, 3)), jnp.sqrt(energy), -jnp.inf)

  def expand(left: Array) -> Array:
    rows, columns = left.shape
    full_shape = (rows, shape[0], columns, shape[1])
    return jnp.broadcast_to(left[:, None, :, None], full_shape)

  def select(scores: Scores, part: Array) -> dict[Path, Array]:
    left = select_blocks({path: norm(x) for path, x in scores.items()}, part)
    return {
      path: _array(expand(left[path]), x.shape) for path, x in scores.items()
    }

  return prune_by_score(where, score_fn, select, schedule)


def _matrix(x: Array, shape: tuple[int, int]) -> Array:
  """Return `[rows, inputs, columns, outputs]` of blocks, padded with -inf."""
  flat = x.reshape(-1, x.shape[-1])
  short = [(0, -side % n) for side, n in zip(flat.shape, shape, strict=True)]
  full = jnp.pad(flat, short, constant_values=-jnp.inf)
  rows, columns = (s // n for s, n in zip(full.shape, shape, strict=True))
  return full.reshape(rows, shape[0], columns, shape[1])


def _array(blocks: Array, shape: tuple[int, ...]) -> Array:
  """Return an array of a shape from the blocks of `_matrix`."""
  rows, inputs, columns, outputs = blocks.shape
  full = blocks.reshape(rows * inputs, columns * outputs)
  return full[: math.prod(shape[:-1]), : shape[-1]].reshape(shape)
