"""Structured matrices: weights that are made of fewer numbers."""

import math
import zlib
from collections.abc import Collection
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import struct

from compress import kinds, scaling, tree
from compress.errors import shorten
from compress.method import Ctx, Method
from compress.structured import tiles
from compress.structured.butterfly import BUTTERFLY
from compress.structured.circulant import CIRCULANT
from compress.structured.fastfood import FASTFOOD
from compress.structured.toeplitz import TOEPLITZ
from compress.tree import Array, Compressed, Params, Path
from compress.unchanged import warn_unchanged

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
    values: The numbers of the tiles, `[rows, columns, lines, block]`.
    held: Random constants of the family, or None.
    gain: Factors of the outputs, `[outputs]`, or None.
    family: One of `FAMILIES`.
    shape: Of the weight, `[..., outputs]`; tiles may reach beyond it.
  """

  trainable: ClassVar[tuple[str, ...]] = ('values',)
  inner: ClassVar[tuple[str, ...]] = ('values',)
  kind: ClassVar[str] = kinds.STRUCTURE

  values: Any
  held: Array | None
  gain: Array | None
  family: str = struct.field(pytree_node=False)
  shape: tuple[int, ...] = struct.field(pytree_node=False)

  def decode(self) -> Array:
    """Return the weight."""
    # Types of 16 bits are multiplied in single precision.
    dtype = jnp.promote_types(self.values.dtype, jnp.float32)
    made = FAMILIES[self.family].expand(self.values.astype(dtype), self.held)
    w: Array = tiles.join(made, self.shape)
    w = w if self.gain is None else w * self.gain
    return w.astype(self.values.dtype)

  def scale_channels(self, gain: Array) -> 'Structured':
    """Return the node times `gain`; its values are not changed."""
    return self.replace(gain=gain if self.gain is None else self.gain * gain)

  def describe(self) -> str:
    """Return the sizes and the structure, as text."""
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

  $W = D C$ with $C_{ij} = r_{(j - i) \bmod b}$ and random signs $D$, which are
  not trained (Cheng+ 2015, arXiv 1502.03436, equation 4; without them equal
  inputs give equal outputs). With a block they are the block-circulant
  matrices of CirCNN (Ding+ 2017, arXiv 1708.08917). Starts from the nearest to
  the trained weight: the mean along each rotated diagonal. A weight of n
  numbers then has n / block.

  Args:
    block: Side of a tile; 0 for one tile as large as the matrix.
    pad: Whether tiles may reach beyond a matrix whose sides they do not
      divide, as one square tile does for a matrix that is not square.

  Returns:
    The method. A convolution is the matrix `[height * width * in, out]`.

  Raises:
    ValueError: If a weight is compressed already, or no weight is divided by
      tiles and takes fewer numbers with them.

  Warns:
    UnchangedWarning: If tiles do not divide some weights, or do not make them
      smaller.
  """
  return _structured('circulant', block, 1, pad)


def toeplitz(rank: int = 1, block: int = 0, *, pad: bool = False) -> Method:
  r"""Make weights of Toeplitz-like tiles: of low displacement rank.

  $W = \sum_{k=1}^r Z_1(g_k) Z_{-1}(h_k)$, `2 rank` numbers an input of a tile
  (Sindhwani+ 2015, arXiv 1510.01722, equation 6). Starts near the trained
  weight: its displacement truncated to the rank, then least squares.

  Args:
    rank: Rank of the displacement, at least 1.
    block: As in `circulant`.
    pad: As in `circulant`.

  Returns:
    The method.

  Raises:
    ValueError: As `circulant`.
  """
  if not (isinstance(rank, int) and rank >= 1):
    raise ValueError(
      f'structured.toeplitz: expected a rank from 1, got {rank!r}. It is the '
      'rank of the displacement.'
    )
  return _structured('toeplitz', block, rank, pad)


def fastfood(block: int = 0, *, pad: bool = False) -> Method:
  r"""Make weights of adaptive Fastfood tiles: three diagonals each.

  $W^\top = S H G \Pi H B$ with the diagonals $S$, $G$ and $B$ learned (Yang+
  2015, arXiv 1412.7149, equation 1). Starts near the trained weight by least
  squares in each diagonal in turn.

  Args:
    block: As in `circulant`; a power of two.
    pad: As in `circulant`; the power of two may be more than both sides.

  Returns:
    The method.

  Raises:
    ValueError: As `circulant`, or if the block is not a power of two.
  """
  return _structured('fastfood', block, 1, pad)


def butterfly(block: int = 0, *, pad: bool = False) -> Method:
  r"""Make weights of butterfly tiles: products of log2 n sparse factors.

  `2 log2(block)` numbers an input of a tile (Dao+ 2019, arXiv 1903.05895,
  equation 2). Starts near the trained weight by rank-one approximations of
  pairs, factor by factor (Le+ 2022, arXiv 2110.01230).

  Args:
    block: As in `circulant`; a power of two.
    pad: As in `circulant`; the power of two may be more than both sides.

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

  def init(params: Params, ctx: Ctx) -> Params:
    del ctx
    kinds.refuse(where, kinds.STRUCTURE, params)
    shapes: dict[Path, tuple[int, ...]] = {}
    tree.map_arrays(lambda path, w: shapes.setdefault(path, w.shape), params)
    blocks = {
      path: block or covering_block(shape, kind.halves)
      for path, shape in shapes.items()
    }
    even = [p for p in shapes if pad or _divides(blocks[p], shapes[p])]
    if shapes and not even:
      raise _uneven(where, shapes, blocks)
    fitting = [
      path
      for path in even
      if numbers(family, shapes[path], blocks[path], rank)
      < math.prod(shapes[path])
    ]
    expect_any(where, fitting, shapes)
    warn_unchanged(
      where,
      [path for path in shapes if path not in fitting],
      'tiles do not divide them (pad=True allows that), or are no smaller',
    )

    def make(path: Path, w: Array) -> Any:
      if path not in fitting:
        return w
      return project(path, w, family, blocks[path], rank)

    return tree.map_arrays(make, params)

  return Method(init)


def project(
  path: Path, w: Array, family: str, block: int, rank: int
) -> Structured:
  """Return a weight of a family near a trained one.

  Args:
    path: Of the weight, the seed of the constants of the family.
    w: `[..., outputs]`.
    family: One of `FAMILIES`.
    block: Side of a tile, at least 2; a power of two where the family needs it.
    rank: Rank of the displacement of Toeplitz-like tiles.

  Returns:
    The node, in the type of `w`; the nearest for circulant tiles.
  """
  kind = FAMILIES[family]
  lines = kind.lines(block, rank)
  rows = tiles.grid(w.shape, block)[0]
  held = kind.held(zlib.crc32(path.encode()), rows, block)
  scaled, unit = scaling.scaled(w, kind.degree(lines))
  inside = tiles.split(jnp.ones_like(scaled), block)
  values = kind.project(tiles.split(scaled, block), inside, held, lines) * unit
  return Structured(values.astype(w.dtype), held, None, family, w.shape)


def numbers(
  family: str, shape: tuple[int, ...], block: int, rank: int = 1
) -> int:
  """Return how many numbers the tiles of a weight have.

  >>> numbers('circulant', (64, 32), 16)
  128
  """
  rows, columns = tiles.grid(shape, block)
  return rows * columns * FAMILIES[family].lines(block, rank) * block


def covering_block(shape: tuple[int, ...], halves: bool) -> int:
  """Return the side of one tile that covers a weight."""
  side = max(2, math.prod(shape[:-1]), shape[-1])
  return int(2 ** math.ceil(math.log2(side))) if halves else side


def _divides(block: int, shape: tuple[int, ...]) -> bool:
  return math.prod(shape[:-1]) % block == 0 and shape[-1] % block == 0


def _uneven(
  where: str, shapes: dict[Path, tuple[int, ...]], blocks: dict[Path, int]
) -> ValueError:
  """Return the error of weights none of which is divided by tiles."""
  path, shape = next(iter(shapes.items()))
  block = blocks[path]
  return ValueError(
    f'{where} at {path}: expected a matrix of {block} x {block} tiles, got '
    f'{math.prod(shape[:-1])} x {shape[-1]}. Set pad=True for tiles that reach '
    'beyond it, or choose a block that divides both.'
  )


def expect_any(
  where: str, smaller: Collection[Path], paths: Collection[Path]
) -> None:
  """Check that some weight takes fewer numbers than before.

  Raises:
    ValueError: If none does.
  """
  if not smaller:
    raise ValueError(
      f'{where}: expected tiles of fewer numbers than some weight of '
      f'{shorten(", ".join(paths), 120)}, got none. Use larger blocks, or a '
      'larger size.'
    )
