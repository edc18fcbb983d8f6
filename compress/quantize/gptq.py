"""Rounding that looks at data: up or down as the layer's outputs need it.

Rounding to nearest is best for a weight alone, not for a sum of many. With
$H = X^T X$ over the rows X that a kernel multiplies, moving its weights by
$\\Delta$ moves the outputs by $\\mathrm{tr}(\\Delta^T H \\Delta)$ in square.
Layers are rounded in the order of the network, each on what the rounded ones
before it give, and weights are codes from then on: only the rest still trains.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from compress import calibration, tree
from compress.method import Ctx, Method
from compress.quantize import affine as grids
from compress.quantize.affine import Coded, Per
from compress.quantize.nodes import Quantized, stored
from compress.quantize.observers import Clip
from compress.quantize.uniform import How, input_ranges, refuse_grids
from compress.tree import Array, Params, Path

# Weight rows `[groups, n, m]`, step, zero, what is kept, Gram matrices
# `[groups, n, n]` -> the codes.
Rounder: TypeAlias = Callable[[Array, Array, Array, Array, Array], Array]

STRETCH = (-0.1, 1.1)  # of the sigmoid, so that it reaches 0 and 1
REGULAR = 0.1  # weight of what pulls to 0 or 1, beside squared steps
WARM = 0.2  # part of the steps without it
COOL = (20.0, 2.0)  # its exponent, from and to


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
  return _rounding(where, rounder, weight_bits, how)


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
  return _rounding(where, rounder, weight_bits, how)


def _ends(bits: int, symmetric: bool) -> tuple[int, int]:
  """Return the first and the last code of a grid."""
  half = 2 ** (bits - 1)
  return (1 - half if symmetric else -half), half - 1


def _rounding(
  where: str, rounder: Callable[..., Array], weight_bits: int, how: How
) -> Method:
  """Return the method that rounds every layer in turn."""
  grids.expect_bits(where, 'weight_bits', weight_bits)
  how.check(where)
  if type(how.examples) is not int or how.examples < 1:
    raise ValueError(
      f'{where}: expected examples from 1, got {how.examples!r}. A few hundred '
      'do.'
    )
  ends = _ends(weight_bits, how.symmetric)
  inside = functools.partial(rounder, ends=ends)

  def init(params: Params, ctx: Ctx) -> Params:
    refuse_grids(where, params)
    ranges = input_ranges(where, params, ctx, how.activation_bits)
    todo: dict[Path, Array] = {}
    tree.map_arrays(lambda path, w: todo.setdefault(path, w), params)
    order = [p for p in calibration.order(where, ctx, params) if p in todo]
    for path in todo:
      if path not in order:
        raise ValueError(
          f'{where} at {path}: expected a weight that layers multiply, got '
          f'one beside {", ".join(order)}. Leave it out with `only`.'
        )
    for path in order:
      found = calibration.moments(where, ctx, params, how.examples, (path,))
      gram = found[path].square
      node = settled(params, path, ranges(path), gram)
      params = put(params, path, node)
    return params

  def put(params: Params, path: Path, node: Quantized) -> Params:
    return tree.map_arrays(lambda p, w: node if p == path else w, params)

  def settled(
    params: Params, path: Path, inputs: Any, gram: Array
  ) -> Quantized:
    w = tree.decode(tree.paths(params)[path])
    latent = tree.latent(tree.paths(params)[path])
    if latent.shape != w.shape:
      raise ValueError(
        f'{where} at {path}: expected one array of shape {w.shape}, got '
        f'{latent.shape} inside another node. Quantize what is left of a '
        'network, or before what changes the shape.'
      )
    near = how.node(w, weight_bits).coded()
    return stored(rounded(w, near, gram, inside), inputs, weight_bits)

  return Method(init)


def rounded(w: Array, near: Coded, gram: Array, rounder: Rounder) -> Coded:
  """Return the weight with other codes on the grid of the nearest ones.

  Args:
    w: Weight `[..., channels]`.
    near: The weight rounded to nearest.
    gram: `[groups, n, n]`, of the rows that it multiplies.
    rounder: What chooses the codes.

  Returns:
    The codes and the same grid.
  """
  groups, n, _ = gram.shape

  def cut(x: Array) -> Array:  # [..., channels] -> [groups, n, m]
    wide = jnp.broadcast_to(x, w.shape)
    return wide.reshape(n, groups, -1).swapaxes(0, 1)

  step = grids.stretched(near.scale, w.shape)
  zero = jnp.zeros(()) if near.zero is None else near.zero
  middle = grids.stretched(zero, w.shape)
  codes = rounder(cut(w), cut(step), cut(middle), cut(w != 0), gram)
  return near._replace(codes=codes.swapaxes(0, 1).reshape(w.shape))


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
  """Return the codes of `adaptive`.

  Args:
    w: Weights by input and output, `[groups, n, m]`.
    step: The step of each, as `w`.
    zero: The code of 0 of each, as `w`.
    keep: Where not 0 from the start, as `w`; the others stay 0.
    gram: `[groups, n, n]`, in any unit.
    ends: The first and the last code.
    steps: As `adaptive`.
    lr: As `adaptive`.

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
