r"""Adaptive Fastfood tiles: three diagonals between fixed transforms.

$y = S H G \Pi H B x$ with the diagonals $S$, $G$, $B$ learned, $H$ the
Walsh-Hadamard matrix over $\sqrt{n}$ and $\Pi$ a permutation (Yang+ 2015,
arXiv 1412.7149, equation 1).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from compress import linalg
from compress.structured.tiles import Family
from compress.tree import Array

ROUNDS = 5  # of least squares in G, B and S
FAR = 1024  # times as large as another line: 16 bits may not hold both
SMALL = 1e-6  # of the mean, below which a square counts as 0


def permutation(seed: int, rows: int, block: int) -> Array:
  """Return the permutation of all tiles, `[block]` int32."""
  del rows
  return jnp.int32(np.random.default_rng(seed).permutation(block))


def hadamard(size: int) -> Array:
  """Return the Walsh-Hadamard matrix of a power of two, orthogonal.

  >>> (hadamard(2) * 2**0.5).round(3).tolist()
  [[1.0, 1.0], [1.0, -1.0]]
  """
  steps = jnp.arange(size, dtype=jnp.uint32)
  odd = jax.lax.population_count(steps[:, None] & steps) % 2
  entry = np.float32(1 / np.sqrt(size))
  return jnp.where(odd, -entry, entry)


def expand(values: Array, held: Array | None) -> Array:
  """Return the tiles `[inputs, outputs]` of the lines S, G and B."""
  s, g, b = (values[:, :, i] for i in range(3))
  return b[..., None] * _middle(g, held) * s[..., None, :]


@functools.partial(jax.jit, static_argnames='lines')
def project(
  tiles: Array, inside: Array, held: Array | None, lines: int
) -> Array:
  """Return near values, by least squares in each diagonal in turn.

  Entries beyond the matrix count as zeros.
  """
  del inside, lines
  assert held is not None
  h = hadamard(tiles.shape[-1])
  s = b = jnp.ones(tiles.shape[:3])
  g = s
  for _ in range(ROUNDS):
    x, y = b[..., None] * h[:, held], h * s[..., None, :]
    gram = (x.swapaxes(-1, -2) @ x) * (y @ y.swapaxes(-1, -2))
    right = jnp.einsum('...ik,...ij,...kj->...k', x, tiles, y)
    g = _solved(gram, right)
    middle = _middle(g, held)
    b = _fitted(middle * s[..., None, :], tiles, -1)
    s = _fitted(middle * b[..., None], tiles, -2)
  return _balanced(jnp.stack([s, g, b], axis=2))


def _balanced(values: Array) -> Array:
  """Return lines of equal size, in the tiles where they are far from that."""
  sizes = jnp.max(jnp.abs(values), axis=-1, keepdims=True)
  low, high = jnp.min(sizes, 2, keepdims=True), jnp.max(sizes, 2, keepdims=True)
  far = (low > 0) & (high > FAR * low)
  safe = jnp.where(far, sizes, 1)
  mean = jnp.exp(jnp.mean(jnp.log(safe), axis=2, keepdims=True))
  return values * (mean / safe)


def _middle(g: Array, held: Array | None) -> Array:
  """Return the tiles without their outer diagonals."""
  assert held is not None
  h = hadamard(g.shape[-1])
  x, y = jax.lax.optimization_barrier((h[:, held] * g[..., None, :], h))
  return x @ y


def _fitted(x: Array, target: Array, axis: int) -> Array:
  """Return the best factor of each row or column of `x`."""
  squares = jnp.sum(x**2, axis)
  enough = squares > SMALL * jnp.mean(squares)
  part = jnp.sum(x * target, axis)
  return jnp.where(enough, part / jnp.where(enough, squares, 1), 0)


def _solved(gram: Array, right: Array) -> Array:
  mean = jnp.trace(gram, axis1=-2, axis2=-1) / gram.shape[-1]
  ridge = (SMALL * mean + jnp.finfo(gram.dtype).tiny)[..., None, None]
  ridged = gram + ridge * jnp.eye(gram.shape[-1])
  n = gram.shape[-1]
  found = linalg.each(
    jnp.linalg.solve, ridged.reshape(-1, n, n), right.reshape(-1, n)
  )
  return found.reshape(right.shape)


FASTFOOD = Family(
  lambda block, rank: 3, permutation, expand, project, lambda lines: 3, True
)
