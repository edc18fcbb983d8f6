"""Rounding layer by layer, each on what the rounded layers before it give."""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp

from compress import calibration, kinds, tree
from compress.errors import shorten
from compress.method import Ctx, Method
from compress.quantize import affine
from compress.quantize.affine import Coded
from compress.quantize.fake_quant import How, input_ranges
from compress.quantize.integer_codes import Quantized, stored
from compress.tree import Array, Params, Path

# Weight rows `[groups, n, m]`, step, zero, what is kept, Gram matrices
# `[groups, n, n]` -> the codes.
Rounder: TypeAlias = Callable[[Array, Array, Array, Array, Array], Array]


def layer_by_layer(
  where: str, rounder: Callable[..., Array], weight_bits: int, how: How
) -> Method:
  """Return the method that rounds every layer in turn."""
  affine.expect_bits(where, 'weight_bits', weight_bits)
  how.check(where)
  if type(how.examples) is not int or how.examples < 1:
    raise ValueError(
      f'{where}: expected examples from 1, got {how.examples!r}. A few hundred '
      'do.'
    )
  ends = _ends(weight_bits, how.symmetric)
  inside = functools.partial(rounder, ends=ends)

  def init(params: Params, ctx: Ctx) -> Params:
    kinds.refuse(where, kinds.GRID, params)
    ranges = input_ranges(where, params, ctx, how.activation_bits)
    todo: dict[Path, Array] = {}
    tree.map_arrays(lambda path, w: todo.setdefault(path, w), params)
    order = [p for p in calibration.order(where, ctx, params) if p in todo]
    for path in todo:
      if path not in order:
        known = shorten(', '.join(order), 120) or 'no weight'
        raise ValueError(
          f'{where} at {path}: expected a weight whose layer inputs are '
          f'observed, got those of {known}. Use Flax Dense or Conv layers, or '
          'leave it out with `only`.'
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


def _ends(bits: int, symmetric: bool) -> tuple[int, int]:
  """Return the first and the last code of a grid."""
  half = 2 ** (bits - 1)
  return (1 - half if symmetric else -half), half - 1


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

  step = affine.stretched(near.scale, w.shape)
  zero = jnp.zeros(()) if near.zero is None else near.zero
  middle = affine.stretched(zero, w.shape)
  codes = rounder(cut(w), cut(step), cut(middle), cut(w != 0), gram)
  return near._replace(codes=codes.swapaxes(0, 1).reshape(w.shape))
