"""Low rank: weights as products of smaller kernels, which are trained."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp

from compress import kinds, tree
from compress.errors import expect_name, shorten
from compress.lowrank import factors, polyadic, rank_selection
from compress.lowrank.factors import FOLDS, Factored
from compress.lowrank.rank_selection import Rank
from compress.method import Ctx, Method
from compress.tree import Array, Params, Path
from compress.unchanged import warn_unchanged

CONVOLUTION = 'a convolution [height, width, in, out]'
Limits: TypeAlias = Callable[[tuple[int, ...]], tuple[int, ...] | None]


class Decomposition(NamedTuple):
  """A way to factor a weight.

  Attributes:
    limits: Shape -> the largest ranks that the weight has, as many as the
      decomposition takes; None if it is not for such weights.
    factor: Path, array, rank -> node.
    kind: The weights that it is for.
  """

  limits: Limits
  factor: Callable[[Path, Array, Any], Factored]
  kind: str = 'a weight'


def svd(rank: Rank, *, fold: str = 'channel') -> Method:
  r"""Replace each weight by two factors, $W \approx U_r S_r V_r^T$.

  The nearest weight of its rank (Eckart & Young). A convolution is folded to a
  matrix first: 'channel' makes it `rank` filters followed by a 1x1 convolution
  (Zhang+ 2016, arXiv 1505.06798, section 3.1), 'spatial' a column of windows
  followed by a row of them (Jaderberg+ 2014, arXiv 1405.3866, scheme 2; schemes
  1 and 2 of Idelbayev & Carreira-Perpinan 2020). A dense layer becomes two
  dense layers.

  Args:
    rank: A number of at least 1, which weights of a smaller rank are not
      factored to; a share of the energy in (0, 1), for which each weight gets
      the least rank that keeps it; 'vbmf' for the rank above the noise
      (Nakajima+ 2013); or a dictionary of these by path (`{'dense1/kernel':
      8}`), which factors no other weights.
    fold: 'channel' or 'spatial'.

  Returns:
    The method. Lowering replaces each layer by its factors.

  Raises:
    ValueError: If the rank is 0 or no weight has it, the fold is unknown, or a
      weight is factored or masked already.

  Warns:
    UnchangedWarning: If some weights do not have the rank.
  """
  where = 'lowrank.svd'
  rank_selection.expect(where, rank)
  expect_name(where, 'fold', fold, FOLDS)
  if isinstance(rank, tuple):
    raise ValueError(f'{where}: expected one rank, got {rank!r}.')

  def limits(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (min(factors.folded_shape(shape, fold)),)

  def factor(path: Path, w: Array, rank: Rank) -> Factored:
    found = rank_selection.resolve(rank, factors.folded(w, fold))
    return factors.truncated(w, found, fold)

  return factoring(where, Decomposition(limits, factor), rank)


def tucker(rank: Rank, *, sweeps: int = 3) -> Method:
  """Put each convolution between two 1x1 ones that change its channels.

  Tucker-2 decomposition (Kim+ 2016, arXiv 1511.06530, section 3.1). Dense
  layers are not factored: `lowrank.svd` under `only` does that.

  Args:
    rank: As in `lowrank.svd`, for inputs and outputs alike, or a pair of
      numbers; shares and 'vbmf' are of the unfolding along each of them. Where
      one of the two is more than a window can make of the other, it is reduced
      (`factors.tucker`).
    sweeps: Iterations, at least 1.

  Returns:
    The method.

  Raises:
    ValueError: As `lowrank.svd`, or if there is no convolution.

  Warns:
    UnchangedWarning: As `lowrank.svd`.
  """
  where = 'lowrank.tucker'
  rank_selection.expect(where, rank)
  _expect_sweeps(where, sweeps)

  def limits(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    return shape[-2:] if len(shape) == 4 else None

  def factor(path: Path, w: Array, rank: Rank) -> Factored:
    one, other = rank if isinstance(rank, tuple) else (rank, rank)
    before, after = (
      rank_selection.resolve(
        side, jnp.moveaxis(w, axis, 0).reshape(w.shape[axis], -1)
      )
      for side, axis in ((one, -2), (other, -1))
    )
    return factors.tucker(w, (before, after), sweeps)

  return factoring(where, Decomposition(limits, factor, CONVOLUTION), rank)


def cp(rank: int | dict[Path, int], *, sweeps: int = 50) -> Method:
  """Replace each convolution by four: 1x1, two depthwise ones, 1x1.

  Canonical polyadic decomposition (Lebedev+ 2015, arXiv 1412.6553, section 3).
  Dense layers are not factored: `lowrank.svd` under `only` does that.

  Args:
    rank: The number of terms, or a dictionary of them by path.
    sweeps: Sweeps of alternating least squares, at least 1.

  Returns:
    The method.

  Raises:
    ValueError: As `lowrank.tucker`.

  Warns:
    UnchangedWarning: As `lowrank.svd`.
  """
  where = 'lowrank.cp'
  rank_selection.expect(where, rank)
  given = rank.values() if isinstance(rank, dict) else [rank]
  for one in given:
    if type(one) is not int:
      raise ValueError(
        f'{where}: expected a rank as 8, got {one!r}. Sums of products have no '
        'spectrum to cut.'
      )
  _expect_sweeps(where, sweeps)

  def limits(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    return (polyadic.largest_rank(shape),) if len(shape) == 4 else None

  def factor(path: Path, w: Array, rank: int) -> Factored:
    return polyadic.polyadic(w, rank, sweeps)

  return factoring(where, Decomposition(limits, factor, CONVOLUTION), rank)


def factoring(where: str, how: Decomposition, rank: Rank) -> Method:
  """Return the method that replaces weights by nodes of factors.

  Args:
    where: Its name, for errors.
    how: The decomposition.
    rank: Of every weight, or by path.

  Returns:
    The method; `init` raises a ValueError where weights are compressed in a
    way that does not go with it, a path is not that of such a weight, or no
    weight has the rank.
  """

  def init(params: Params, ctx: Ctx) -> Params:
    del ctx
    kinds.refuse(where, kinds.FACTORS, params)
    limits = weight_limits(where, how.limits, params, how.kind)
    ranks = rank if isinstance(rank, dict) else dict.fromkeys(limits, rank)
    for path in ranks:
      if path not in limits:
        raise ValueError(
          f'{where}: expected a rank of {shorten(", ".join(limits), 120)}, got '
          f'one of {path!r}.'
        )
    fitting = expect_ranks(where, limits, ranks, strict=rank is ranks)

    def factor(path: Path, w: Array) -> Any:
      return how.factor(path, w, ranks[path]) if path in fitting else w

    return tree.map_arrays(factor, params)

  return Method(init)


def weight_limits(
  where: str, limits: Limits, params: Params, kind: str = 'a weight'
) -> dict[Path, tuple[int, ...]]:
  """Return the largest ranks of the weights that a decomposition is for.

  Args:
    where: Name of the method.
    limits: See `Decomposition`.
    params: The tree of arrays and nodes.
    kind: See `Decomposition`.

  Returns:
    By path.

  Raises:
    ValueError: If there is no such weight.
  """
  shapes: dict[Path, tuple[int, ...]] = {}
  tree.map_arrays(lambda path, w: shapes.setdefault(path, w.shape), params)
  every = {path: limits(shape) for path, shape in shapes.items()}
  found = {path: x for path, x in every.items() if x is not None}
  if not found:
    raise ValueError(
      f'{where}: expected {kind}, got none among '
      f'{shorten(", ".join(shapes), 120) or "no weights"}.'
    )
  return found


def expect_ranks(
  where: str,
  limits: dict[Path, tuple[int, ...]],
  ranks: dict[Path, Rank],
  *,
  strict: bool = False,
) -> list[Path]:
  """Return the weights that have the rank they are given.

  Args:
    where: Name of the method.
    limits: The largest ranks, by path.
    ranks: Those given, by path.
    strict: Whether every weight must have its rank.

  Returns:
    The paths. A warning names the others.

  Raises:
    ValueError: If there are none, or fewer than all where that is required.
  """
  small = [p for p in ranks if not _has_rank(ranks[p], limits[p])]
  if small and (strict or len(small) == len(ranks)):
    path = max(small, key=lambda p: limits[p])
    most = limits[path] if len(limits[path]) > 1 else limits[path][0]
    raise ValueError(
      f'{where} at {path}: expected a rank of at most {most}, which is its '
      f'full rank, got {ranks[path]}. Lower it, or choose other weights with '
      '`only`.'
    )
  warn_unchanged(
    where,
    small,
    f'their full rank is below {ranks[small[0]]}' if small else '',
  )
  return [path for path in ranks if path not in small]


def _has_rank(rank: Rank, limits: tuple[int, ...]) -> bool:
  """Return whether a weight has a rank; shares and 'vbmf' always fit."""
  given = rank if isinstance(rank, tuple) else (rank,) * len(limits)
  return all(
    n <= limit for n, limit in zip(given, limits, strict=True) if type(n) is int
  )


def _expect_sweeps(where: str, sweeps: int) -> None:
  if type(sweeps) is not int or sweeps < 1:
    raise ValueError(f'{where}: expected sweeps from 1, got {sweeps!r}.')
