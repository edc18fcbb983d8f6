"""Rounding up or down, learned on the outputs of each layer (AdaRound)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from compress.method import Method
from compress.quantize import rounding
from compress.quantize.affine import Per
from compress.quantize.fake_quant import How
from compress.quantize.observers import Clip
from compress.tree import Array

STRETCH = (-0.1, 1.1)  # of the sigmoid, so that it reaches 0 and 1

REGULAR = 0.1  # weight of what pulls to 0 or 1, beside squared steps

WARM = 0.2  # part of the steps without it

COOL = (20.0, 2.0)  # its exponent, from and to


def adaround(
  weight_bits: int = 4,
  activation_bits: int = 0,
  *,
  per: Per = 'channel',
  symmetric: bool = True,
  clip: Clip = 'mse',
  examples: int = 256,
  steps: int = 500,
  lr: float = 0.05,
) -> Method:
  r"""Learn for each weight whether to round it up or down (AdaRound).

  $\min_V \mathrm{tr}(\Delta^T H \Delta) + \lambda \sum (1 - |2 h - 1|^\beta)$
  with $\Delta = s (\lfloor w/s \rfloor + h) - w$ and h(V) a sigmoid stretched
  and clipped to [0, 1] (Nagel+ 2020, arXiv 2004.10568, equations 21 to 24),
  whole layers at a time, without their activation function.

  Args:
    weight_bits: Width of the weight grid, 2 to 16.
    activation_bits: As `quantize.uniform`; ranges are held.
    per: As `quantize.uniform`.
    symmetric: As `quantize.uniform`.
    clip: As `quantize.uniform`.
    examples: Calibration examples whose layer inputs make H.
    steps: Of Adam, a layer.
    lr: Of Adam.

  Returns:
    The method; it changes nothing after `init`.

  Raises:
    ValueError: As `quantize.uniform`, or if there is no calibration data.
  """
  where = 'quantize.adaround'
  for what, x in (('steps', steps), ('lr', lr)):
    if not 0 < x < float('inf'):
      raise ValueError(f'{where}: expected {what} above 0, got {x!r}.')
  how = How(per, symmetric, clip, activation_bits, examples=examples)
  rounder = functools.partial(learned, steps=int(steps), lr=lr)
  return rounding.layer_by_layer(where, rounder, weight_bits, how)


@functools.partial(jax.jit, static_argnames=('ends', 'steps', 'lr'))
def learned(
  w: Array,
  step: Array,
  zero: Array,
  keep: Array,
  gram: Array,
  *,
  ends: tuple[int, int],
  steps: int,
  lr: float,
) -> Array:
  """Return the codes of `adaround`.

  Args:
    w: Weights by input and output, `[groups, n, m]`.
    step: The step of each, as `w`.
    zero: The code of 0 of each, as `w`.
    keep: Where not 0 from the start, as `w`; the others stay 0.
    gram: `[groups, n, n]`, in any unit.
    ends: The first and the last code.
    steps: As `adaround`.
    lr: As `adaround`.

  Returns:
    Whole numbers as floats, as `w`; the nearest ones if those are better.
  """
  low, high = STRETCH
  floor = jnp.floor(w / step)
  part = w / step - floor
  mean = jnp.mean(jnp.trace(gram, axis1=1, axis2=2)) / w.shape[1]
  gram = gram / jnp.where(mean > 0, mean, 1.0)
  unit = jnp.mean(step**2)  # the loss is in squared steps, whatever their size

  def soft(v: Array) -> Array:
    return jnp.clip(jax.nn.sigmoid(v) * (high - low) + low, 0.0, 1.0)

  def codes(up: Array) -> Array:
    found = jnp.clip(floor + up + zero, *ends)
    return jnp.where(keep, found, zero)

  def harm(up: Array) -> Array:
    delta = step * (codes(up) - zero) - w
    return jnp.einsum('gim,gij,gjm->', delta, gram, delta) / unit

  def loss(v: Array, at: Array) -> Array:
    up = soft(v)
    cooled = jnp.clip((at - WARM) / (1 - WARM), 0.0, 1.0)
    beta = COOL[0] + (COOL[1] - COOL[0]) * cooled
    pull = jnp.sum(1 - jnp.abs(2 * up - 1) ** beta)
    return harm(up) + jnp.where(at < WARM, 0.0, REGULAR) * pull

  tx = optax.adam(lr)
  chance = jnp.clip((part - low) / (high - low), 1e-3, 1 - 1e-3)
  start = jnp.log(chance) - jnp.log1p(-chance)

  def body(i: Array, carry: Any) -> Any:
    v, opt = carry
    updates, opt = tx.update(jax.grad(loss)(v, i / steps), opt)
    return optax.apply_updates(v, updates), opt

  v, _ = jax.lax.fori_loop(0, steps, body, (start, tx.init(start)))
  found = (soft(v) >= 0.5).astype(w.dtype)
  nearest = (part >= 0.5).astype(w.dtype)
  better = harm(found) <= harm(nearest)
  return jnp.where(better, codes(found), codes(nearest))
