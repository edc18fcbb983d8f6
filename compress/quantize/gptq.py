"""Rounding with the error compensated by the remaining weights (GPTQ)."""

import functools

import jax
import jax.numpy as jnp

from compress.method import Method
from compress.quantize import rounding
from compress.quantize.affine import Per
from compress.quantize.fake_quant import GridConfig
from compress.quantize.observers import Clip
from compress.tree import Array


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
  w: Array,
  step: Array,
  zero: Array,
  keep: Array,
  gram: Array,
  *,
  ends: tuple[int, int],
  damping: float,
) -> Array:
  """Return the codes of `gptq`.

  Args:
    w: Weights by input and output, `[groups, n, m]`.
    step: Step of each weight, the shape of `w`.
    zero: Zero point of each weight, the shape of `w`.
    keep: False for weights that stay 0, the shape of `w`.
    gram: Gram matrices of the inputs, `[groups, n, n]`, up to a factor.
    ends: The smallest and the largest code.
    damping: See `gptq`.

  Returns:
    Integers as floats, the shape of `w`.
  """

  def group(w: Array, step: Array, zero: Array, keep: Array, h: Array) -> Array:
    n = len(w)
    mean = jnp.trace(h) / n
    h = h / jnp.where(mean > 0, mean, 1.0) + damping * jnp.eye(n)
    order = jnp.argsort(-jnp.diag(h), stable=True)
    w, step, zero, keep = (x[order] for x in (w, step, zero, keep))
    inverse = jnp.linalg.inv(h[order][:, order])
    upper = jnp.linalg.cholesky(inverse).T

    def body(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
      w, codes = carry
      code = jnp.clip(jnp.round(w[i] / step[i]) + zero[i], *ends)
      code = jnp.where(keep[i], code, zero[i])
      error = (w[i] - step[i] * (code - zero[i])) / upper[i, i]
      later = jnp.where(jnp.arange(n) > i, upper[i], 0.0)
      return w - later[:, None] * error, codes.at[i].set(code)

    _, codes = jax.lax.fori_loop(0, n, body, (w, jnp.zeros_like(w)))
    return jnp.zeros_like(codes).at[order].set(codes)

  return jax.vmap(group)(w, step, zero, keep, gram)
