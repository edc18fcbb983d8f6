"""Layer-by-layer rounding, each layer on inputs from the quantized network."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp

from compress import calibration, kinds, tree
from compress.errors import shorten
from compress.method import Ctx, Method, has_input
from compress.quantize import affine
from compress.quantize.affine import Coded
from compress.quantize.fake_quant import GridConfig, input_ranges
from compress.quantize.integer_codes import Quantized, stored
from compress.tree import Array, Params, Path

MAX_MACS = 2**37  # of all passes over the calibration data


class Layer(NamedTuple):
  """A layer whose weights are rounded.

  Attributes:
    w: Weights by input and output, `[groups, n, m]`.
    step: Step of each weight, the shape of `w`.
    zero: Zero point of each weight, the shape of `w`.
    keep: False for weights that stay 0, the shape of `w`.
    gram: Gram matrices of the inputs, `[groups, n, n]`, up to a factor.
  """

  w: Array
  step: Array
  zero: Array
  keep: Array
  gram: Array


# Returns codes: integers as floats, `[groups, n, m]`.
Rounder: TypeAlias = Callable[[Layer], Array]


def layer_by_layer(
  where: str,
  rounder: Callable[..., Array],
  weight_bits: int,
  config: GridConfig,
) -> Method:
  """Return a method that rounds the weights of one layer after the other.

  The inputs of a layer come from the network whose earlier layers are rounded,
  which takes a pass over the calibration data for each layer. Where all passes
  would take more than `MAX_MACS` multiplications there are fewer of them, and
  some layers in a row are rounded after the same pass.

  Args:
    where: Name of the method, for error messages.
    rounder: A `Rounder` with the keyword argument `ends`.
    weight_bits: Width of the weight grid.
    config: The other options.

  Returns:
    The method.

  Raises:
    ValueError: If an option is not valid.
  """
  affine.expect_bits(where, 'weight_bits', weight_bits)
  config.check(where)
  if type(config.examples) is not int or config.examples < 1:
    raise ValueError(
      f'{where}: expected examples from 1, got {config.examples!r}. A few '
      'hundred suffice.'
    )
  ends = _ends(weight_bits, config.symmetric)
  inside = functools.partial(rounder, ends=ends)

  def init(params: Params, ctx: Ctx) -> Params:
    kinds.refuse(where, kinds.GRID, params)
    ranges = input_ranges(where, params, ctx, config.activation_bits)
    todo: dict[Path, Array] = {}
    tree.map_arrays(lambda path, w: todo.setdefault(path, w), params)
    order = [p for p in calibration.order(where, ctx, params) if p in todo]
    for path in todo:
      if not has_input(where, ctx, path):
        near = config.node(todo[path], weight_bits).quantize()
        params = put(params, path, stored(near, None, weight_bits))
      elif path not in order:
        known = shorten(', '.join(order), 120) or 'no weight'
        raise ValueError(
          f'{where} at {path}: expected recorded layer inputs, got only those '
          f'of {known}. Leave the weight out with `only`.'
        )
    for paths in _passes(ctx, todo, order, config.examples):
      found = calibration.moments(where, ctx, params, config.examples, paths)
      for path in paths:
        node = quantized(params, path, ranges(path), found[path].square)
        params = put(params, path, node)
    return params

  def put(params: Params, path: Path, node: Quantized) -> Params:
    return tree.map_arrays(lambda p, w: node if p == path else w, params)

  def quantized(
    params: Params, path: Path, inputs: Any, gram: Array
  ) -> Quantized:
    w = jnp.float32(tree.decode(tree.paths(params)[path]))
    latent = tree.latent(tree.paths(params)[path])
    if latent.shape != w.shape:
      raise ValueError(
        f'{where} at {path}: expected one array of shape {w.shape}, got '
        f'{latent.shape} inside another node. Quantize before methods that '
        'change the shape of a weight.'
      )
    near = config.node(w, weight_bits).quantize()
    return stored(rounded(w, near, gram, inside), inputs, weight_bits)

  return Method(init)


def _passes(
  ctx: Ctx, weights: dict[Path, Array], order: list[Path], examples: int
) -> list[tuple[Path, ...]]:
  """Return the layers that are rounded after each pass over the data."""
  uses = ctx.probe.uses if ctx.probe else {}
  macs = examples * sum(uses.get(p, 1) * weights[p].size for p in order)
  passes = max(1, min(len(order), MAX_MACS // max(1, macs)))
  bounds = [len(order) * i // passes for i in range(passes + 1)]
  return [tuple(order[i:j]) for i, j in itertools.pairwise(bounds) if i < j]


def _ends(bits: int, symmetric: bool) -> tuple[int, int]:
  """Return the smallest and the largest code of a grid."""
  half = 2 ** (bits - 1)
  return (1 - half if symmetric else -half), half - 1


def rounded(w: Array, near: Coded, gram: Array, rounder: Rounder) -> Coded:
  """Return the codes that a rounder chooses on a given grid.

  Args:
    w: Weight `[..., channels]`.
    near: The weight rounded to nearest.
    gram: Gram matrices of the layer inputs, `[groups, n, n]`.
    rounder: Chooses the codes.

  Returns:
    The codes, with the grid of `near`.
  """
  groups, n, _ = gram.shape

  def cut(x: Array) -> Array:  # [..., channels] -> [groups, n, m]
    wide = jnp.broadcast_to(x, w.shape)
    return wide.reshape(n, groups, -1).swapaxes(0, 1)

  step = affine.broadcast_columns(near.scale, w.shape)
  zero = jnp.zeros(()) if near.zero is None else near.zero
  middle = affine.broadcast_columns(zero, w.shape)
  codes = rounder(Layer(cut(w), cut(step), cut(middle), cut(w != 0), gram))
  return near._replace(codes=codes.swapaxes(0, 1).reshape(w.shape))
