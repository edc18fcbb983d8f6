"""Rounding with the error compensated by the remaining weights (GPTQ)."""

import functools

import jax
import jax.numpy as jnp

from compress import linalg
from compress.method import Method
from compress.quantize import rounding
from compress.quantize.affine import Per
from compress.quantize.fake_quant import GridConfig
from compress.quantize.observers import Clip
from compress.quantize.rounding import Layer
from compress.tree import Array

BLOCK = 128  # inputs after which the later weights are updated


def gptq(
  weight_bits: int = 4,
  activation_bits: int = 0,
  *,
  per: Per = 'channel',
  symmetric: bool = True,
  clip: Clip = 'mse',
  examples: int = 256,
  damping: float = 0.01,
) -> Method:
  r"""Round weights input by input and compensate the error in the others.

  With $H^{-1} = U^T U$, U upper triangular, the weights of input i are rounded
  and the error $e = (w_i - q_i) / U_{ii}$ updates the weights of later inputs,
  $w_j \leftarrow w_j - U_{ij} e$. This is Optimal Brain Quantization in a fixed
  order, the inputs of largest $H_{ii}$ first (Frantar+ 2022, arXiv 2210.17323,
  section 3, algorithm 1).

  Args:
    weight_bits: Width of the weight grid, 2 to 16.
    activation_bits: See `quantize.uniform`; ranges are fixed after calibration.
    per: See `quantize.uniform`.
    symmetric: See `quantize.uniform`.
    clip: See `quantize.uniform`.
    examples: Number of calibration examples from which H is estimated.
    damping: Addition to the diagonal of H, as a fraction of its mean.

  Returns:
    The method. It changes weights in `init` only.

  Raises:
    ValueError: See `quantize.uniform`; also if there is no calibration data.
  """
  where = 'quantize.gptq'
  if not 0 < damping < float('inf'):
    raise ValueError(
      f'{where}: expected a positive damping, got {damping!r}. It is a '
      'fraction of the mean of the diagonal, as 0.01.'
    )
  config = GridConfig(per, symmetric, clip, activation_bits, examples=examples)
  rounder = functools.partial(compensated, damping=damping)
  return rounding.layer_by_layer(where, rounder, weight_bits, config)


@functools.partial(jax.jit, static_argnames=('ends', 'damping'))
def compensated(
  layer: Layer,
  *,
  ends: tuple[int, int],
  damping: float,
) -> Array:
  """Return the codes of `gptq`.

  Args:
    layer: What is rounded.
    ends: The smallest and the largest code.
    damping: See `gptq`.

  Returns:
    Integers as floats, `[groups, n, m]`.
  """

  def ordered(h: Array) -> tuple[Array, Array]:
    n = len(h)
    mean = jnp.trace(h) / n
    h = h / jnp.where(mean > 0, mean, 1.0) + damping * jnp.eye(n)
    order = jnp.argsort(-jnp.diag(h), stable=True)
    return order, h[order][:, order]

  def group(order: Array, upper: Array, *rest: Array) -> Array:
    w, step, zero, keep = (x[order] for x in rest)
    codes = _eliminated(upper, w, step, zero, keep, ends)
    return jnp.zeros_like(codes).at[order].set(codes)

  *rest, h = layer
  order, h = jax.vmap(ordered)(h)
  upper = linalg.each(_inverse_root, h)
  return jax.vmap(group)(order, upper, *rest)


def _inverse_root(h: Array) -> Array:
  """Return the upper triangular U with $U^T U = H^{-1}$.

  >>> h = jnp.array([[2.0, 1.0], [1.0, 3.0]])
  >>> u = _inverse_root(h)
  >>> jnp.allclose(u.T @ u @ h, jnp.eye(2), atol=1e-6).item(), u[1, 0].item()
  (True, 0.0)
  """
  # Reversed, H = R R^T with R upper triangular, so that U is the inverse of R.
  root = jnp.linalg.cholesky(h[::-1, ::-1])[::-1, ::-1]
  return jax.scipy.linalg.solve_triangular(root, jnp.eye(len(h)), lower=False)


def _eliminated(
  upper: Array,
  w: Array,
  step: Array,
  zero: Array,
  keep: Array,
  ends: tuple[int, int],
) -> Array:
  """Return the codes of a group, `[n, m]`, in the order of its inputs.

  Later weights are updated after each block of inputs, at once (Frantar+ 2022,
  section 3.3, step 2).
  """
  n, m = w.shape
  size = min(BLOCK, n)
  short = -n % size
  upper = jnp.pad(upper, (0, short)) + jnp.diag(jnp.arange(n + short) >= n)
  rows = ((0, short), (0, 0))
  w, zero, keep = (jnp.pad(x, rows) for x in (w, zero, keep))
  step = jnp.pad(step, rows, constant_values=1)

  def block(k: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
    w, codes = carry
    cut = functools.partial(
      jax.lax.dynamic_slice_in_dim, start_index=k * size, slice_size=size
    )
    wide, s, z, kept = cut(upper), cut(step), cut(zero), cut(keep)
    own = cut(wide, axis=1)

    def visit(i: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
      w, codes, errors = carry
      code = jnp.clip(jnp.round(w[i] / s[i]) + z[i], *ends)
      code = jnp.where(kept[i], code, z[i])
      error = (w[i] - s[i] * (code - z[i])) / own[i, i]
      later = jnp.where(jnp.arange(size) > i, own[i], 0.0)
      w -= later[:, None] * error
      return w, codes.at[i].set(code), errors.at[i].set(error)

    start = cut(w), jnp.zeros((size, m)), jnp.zeros((size, m))
    _, found, errors = jax.lax.fori_loop(0, size, visit, start)
    later = jnp.arange(n + short) >= (k + 1) * size
    w -= jnp.where(later, wide, 0.0).T @ errors
    codes = jax.lax.dynamic_update_slice_in_dim(codes, found, k * size, 0)
    return w, codes

  start = w, jnp.zeros_like(w)
  _, codes = jax.lax.fori_loop(0, len(w) // size, block, start)
  return codes[:n]
