"""Inputs of layers on calibration data: samples, means, correlations."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from compress.dataflow import Observer, Product, rows
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


def order(where: str, ctx: Ctx, params: Params) -> list[Path]:
  """Return the paths of the weights in the order of execution.

  Raises:
    ValueError: If there is no calibration data.
  """
  nothing = Observer(
    lambda product, x: jnp.zeros(()),
    lambda before, after: after,
    lambda x, own: x[0],
    lambda shape: jnp.zeros(()),
  )
  return list(_observe(where, ctx)(params, nothing, 1))


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

  def observe(product: Product, x: Array) -> Moments | None:
    if wanted is not None and product.view.path not in wanted:
      return None
    found = rows(product, x.astype(jnp.float32))
    return Moments(
      jnp.float32(found.shape[1]),
      jnp.sum(found, axis=1),
      jnp.einsum('gri,grj->gij', found, found),
    )

  observer = Observer(observe, _sum, _along, _zeros)
  stacked = _observe(where, ctx)(params, observer, count)
  add = functools.partial(jax.tree.map, lambda x: jnp.sum(x, axis=0))
  return {path: add(x) for path, x in stacked.items()}


def _sum(before: Any, after: Any) -> Any:
  return jax.tree.map(jnp.add, before, after)


def _zeros(shapes: Any) -> Any:
  return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def _along(found: Moments, own: bool) -> Moments:
  """Return the moments of a loop; those of weights of their own are groups."""
  if not own:
    return Moments(*(jnp.sum(x, axis=0) for x in found))
  number, *others = found
  flat = (x.reshape(-1, *x.shape[2:]) for x in others)
  return Moments(number[0], *flat)


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

  def observe(product: Product, x: Array) -> Array:
    del product
    return x.reshape(len(x), -1)

  def along(x: Array, own: bool) -> Array:
    del own
    return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1)

  join = functools.partial(jnp.concatenate, axis=1)
  observer = Observer(observe, lambda *both: join(both), along)
  found = _observe(where, ctx)(params, observer, count)
  spread = _spread(limit, found)  # sorted by path
  return {path: spread[path] for path in found}


@functools.partial(jax.jit, static_argnums=0)
def _spread(limit: int, found: dict[Path, Array]) -> dict[Path, Array]:
  """Return at most so many values of each array, evenly spaced."""
  flat = {path: x.reshape(-1) for path, x in found.items()}
  return {path: x[:: -(-x.size // limit)] for path, x in flat.items()}


def _observe(where: str, ctx: Ctx) -> Any:
  probe = expect_probe(where, ctx)
  if probe.observe is None:
    raise ValueError(
      f'{where}: expected a probe with the inputs of layers, got one '
      'without `observe`. Use compress.probe.'
    )
  return probe.observe
