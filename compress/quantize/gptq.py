"""Rounding one input after the other, the rest making up for each (GPTQ)."""

import functools

import jax
import jax.numpy as jnp

from compress.method import Method
from compress.quantize import rounding
from compress.quantize.affine import Per
from compress.quantize.fake_quant import How
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
  r"""Round weights one input after the other, the rest making up for each.

  With $H^{-1} = U^T U$, U upper triangular, the weights of input i are rounded
  and the error $e = (w_i - q_i) / U_{ii}$ moves the later ones by
  $w_j \leftarrow w_j - U_{ij} e$: Optimal Brain Quantization in a fixed order
  (Frantar+ 2022, arXiv 2210.17323, section 3, algorithm 1; the inputs of
  largest $H_{ii}$ first).

  Args:
    weight_bits: Width of the weight grid, 2 to 16.
    activation_bits: As `quantize.uniform`; ranges are held.
    per: As `quantize.uniform`.
    symmetric: As `quantize.uniform`.
    clip: As `quantize.uniform`.
    examples: Calibration examples whose layer inputs make H.
    damping: What is added to the diagonal of H, as a part of its mean.

  Returns:
    The method; it changes nothing after `init`.

  Raises:
    ValueError: As `quantize.uniform`, or if there is no calibration data.
  """
  where = 'quantize.gptq'
  if not 0 < damping < float('inf'):
    raise ValueError(
      f'{where}: expected a positive damping, got {damping!r}. It is a part of '
      'the mean of the diagonal, as 0.01.'
    )
  how = How(per, symmetric, clip, activation_bits, examples=examples)
  rounder = functools.partial(compensated, damping=damping)
  return rounding.layer_by_layer(where, rounder, weight_bits, how)


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
    step: The step of each, as `w`.
    zero: The code of 0 of each, as `w`.
    keep: Where not 0 from the start, as `w`; the others stay 0.
    gram: `[groups, n, n]`, in any unit.
    ends: The first and the last code.
    damping: As `gptq`.

  Returns:
    Whole numbers as floats, as `w`.
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
