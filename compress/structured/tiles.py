"""Tiles: a matrix as a grid of square structured blocks."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from compress.tree import Array


class Family(NamedTuple):
  """A set of square matrices that fewer numbers describe.

  Tiles are `[rows, columns, block, block]`, a matrix `[inputs, outputs]` each;
  values, the numbers that describe them, `[rows, columns, lines, block]`.

  Attributes:
    lines: Block, rank -> number of lines of values of a tile.
    held: Seed, rows, block -> random constants that are not trained, or None.
    expand: Values, held -> tiles.
    project: Tiles, the mask of their entries inside the matrix (1 or 0, of the
      shape of the tiles), held, lines -> values of near tiles.
    degree: Lines -> the number of values that are multiplied in an entry.
    halves: Whether blocks must be powers of two.
  """

  lines: Callable[[int, int], int]
  held: Callable[[int, int, int], Array | None]
  expand: Callable[[Array, Array | None], Array]
  project: Callable[[Array, Array, Array | None, int], Array]
  degree: Callable[[int], int]
  halves: bool = False


def nothing(seed: int, rows: int, block: int) -> None:
  """Draw no constants."""
  del seed, rows, block


def grid(shape: tuple[int, ...], block: int) -> tuple[int, int]:
  """Return the rows and columns of tiles that cover a kernel as a matrix.

  >>> grid((3, 3, 2, 8), 4)
  (5, 2)
  """
  return -(-math.prod(shape[:-1]) // block), -(-shape[-1] // block)


def split(w: Array, block: int) -> Array:
  """Return a kernel as tiles, padded with zeros.

  A convolution `[height, width, in, out]` is the matrix that multiplies its
  patches; where the block divides `in` no tile spans two taps.
  """
  rows, columns = grid(w.shape, block)
  matrix = w.reshape(-1, w.shape[-1])
  extra = (rows * block - len(matrix), columns * block - matrix.shape[1])
  matrix = jnp.pad(matrix, [(0, n) for n in extra])
  return matrix.reshape(rows, block, columns, block).swapaxes(1, 2)


def join(tiles: Array, shape: tuple[int, ...]) -> Array:
  """Undo `split`.

  >>> join(split(jnp.arange(6.0).reshape(3, 2), 2), (3, 2)).tolist()
  [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
  """
  rows, columns, block, _ = tiles.shape
  matrix = tiles.swapaxes(1, 2).reshape(rows * block, columns * block)
  return matrix[: math.prod(shape[:-1]), : shape[-1]].reshape(shape)
