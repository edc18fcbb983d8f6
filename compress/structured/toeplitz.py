r"""Toeplitz-like tiles: matrices of low displacement rank.

$M = \sum_{k=1}^r Z_1(g_k) Z_{-1}(h_k)$ with $Z_f(v)$ the $f$-circulant matrix
whose first column is $v$ (Sindhwani+ 2015, arXiv 1510.01722, equation 6).
Toeplitz matrices and their inverses have rank 2 at most.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from compress import linalg
from compress.structured.tiles import Family, nothing
from compress.tree import Array

ROUNDS = 3  # of least squares, in g and in h
STEPS = 8  # of conjugate gradients a round


def expand(values: Array, held: Array | None = None) -> Array:
  """Return the sums of products; the first half of the lines are g."""
  del held
  g, h = jnp.split(values, 2, axis=2)
  rank, block = g.shape[2:]
  left, right = (
    f_circulant(g, 1),
    f_circulant(h, -1),
  )  # [..., rank, block, block]
  left = left.swapaxes(2, 3).reshape(*g.shape[:2], block, rank * block)
  right = right.reshape(*g.shape[:2], rank * block, block)
  # A barrier against fusion, which would round differently.
  left, right = jax.lax.optimization_barrier((left, right))
  return left @ right


def f_circulant(v: Array, f: int) -> Array:
  """Return $Z_f(v)$: `[..., n]` -> `[..., n, n]`.

  >>> f_circulant(jnp.array([1, 2, 3]), -1).tolist()
  [[1, -3, -2], [2, 1, -3], [3, 2, 1]]
  """
  steps = jnp.arange(v.shape[-1])
  at = (steps[:, None] - steps[None, :]) % len(steps)
  wraps = steps[:, None] < steps[None, :]
  return jnp.where(wraps, f * v[..., at], v[..., at])


def displaced(m: Array) -> Array:
  """Return $Z_1 M - M Z_{-1}$, Z the shift: its rank is that of M here."""
  down = jnp.roll(m, 1, axis=-2)
  left = jnp.concatenate([m[..., 1:], -m[..., :1]], axis=-1)
  return down - left


def summed(m: Array, f: int) -> Array:
  """Return the adjoint of `f_circulant`: `[..., n, n]` -> `[..., n]`.

  As `jax.linear_transpose` gives it, which scatters and takes 2 to 8 times as
  long on a CPU.

  >>> summed(jnp.arange(4.0).reshape(2, 2), -1).tolist()
  [3.0, 1.0]
  """
  n = m.shape[-1]
  steps = jnp.arange(n)
  m = jnp.where(steps[:, None] < steps[None, :], f * m, m).swapaxes(-1, -2)
  # Twice, in rows of one more: row j begins with its entry j.
  flat = jnp.concatenate([m, m], axis=-1).reshape(*m.shape[:-2], -1)
  flat = jnp.pad(flat, [(0, 0)] * (flat.ndim - 1) + [(0, n)])
  turned = flat.reshape(*m.shape[:-2], n, 2 * n + 1)
  return jnp.sum(turned[..., :n], axis=-2)


def project(
  tiles: Array, inside: Array, held: Array | None, lines: int
) -> Array:
  r"""Return near values: exact for tiles that have the structure.

  The displacement is cut to its rank by singular values, $\sum_k g_k d_k^\top$,
  which gives $h_k = J d_k / 2$ (theorem 3.1); then alternating least squares
  in g and h fit the tiles themselves.
  """
  del held
  n = tiles.shape[-1]
  svd = functools.partial(jnp.linalg.svd, full_matrices=False)
  found = linalg.each(svd, displaced(tiles).reshape(-1, n, n))
  u, s, vt = (x.reshape(*tiles.shape[:-2], *x.shape[1:]) for x in found)
  rank = lines // 2
  root = jnp.sqrt(s[..., :rank, None])
  g = u[..., :rank].swapaxes(-1, -2) * root
  h = vt[..., :rank, ::-1] * root / 2

  return _fitted(g, h, tiles, inside)


@jax.jit
def _fitted(g: Array, h: Array, tiles: Array, inside: Array) -> Array:
  """Return g and h after alternating least squares."""
  target = tiles * inside

  def made(g: Array, h: Array) -> Array:
    return expand(jnp.concatenate([g, h], axis=2)) * inside

  def round_of(_: int, found: tuple[Array, Array]) -> tuple[Array, Array]:
    g, h = found

    right = f_circulant(h, -1).swapaxes(-1, -2)

    def for_g(rest: Array) -> Array:
      return summed((rest * inside)[:, :, None] @ right, 1)

    g = nearer(lambda x: made(x, h), for_g, g, target)

    left = f_circulant(g, 1).swapaxes(-1, -2)

    def for_h(rest: Array) -> Array:
      return summed(left @ (rest * inside)[:, :, None], -1)

    return g, nearer(lambda x: made(g, x), for_h, h, target)

  return jnp.concatenate(jax.lax.fori_loop(0, ROUNDS, round_of, (g, h)), axis=2)


def nearer(
  linear: Callable[[Array], Array],
  adjoint: Callable[[Array], Array],
  start: Array,
  target: Array,
) -> Array:
  """Return x after conjugate gradient steps for `linear(x) = target`."""
  gap = adjoint(target - linear(start))
  step, _ = jax.scipy.sparse.linalg.cg(
    lambda x: adjoint(linear(x)), gap, maxiter=STEPS
  )
  # A gap of rounding errors alone may be one that no step closes.
  found: Array = start + jnp.where(jnp.all(jnp.isfinite(step)), step, 0)
  return found


TOEPLITZ = Family(
  lambda block, rank: 2 * rank, nothing, expand, project, lambda lines: 2
)
