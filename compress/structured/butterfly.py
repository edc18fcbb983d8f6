r"""Butterfly tiles: log2 n factors that mix pairs, as a fast Fourier transform.

A matrix of n inputs and outputs is
$\begin{pmatrix} W_0 A & W_0 B \\ W_1 C & W_1 D \end{pmatrix}$ with $A$ to $D$
diagonal and $W_0$, $W_1$ butterflies of half the size (Dao+ 2019, arXiv
1903.05895, equation 2): $2 n \log_2 n$ numbers, each entry one product.
"""

import jax
import jax.numpy as jnp

from compress.structured.tiles import Family, nothing
from compress.tree import Array


def expand(values: Array, held: Array | None = None) -> Array:
  """Return the tiles, from single entries to whole blocks."""
  del held
  rows, columns, lines, block = values.shape
  # Tiles and groups share an axis: on a CPU, jax 0.10 crashes where gradients
  # sum over one of seven axes.
  w = jnp.ones((rows * columns * block, 1, 1))
  for stage in reversed(range(lines // 2)):
    half = block >> (stage + 1)
    factor = values[:, :, 2 * stage : 2 * stage + 2]
    factor = factor.reshape(-1, 2, 1, 2, half)
    w = w.reshape(-1, 2, half, 1, half) * factor
    w = w.reshape(-1, 2 * half, 2 * half)
  return w.reshape(rows, columns, block, block)


def project(
  tiles: Array, inside: Array, held: Array | None, lines: int
) -> Array:
  """Return near values: exact for tiles that are butterflies.

  From the outside in, each pair of columns of a half becomes the nearest pair
  of multiples of one column (Le+ 2022, arXiv 2110.01230, algorithm 3.1).
  Entries beyond the matrix count as zeros.
  """
  del inside, held
  *grid, block, _ = tiles.shape
  w, found = tiles.reshape(-1, block, block), []
  for _ in range(lines // 2):
    factor, w = _split(w)
    found.append(factor)
  # The remaining numbers multiply the innermost pairs.
  found[-1] = found[-1] * w.reshape(-1, 2, 1, 1)
  found = [factor.reshape(*grid, 2, block) for factor in found]
  return jnp.concatenate(found, axis=2)


@jax.jit
def _split(w: Array) -> tuple[Array, Array]:
  """Return the outermost factor of blocks, and the halves that it multiplies.

  Args:
    w: `[blocks, side, side]`.

  Returns:
    `[blocks, 2, 2, side / 2]`, and `[2 blocks, side / 2, side / 2]`.
  """
  half = w.shape[-1] // 2
  pairs = w.reshape(-1, 2, half, 2, half)
  one, two = pairs[..., 0, :], pairs[..., 1, :]
  # The principal axis of the two columns of each pair.
  spread = jnp.sum(one**2 - two**2, axis=-2)
  angle = jnp.arctan2(2 * jnp.sum(one * two, axis=-2), spread) / 2
  turn = jnp.cos(angle), jnp.sin(angle)
  halves = one * turn[0][..., None, :] + two * turn[1][..., None, :]
  return jnp.stack(turn, axis=-2), halves.reshape(-1, half, half)


def _lines(block: int, rank: int) -> int:
  del rank
  return 2 * (block.bit_length() - 1)


BUTTERFLY = Family(
  _lines, nothing, expand, project, lambda lines: lines // 2, True
)
