"""Rounding up or down, chosen by coordinate descent on the output error."""

import functools

import jax
import jax.numpy as jnp

from compress.quantize.rounding import Layer
from compress.tree import Array

SWEEPS = 6  # after which few weights change
BLOCK = 64  # inputs whose gradients are computed at once


@functools.partial(jax.jit, static_argnames=('ends',))
def descended(layer: Layer, *, ends: tuple[int, int]) -> Array:
  r"""Return codes of small output error, each rounded up or down.

  From the nearest codes on, each weight in turn is rounded the other way if
  that lowers $\mathrm{tr}(\Delta^T H \Delta)$, `SWEEPS` times over: the problem
  of AdaRound (Nagel+ 2020, arXiv 2004.10568, equation 13) without its
  relaxation, row by row. The gradients of `BLOCK` inputs are one matrix
  product, so that a sweep takes as long as one gradient of the relaxation.

  Args:
    layer: What is rounded.
    ends: The smallest and the largest code.

  Returns:
    Integers as floats, `[groups, n, m]`; never worse than rounded to nearest.
  """
  w, step, zero, keep, gram = layer
  n = w.shape[1]
  floor = jnp.floor(w / step)
  down, up = (
    jnp.where(keep, jnp.clip(floor + i + zero, *ends), zero) for i in (0, 1)
  )
  low, high = (step * (codes - zero) - w for codes in (down, up))
  size = min(BLOCK, n)
  pad = (0, 0), (0, -n % size), (0, 0)  # a padded weight never changes
  low, high = jnp.pad(low, pad), jnp.pad(high, pad)
  is_up = jnp.pad(w / step - floor >= 0.5, pad)
  gram = jnp.pad(gram, (pad[0], pad[1], pad[1]))
  found = jax.lax.map(
    lambda group: _swept(group[0], group[1], group[2], group[3], size),
    (gram, low, high, is_up),
  )
  return jnp.where(found[:, :n], up, down)


def _swept(h: Array, low: Array, high: Array, is_up: Array, size: int) -> Array:
  """Return which weights of a group are rounded up, `[n, m]` bool.

  Args:
    h: `[n, n]`; n is a multiple of `size`.
    low: Errors of the weights rounded down, `[n, m]`.
    high: Errors of the weights rounded up, `[n, m]`.
    is_up: Where to start, `[n, m]` bool.
    size: Number of inputs in a block.
  """

  def block(k: Array, is_up: Array) -> Array:
    first = (k * size) % len(h)
    cut = functools.partial(
      jax.lax.dynamic_slice_in_dim, start_index=first, slice_size=size
    )
    rows, turn = cut(h), cut(high) - cut(low)
    own = cut(rows, axis=1)

    def visit(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
      slope, mine = carry
      change = jnp.where(mine[i], -turn[i], turn[i])
      flips = 2 * slope[i] * change + own[i, i] * change**2 < 0
      slope += own[:, i, None] * jnp.where(flips, change, 0.0)
      return slope, mine.at[i].set(mine[i] ^ flips)

    slope = rows @ jnp.where(is_up, high, low)
    _, mine = jax.lax.fori_loop(0, size, visit, (slope, cut(is_up)))
    return jax.lax.dynamic_update_slice_in_dim(is_up, mine, first, 0)

  swept: Array = jax.lax.fori_loop(0, SWEEPS * len(h) // size, block, is_up)
  return swept
