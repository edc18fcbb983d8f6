"""Low rank: weights as products of smaller kernels, which are what trains."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from compress import tree
from compress.lowrank import factors, polyadic, rank_selection
from compress.lowrank.factors import FOLDS, Factored
from compress.lowrank.rank_selection import Rank
from compress.method import Ctx, Method
from compress.prune.masked import Masked, expect_name
from compress.tree import Array, Params, Path

Factor = Callable[[Path, Array, Any], Any]  # weight, rank -> node, or it


def svd(rank: Rank, *, fold: str = 'channel') -> Method:
  r"""Replace each weight by two factors, $W \approx U_r S_r V_r^T$.

  By Eckart & Young the nearest of its rank. A convolution is folded to a
  matrix first: 'channel' makes it one of `rank` filters and a 1x1 convolution
  (Zhang+ 2016, arXiv 1505.06798, section 3.1), 'spatial' a column of windows
  and then a row of them (Jaderberg+ 2014, arXiv 1405.3866, scheme 2; schemes 1
  and 2 of Idelbayev & Carreira-Perpinan 2020). Dense layers become two dense
  ones.

  Args:
    rank: A number from 1 to the smaller side of the matrix; a share of the
      energy in (0, 1), each weight getting the least rank that keeps it;
      'vbmf' for what is above the noise (Nakajima+ 2013); or one of them by
      path (`{'dense1/kernel': 8}`), other weights staying whole.
    fold: 'channel' or 'spatial'.

  Returns:
    The method. Lowering replaces each layer by its factors.

  Raises:
    ValueError: If the rank is 0 or more than a weight has, the fold is none,
      or a weight is factored or masked already.
  """
  where = 'lowrank.svd'
  rank_selection.expect(where, rank)
  expect_name(where, 'fold', fold, FOLDS)
  if isinstance(rank, tuple):
    raise ValueError(f'{where}: expected one rank, got {rank!r}.')

  def factor(path: Path, w: Array, rank: Rank) -> Any:
    matrix = factors.folded(w, fold)
    rows, columns = matrix.shape
    found = rank_selection.resolve(where, path, rank, (rows, columns), matrix)
    return factors.truncated(w, found, fold)

  return factoring(where, factor, rank)


def tucker(rank: Rank, *, sweeps: int = 3) -> Method:
  """Put convolutions between two 1x1 ones that change their channels.

  Tucker-2 decomposition (Kim+ 2016, arXiv 1511.06530, section 3.1); other
  weights stay whole (`lowrank.svd` under `only` is for them).

  Args:
    rank: As in `lowrank.svd`, for inputs and outputs alike, or a pair of
      numbers; shares and 'vbmf' are of the unfolding along each of them.
    sweeps: Iterations, from 1.

  Returns:
    The method.

  Raises:
    ValueError: As `lowrank.svd`.
  """
  where = 'lowrank.tucker'
  rank_selection.expect(where, rank)
  _expect_sweeps(where, sweeps)

  def factor(path: Path, w: Array, rank: Rank) -> Any:
    if w.ndim != 4:
      return w
    pair = rank if isinstance(rank, tuple) else (rank, rank)
    found = []
    for side, axis in zip(pair, (-2, -1), strict=True):
      matrix = jnp.moveaxis(w, axis, 0).reshape(w.shape[axis], -1)
      shape = (w.shape[axis], matrix.shape[1])
      found.append(rank_selection.resolve(where, path, side, shape, matrix))
    return factors.tucker(w, (found[0], found[1]), sweeps)

  return factoring(where, factor, rank)


def cp(rank: int | dict[Path, int], *, sweeps: int = 50) -> Method:
  """Replace convolutions by four: 1x1, two depthwise ones, 1x1.

  Canonical polyadic decomposition (Lebedev+ 2015, arXiv 1412.6553, section 3);
  other weights stay whole.

  Args:
    rank: Terms, a number, or one by path.
    sweeps: Sweeps of alternating least squares, from 1.

  Returns:
    The method.

  Raises:
    ValueError: As `lowrank.svd`.
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

  def factor(path: Path, w: Array, rank: int) -> Any:
    if w.ndim != 4:
      return w
    top = polyadic.most(w.shape)
    found = rank_selection.resolve(where, path, rank, (top, top), w)
    return polyadic.polyadic(w, found, sweeps)

  return factoring(where, factor, rank)


def factoring(where: str, factor: Factor, rank: Rank) -> Method:
  """Return the method that replaces weights by nodes of factors.

  Args:
    where: Its name, for errors.
    factor: Path, array, rank -> node, or the array to leave it whole.
    rank: Of every weight, or by path.

  Returns:
    The method; `init` raises a ValueError where weights are compressed in a
    way that does not go with it, or a path is that of none.
  """

  def init(params: Params, ctx: Ctx) -> Params:
    del ctx
    refuse_structure(where, params)
    if not isinstance(rank, dict):
      return tree.map_arrays(lambda path, w: factor(path, w, rank), params)
    names: list[Path] = []
    tree.map_arrays(lambda path, w: names.append(path), params)
    for path in rank:
      if path not in names:
        raise ValueError(
          f'{where}: expected a rank of {", ".join(names)}, got one of '
          f'{path!r}.'
        )
    return tree.map_arrays(
      lambda path, w: factor(path, w, rank[path]) if path in rank else w, params
    )

  return Method(init)


def refuse_structure(where: str, params: Params) -> None:
  """Check that weights are whole: no factors, no masks.

  Raises:
    ValueError: If one is factored or masked: a masked product is neither
      sparse nor of low rank.
  """
  for kind in (Factored, Masked):
    for path, node in tree.find(kind, params).items():
      raise ValueError(
        f'{where}: expected whole weights, got {type(node).__name__} at '
        f'{path}. Put it first: "{where}(...) >> ..." compresses the factors.'
      )


def _expect_sweeps(where: str, sweeps: int) -> None:
  if type(sweeps) is not int or sweeps < 1:
    raise ValueError(f'{where}: expected sweeps from 1, got {sweeps!r}.')
