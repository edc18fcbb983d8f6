"""Structured matrices: fewer numbers from which a weight is made."""

import functools
import math
import zlib
from collections.abc import Collection
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import struct

from compress import tree
from compress.channels.sliced import unsliced
from compress.method import Ctx, Method
from compress.structured import tiles
from compress.structured.butterfly import BUTTERFLY
from compress.structured.circulant import CIRCULANT
from compress.structured.fastfood import FASTFOOD
from compress.structured.toeplitz import TOEPLITZ
from compress.tree import Array, Compressed, Key, Params, Path

FAMILIES = {
  'butterfly': BUTTERFLY,
  'circulant': CIRCULANT,
  'fastfood': FASTFOOD,
  'toeplitz': TOEPLITZ,
}


@struct.dataclass
class Structured(Compressed):
  """A weight made of tiles of one family.

  Attributes:
    values: What the tiles are made from, `[rows, columns, lines, block]`.
    held: What the family drew once, or None.
    gain: What each output is multiplied by, `[outputs]`, or None.
    family: One of `FAMILIES`.
    shape: Of the weight, `[..., outputs]`; tiles may reach beyond it.
  """

  trainable: ClassVar[tuple[str, ...]] = ('values',)
  inner: ClassVar[tuple[str, ...]] = ('values',)
  keeps_zero: ClassVar[bool] = False

  values: Any
  held: Array | None
  gain: Array | None
  family: str = struct.field(pytree_node=False)
  shape: tuple[int, ...] = struct.field(pytree_node=False)

  def decode(self, key: Key | None) -> Array:
    """Return the weight."""
    del key
    made = FAMILIES[self.family].expand(self.values, self.held)
    w = tiles.join(made, self.shape)
    return w if self.gain is None else w * self.gain

  def scale_channels(self, gain: Array) -> 'Structured':
    """Return the node times `gain`; the values stay."""
    return self.replace(gain=gain if self.gain is None else self.gain * gain)

  def describe(self) -> str:
    """Return what the weight is made from, for people."""
    rows, columns, lines, block = tree.decode(self.values).shape
    numbers = rows * columns * lines * block
    name = label(self.family, lines, block)
    return f'{math.prod(self.shape):,} -> {numbers:,} numbers, {name}'


def label(family: str, lines: int, block: int) -> str:
  """Return the name of a structure, as 'circulant/16' or 'toeplitz(2)/16'."""
  rank = f'({lines // 2})' if family == 'toeplitz' else ''
  return f'{family}{rank}/{block}'


def circulant(block: int = 0, *, pad: bool = False) -> Method:
  r"""Make weights of circulant tiles: one row of numbers each.

  $W = D C$ with $C_{ij} = r_{(j - i) \bmod b}$ and random signs $D$, which do
  not train (Cheng+ 2015, arXiv 1502.03436, equation 4; without them inputs
  that are alike stay so). With a block they are the block-circulant matrices
  of CirCNN (Ding+ 2017, arXiv 1708.08917). Starts from the nearest to the
  trained weight: the mean along each turned diagonal. A weight of n numbers
  then has n / block.

  Args:
    block: Side of a tile; 0 for one tile as large as the matrix.
    pad: Whether tiles may reach beyond a matrix whose sides they do not
      divide, as one square tile does for a matrix that is not square.

  Returns:
    The method. A convolution is the matrix `[height * width * in, out]`. A
    weight whose tiles would take as many numbers stays as it is.

  Raises:
    ValueError: If a weight is not plain, tiles do not divide it, or no weight
      takes fewer numbers.
  """
  return _structured('circulant', block, 1, pad)


def toeplitz(rank: int = 1, block: int = 0, *, pad: bool = False) -> Method:
  r"""Make weights of Toeplitz-like tiles: of low displacement rank.

  $W = \sum_{k=1}^r Z_1(g_k) Z_{-1}(h_k)$, `2 rank` numbers an input of a tile
  (Sindhwani+ 2015, arXiv 1510.01722, equation 6). Starts from the trained
  weight with its displacement cut to the rank, then least squares.

  Args:
    rank: Of the displacement, from 1.
    block: As `circulant`.
    pad: As `circulant`.

  Returns:
    The method.

  Raises:
    ValueError: As `circulant`.
  """
  if not (isinstance(rank, int) and rank >= 1):
    raise ValueError(
      f'structured.toeplitz: expected a rank from 1, got {rank!r}. It is that '
      'of the displacement.'
    )
  return _structured('toeplitz', block, rank, pad)


def fastfood(block: int = 0, *, pad: bool = False) -> Method:
  r"""Make weights of adaptive Fastfood tiles: three diagonals each.

  $W^\top = S H G \Pi H B$ with the diagonals $S$, $G$ and $B$ learned (Yang+
  2015, arXiv 1412.7149, equation 1). Starts near the trained weight by least
  squares in each diagonal in turn.

  Args:
    block: As `circulant`; a power of two.
    pad: As `circulant`; the power of two may be beyond both sides.

  Returns:
    The method.

  Raises:
    ValueError: As `circulant`, or if the block is no power of two.
  """
  return _structured('fastfood', block, 1, pad)


def butterfly(block: int = 0, *, pad: bool = False) -> Method:
  r"""Make weights of butterfly tiles: products of log2 n sparse factors.

  `2 log2(block)` numbers an input of a tile (Dao+ 2019, arXiv 1903.05895,
  equation 2). Starts near the trained weight by best rank-one pairs, factor
  by factor (Le+ 2022, arXiv 2110.01230).

  Args:
    block: As `circulant`; a power of two.
    pad: As `circulant`; the power of two may be beyond both sides.

  Returns:
    The method.

  Raises:
    ValueError: As `fastfood`.
  """
  return _structured('butterfly', block, 1, pad)


def _structured(family: str, block: int, rank: int, pad: bool) -> Method:
  where, kind = f'structured.{family}', FAMILIES[family]
  right = isinstance(block, int) and (block == 0 or block >= 2)
  if not right or (kind.halves and block & (block - 1)):
    what = 'a power of two' if kind.halves else 'a block from 2'
    raise ValueError(
      f'{where}: expected {what}, or 0 for the whole matrix, got {block!r}.'
    )

  def make(smaller: list[Path], path: Path, w: Array) -> Any:
    side = block or whole(w.shape, kind.halves)
    _check(f'{where} at {path}', w.shape, side, pad)
    node = project(path, w, family, side, rank)
    if node.values.size < w.size:
      smaller.append(path)
      return node
    return w

  def init(params: Params, ctx: Ctx) -> Params:
    del ctx
    refuse_nodes(where, params)
    smaller: list[Path] = []
    made = tree.map_arrays(functools.partial(make, smaller), params)
    every = tree.paths(params)
    names = [path for path in every if tree.holds_weight(every[path])]
    expect_any(where, smaller, names)
    return made

  return Method(init)


def project(
  path: Path, w: Array, family: str, block: int, rank: int
) -> Structured:
  """Return a weight of a family near a trained one.

  Args:
    path: Of the weight; what a family draws hangs on it.
    w: `[..., outputs]`.
    family: One of `FAMILIES`.
    block: Side of a tile, from 2; a power of two where the family has to.
    rank: Of the displacement of a Toeplitz-like tile.

  Returns:
    The node; nearest where the family says so.
  """
  kind = FAMILIES[family]
  held = kind.held(
    zlib.crc32(path.encode()), tiles.grid(w.shape, block)[0], block
  )
  seen = tiles.split(jnp.ones_like(w), block)
  lines = kind.lines(block, rank)
  values = kind.project(tiles.split(w, block), seen, held, lines)
  return Structured(values, held, None, family, w.shape)


def whole(shape: tuple[int, ...], halves: bool) -> int:
  """Return the side of one tile that covers a weight."""
  side = max(2, math.prod(shape[:-1]), shape[-1])
  return int(2 ** math.ceil(math.log2(side))) if halves else side


def refuse_nodes(where: str, params: Params) -> None:
  """Check that weights are arrays, but for channels that are gone.

  Raises:
    ValueError: If one is made of something else already.
  """
  for path, x in tree.paths(params).items():
    if tree.is_node(unsliced(x)):
      raise ValueError(
        f'{where}: expected plain arrays, got {type(unsliced(x)).__name__} at '
        f'{path}. Put it first, and give each weight one such method; '
        "`only('path', ...)` tells them apart."
      )


def _check(where: str, shape: tuple[int, ...], block: int, pad: bool) -> None:
  """Check that tiles divide a matrix, unless they may reach beyond it."""
  rows, columns = math.prod(shape[:-1]), shape[-1]
  if pad or (rows % block == 0 and columns % block == 0):
    return
  raise ValueError(
    f'{where}: expected a matrix of {block} x {block} tiles, got {rows} x '
    f'{columns}. Say pad=True for tiles that reach beyond it, or choose a '
    'block that divides both.'
  )


def expect_any(
  where: str, smaller: Collection[Path], every: Collection[Path]
) -> None:
  """Check that some weight takes fewer numbers than before."""
  if not smaller:
    raise ValueError(
      f'{where}: expected tiles of fewer numbers than some weight of '
      f'{", ".join(every)}, got none. Use larger blocks, or a larger size.'
    )
