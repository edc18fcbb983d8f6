"""Rounding up or down, learned from the outputs of each layer (AdaRound)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from compress.method import Method
from compress.quantize import rounding
from compress.quantize.affine import Per
from compress.quantize.coordinate_descent import descended
from compress.quantize.fake_quant import GridConfig
from compress.quantize.observers import Clip
from compress.quantize.rounding import Layer
from compress.tree import Array

STRETCH = (-0.1, 1.1)  # of the sigmoid, so that it reaches 0 and 1
REGULARIZATION = 0.1  # weight of the regularizer, relative to squared steps
WARM_UP = 0.2  # fraction of the steps without the regularizer
BETA = (20.0, 2.0)  # initial and final exponent of the regularizer
MAX_MACS = 2**37  # of all gradients of a layer: seconds of a core


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
  layer by layer, on the outputs before the activation function.

  For a layer of n inputs and m outputs that takes $n^2 m$ multiplications a
  step. Layers in which all steps would take more than `MAX_MACS` minimize the
  first term over h in {0, 1} by coordinate descent instead, which takes as long
  as a few steps (`coordinate_descent`).

  Args:
    weight_bits: Width of the weight grid, 2 to 16.
    activation_bits: See `quantize.uniform`; ranges are fixed after calibration.
    per: See `quantize.uniform`.
    symmetric: See `quantize.uniform`.
    clip: See `quantize.uniform`.
    examples: Number of calibration examples from which H is estimated.
    steps: Number of steps of Adam for each layer.
    lr: Learning rate of Adam.

  Returns:
    The method. It changes weights in `init` only.

  Raises:
    ValueError: See `quantize.uniform`; also if there is no calibration data.
  """
  where = 'quantize.adaround'
  for what, x in (('steps', steps), ('lr', lr)):
    if not 0 < x < float('inf'):
      raise ValueError(f'{where}: expected {what} above 0, got {x!r}.')
  config = GridConfig(per, symmetric, clip, activation_bits, examples=examples)
  rounder = functools.partial(fastest, steps=int(steps), lr=lr)
  return rounding.layer_by_layer(where, rounder, weight_bits, config)


def fastest(
  layer: Layer, *, ends: tuple[int, int], steps: int, lr: float
) -> Array:
  """Return the codes of `learned`, of `descended` if that takes too long."""
  if layer.w.shape[1] * layer.w.size * steps > MAX_MACS:
    return descended(layer, ends=ends)
  return learned(layer, ends=ends, steps=steps, lr=lr)


@functools.partial(jax.jit, static_argnames=('ends', 'steps', 'lr'))
def learned(
  layer: Layer,
  *,
  ends: tuple[int, int],
  steps: int,
  lr: float,
) -> Array:
  """Return the codes of `adaround`.

  Args:
    layer: What is rounded.
    ends: The smallest and the largest code.
    steps: See `adaround`.
    lr: See `adaround`.

  Returns:
    Integers as floats, `[groups, n, m]`; rounded to nearest if that is better.
  """
  w, step, zero, keep, gram = layer
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

  def error(up: Array) -> Array:
    delta = step * (codes(up) - zero) - w
    # Its gradient is 2 H delta, in one product.
    slope = jax.lax.stop_gradient(gram @ delta)
    half = jax.lax.stop_gradient(jnp.sum(slope * delta))
    return (2 * jnp.sum(slope * delta) - half) / unit

  def loss(v: Array, at: Array) -> Array:
    up = soft(v)
    annealed = jnp.clip((at - WARM_UP) / (1 - WARM_UP), 0.0, 1.0)
    beta = BETA[0] + (BETA[1] - BETA[0]) * annealed
    penalty = jnp.sum(1 - jnp.abs(2 * up - 1) ** beta)
    return error(up) + jnp.where(at < WARM_UP, 0.0, REGULARIZATION) * penalty

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
  better = error(found) <= error(nearest)
  return jnp.where(better, codes(found), codes(nearest))
