"""The input of a product with its channels last, as rows, and as means."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from compress.dataflow.interpreter import Product
from compress.tree import Array

Change = Callable[[Array], Array]


def channels_last(product: Product, x: Array) -> tuple[Array, Change]:
  """Return the input of a product with its channels last, and the way back.

  Args:
    product: Where it is used.
    x: The input as it enters.

  Returns:
    `[batch, ..., channels]`, the axes that are summed over as one, and a
    function that gives an array like it the layout of x.
  """
  if product.eqn.primitive.name == 'dot_general':
    order = (*_others(product, x.ndim), *_summed(product))
    count = len(_summed(product))
  else:
    batch, channels, *window = product.eqn.params['dimension_numbers'].lhs_spec
    order, count = (batch, *window, channels), 1
  moved = x.transpose(order) if order != tuple(range(x.ndim)) else x
  shape = moved.shape
  merged = moved if count == 1 else moved.reshape(*shape[: -count or None], -1)
  inverse = [order.index(i) for i in range(x.ndim)]

  def back(y: Array) -> Array:
    y = y if count == 1 else y.reshape(shape)
    return y.transpose(inverse) if order != tuple(range(x.ndim)) else y

  return merged, back


def rows(product: Product, x: Array) -> Array:
  """Return the rows that a weight multiplies.

  Args:
    product: A dense layer or a convolution, in any layout.
    x: Its input.

  Returns:
    `[groups, rows, n]`, with n in the order of the inputs of the weight as
    methods see it, `kernel.reshape(n, -1)`.

  Raises:
    ValueError: If the weight is used in parts or flipped.
  """
  if not product.view.whole:
    raise ValueError(
      f'dataflow.rows at {product.view.path}: expected a product of the whole '
      'weight, got one of a part, or flipped as by a transposed convolution. '
      'Leave it out with `only`.'
    )
  eqn = product.eqn
  if eqn.primitive.name == 'dot_general':
    batched = eqn.params['dimension_numbers'][1][1 - product.side]
    groups = math.prod(x.shape[i] for i in batched)
    n = math.prod(x.shape[i] for i in _summed(product))
    order = (*_others(product, x.ndim), *_summed(product))
    return x.transpose(order).reshape(groups, -1, n)
  numbers, params = eqn.params['dimension_numbers'], eqn.params
  window = [eqn.invars[1].aval.shape[i] for i in numbers.rhs_spec[2:]]
  patches = jax.lax.conv_general_dilated_patches(
    x.transpose(numbers.lhs_spec),
    window,
    params['window_strides'],
    params['padding'],
    params['lhs_dilation'],
    params['rhs_dilation'],
  )
  # Patches are [batch, channels * prod(window), *sides], channels first.
  groups, channels = params['feature_group_count'], x.shape[numbers.lhs_spec[1]]
  size = math.prod(window)
  flat = jnp.moveaxis(patches, 1, -1).reshape(
    -1, groups, channels // groups, size
  )
  return flat.transpose(1, 0, 3, 2).reshape(
    groups, len(flat), size * channels // groups
  )


def mean(
  x: Array,
  window: Sequence[int] = (),
  strides: Sequence[int] = (),
  padding: Any = 'VALID',
  dilation: Sequence[int] | None = None,
) -> Array:
  r"""Return the mean over the window of each output position of a layer.

  Of a convolution $A * k$, A the mean over the channels and k the box filter
  $1 / (w h)$; what is padded counts as 0 (Rastegari+ 2016, arXiv 1603.05279,
  section 3.2).

  Args:
    x: `[batch, *sides, inputs]`.
    window: Sizes of the kernel along the sides; none for a dense layer.
    strides: Of the convolution.
    padding: As `jax.lax.conv_general_dilated` takes it.
    dilation: Of the kernel.

  Returns:
    `[batch, *sides, 1]`, the sides as the convolution leaves them.

  >>> mean(jnp.array([[[1.0, 3.0], [4.0, 4.0], [0.0, 4.0]]]), (2,), (1,))
  Array([[[3.], [3.]]], dtype=float32)
  """
  x = jnp.mean(x, -1, keepdims=True)
  if not window:
    return x
  box = jnp.full((*window, 1, 1), 1 / math.prod(window), x.dtype)
  sides = 'DHW'[-len(window) :]
  names = (f'N{sides}C', f'{sides}IO', f'N{sides}C')
  return jax.lax.conv_general_dilated(
    x, box, strides, padding, rhs_dilation=dilation, dimension_numbers=names
  )


def mean_of(product: Product) -> Change:
  """Return `mean` for the input of a product, channels last."""
  if product.eqn.primitive.name == 'dot_general':
    return mean
  params = product.eqn.params
  shape = product.eqn.invars[1].aval.shape
  window = [shape[i] for i in params['dimension_numbers'].rhs_spec[2:]]
  return lambda x: mean(
    x,
    window,
    params['window_strides'],
    params['padding'],
    params['rhs_dilation'],
  )


def as_output(product: Product, gain: Array) -> Array:
  """Return an array `[batch, ..., 1]` that broadcasts to the output.

  Args:
    product: Whose output.
    gain: One number for each position, axes as `channels_last` leaves them.
  """
  eqn, rank = product.eqn, product.eqn.outvars[0].aval.ndim
  if eqn.primitive.name != 'dot_general':
    batch, channels, *sides = eqn.params['dimension_numbers'].out_spec
    order = (batch, *sides, channels)
    return gain.transpose([order.index(i) for i in range(rank)])
  wide = rank - (gain.ndim - 1)  # axes that the weight gives
  shape = gain.shape[:-1]
  if product.side == 1:
    return gain.reshape(*shape, *(1,) * wide)
  batched = len(eqn.params['dimension_numbers'][1][0])
  return gain.reshape(*shape[:batched], *(1,) * wide, *shape[batched:])


def _summed(product: Product) -> tuple[int, ...]:
  """Return the axes of the input of a dense layer that are summed over."""
  return tuple(product.eqn.params['dimension_numbers'][0][1 - product.side])


def _others(product: Product, rank: int) -> tuple[int, ...]:
  """Return the batch axes of the input of a dense layer, then the others."""
  batched = product.eqn.params['dimension_numbers'][1][1 - product.side]
  taken = (*batched, *_summed(product))
  return (*batched, *(i for i in range(rank) if i not in taken))
