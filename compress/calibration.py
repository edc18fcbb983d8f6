"""Inputs of layers on calibration data: samples, means, correlations."""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from compress.dataflow import each, padded
from compress.method import Ctx, expect_probe
from compress.tree import Array, Params, Path


class Moments(NamedTuple):
  """Sums over the rows that a weight multiplies.

  A row is what one column of the kernel is multiplied by, flattened: the input
  of a dense layer, a patch of that of a convolution.

  Attributes:
    number: How many rows, `()`.
    total: Their sum, `[groups, n]`; one group unless the convolution has more.
    square: The sum of their outer products, `[groups, n, n]`.
  """

  number: Array
  total: Array
  square: Array


def rows(module: nn.Module, x: Array) -> Array:
  """Return the rows that the kernel of a layer multiplies.

  Args:
    module: `flax.linen.Dense` or `flax.linen.Conv`.
    x: Its input, `[batch, ..., channels]`.

  Returns:
    `[groups, rows, n]`, with n in the order of `kernel.reshape(n, -1)`.

  Raises:
    ValueError: If the module is of another kind.
  """
  if isinstance(module, nn.Dense):
    return x.reshape(1, -1, x.shape[-1])
  if not isinstance(module, nn.Conv):
    raise ValueError(
      f'calibration.rows at {"/".join(module.path)}: expected a Dense or Conv '
      f'layer, got {type(module).__name__}. Leave it out with `only`.'
    )
  x, padding = padded(module, x)
  size, strides, dilation = (
    each(option, x.ndim - 2)
    for option in (module.kernel_size, module.strides, module.kernel_dilation)
  )
  patches = jax.lax.conv_general_dilated_patches(
    jnp.moveaxis(x, -1, 1), size, strides, padding, rhs_dilation=dilation
  )
  # Patches are [batch, channels * prod(size), *sides], channels first.
  groups, channels = module.feature_group_count, x.shape[-1]
  flat = jnp.moveaxis(patches, 1, -1).reshape(
    -1, groups, channels // groups, math.prod(size)
  )
  return flat.transpose(1, 0, 3, 2).reshape(
    groups, len(flat), math.prod(size) * channels // groups
  )


def order(where: str, ctx: Ctx, params: Params) -> list[Path]:
  """Return the paths of the weights in the order of execution.

  Raises:
    ValueError: If there is no calibration data.
  """
  found = _inputs(where, ctx)(
    params, lambda before, module, x: jnp.zeros(()), 1
  )
  return list(found)


def moments(
  where: str,
  ctx: Ctx,
  params: Params,
  count: int,
  wanted: tuple[Path, ...] | None = None,
) -> dict[Path, Moments]:
  """Return the moments of the rows of weights, in order of execution.

  Args:
    where: Name of the method, for errors.
    ctx: With a probe.
    params: The network: arrays and nodes, whose input grids are live.
    count: Calibration examples, at most.
    wanted: Paths of the weights; None is all.

  Returns:
    By path.

  Raises:
    ValueError: If there is no calibration data or a layer has no rows.
  """
  modules = wanted and {path.rpartition('/')[0] for path in wanted}

  def see(before: Any, module: nn.Module, x: Array) -> Moments | None:
    if modules is not None and '/'.join(module.path) not in modules:
      return None
    found = rows(module, x.astype(jnp.float32))
    new = Moments(
      jnp.float32(found.shape[1]),
      jnp.sum(found, axis=1),
      jnp.einsum('gri,grj->gij', found, found),
    )
    return new if before is None else jax.tree.map(jnp.add, before, new)

  stacked = _inputs(where, ctx)(params, see, count)
  add = functools.partial(jax.tree.map, lambda x: jnp.sum(x, axis=0))
  return {path: add(x) for path, x in stacked.items() if x is not None}


def sample(
  where: str, ctx: Ctx, params: Params, count: int, limit: int = 2**16
) -> dict[Path, Array]:
  """Return values of the input of every weight, in order of execution.

  Args:
    where: Name of the method, for errors.
    ctx: With a probe.
    params: The network: arrays and nodes.
    count: Calibration examples, at most.
    limit: Values kept of each input, evenly spaced among all.

  Returns:
    By path, `[values]`.

  Raises:
    ValueError: If there is no calibration data.
  """

  def see(before: Any, module: nn.Module, x: Array) -> Array:
    new = x.reshape(len(x), -1)
    return new if before is None else jnp.concatenate([before, new], axis=1)

  found = {}
  for path, x in _inputs(where, ctx)(params, see, count).items():
    flat = x.reshape(-1)
    found[path] = flat[:: -(-flat.size // limit)]
  return found


def _inputs(where: str, ctx: Ctx) -> Any:
  probe = expect_probe(where, ctx)
  if probe.inputs is None:
    raise ValueError(
      f'{where}: expected a probe with the inputs of layers, got one '
      'without `inputs`. Give Probe(..., inputs=...).'
    )
  return probe.inputs
