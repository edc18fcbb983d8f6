r"""Circulant tiles: one row of numbers, rotated by one at each input.

$R = \mathrm{circ}(r)$ after a diagonal $D$ of random signs (Cheng+ 2015, arXiv
1502.03436, equations 2 and 4); in a grid of tiles, the block-circulant
matrices of CirCNN (Ding+ 2017, arXiv 1708.08917, section 3).
"""

import jax.numpy as jnp
import numpy as np

from compress.structured.tiles import Family
from compress.tree import Array


def signs(seed: int, rows: int, block: int) -> Array:
  """Return the signs of the inputs, `[rows, block]`: True for 1."""
  drawn = np.random.default_rng(seed).integers(0, 2, (rows, block))
  return jnp.asarray(drawn.astype(bool))


def expand(values: Array, held: Array | None) -> Array:
  r"""Return $D_{ii} r_{(j - i) \bmod b}$ for each tile."""
  tiles = values[:, :, 0][..., _rotations(values.shape[-1])]
  return jnp.where(_columns(held), tiles, -tiles)


def project(
  tiles: Array, inside: Array, held: Array | None, lines: int
) -> Array:
  """Return the nearest values: means along the rotated diagonals."""
  del lines
  block = tiles.shape[-1]
  at = jnp.broadcast_to(_rotations(block), (block, block))

  def summed(x: Array) -> Array:
    return jnp.zeros((*x.shape[:2], block)).at[..., at].add(x)

  tiles = jnp.where(_columns(held), tiles, -tiles) * inside
  return (summed(tiles) / jnp.maximum(summed(inside), 1))[:, :, None]


def multiply(x: Array, values: Array, held: Array | None) -> Array:
  r"""Return the product with the tiles, $\mathrm{IFFT}(\hat x \hat r)$.

  O(n log n) for a tile of n inputs. Dense kernels are faster below about a
  thousand, and networks multiply by the expanded matrix.

  Args:
    x: `[..., rows, block]`.
    values: `[rows, columns, 1, block]`.
    held: The signs, `[rows, block]`.

  Returns:
    `[..., columns, block]`.
  """
  assert held is not None
  block = values.shape[-1]
  spectrum = jnp.fft.rfft(jnp.where(held, x, -x))
  kernel = jnp.fft.rfft(values[:, :, 0])
  product = jnp.einsum('...rf,rcf->...cf', spectrum, kernel)
  return jnp.fft.irfft(product, block)


def _rotations(block: int) -> Array:
  """Return the index of each entry of a tile among its values."""
  steps = jnp.arange(block)
  return (steps[None, :] - steps[:, None]) % block


def _columns(held: Array | None) -> Array:
  assert held is not None
  return held[:, None, :, None]


CIRCULANT = Family(
  lambda block, rank: 1, signs, expand, project, lambda lines: 1
)
