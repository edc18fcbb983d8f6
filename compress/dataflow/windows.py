"""Convolutions that are faster as products of matrices.

XLA on a CPU computes some convolutions one number after another, many times
more slowly than as the product of their patches with the kernel: those with a
window larger than their input or output, and in loops the gradients of all.
"""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from compress.dataflow import interpreter
from compress.tree import Array

POSITIONS = 64  # of a window, at most: each is a slice in the program
MACS = 2**21  # of an example, at least: smaller convolutions stay as they are


def multiplied(eqn: Any, operands: tuple[Array, Array]) -> Array:
  """Return what a product gives, by its patches where a window is large.

  A window is large if it exceeds the input or the output on a side. Only
  convolutions of `MACS` multiplications an example or more, without groups,
  dilated inputs and windows of more than `POSITIONS` positions are changed.

  Args:
    eqn: `dot_general` or `conv_general_dilated`.
    operands: Of the shapes that the equation has.

  Returns:
    The same bits as those of the equation, but where patches are taken, which
    sum the same products in another order.
  """
  wanted = _has_matrices(eqn) and _is_large(eqn)
  return (_as_matrices if wanted else interpreter.computed)(eqn, operands)


def in_loop(eqn: Any, operands: tuple[Array, Array]) -> Array:
  """Return what a product gives, by its patches whatever the window.

  For gradients of few examples inside a loop: patches take as many times the
  memory of an input as a window has positions. See `multiplied`.
  """
  wanted = _has_matrices(eqn)
  return (_as_matrices if wanted else interpreter.computed)(eqn, operands)


def _has_matrices(eqn: Any) -> bool:
  """Return whether an equation is a convolution that may be changed."""
  if eqn.primitive.name != 'conv_general_dilated':
    return False
  p, numbers = eqn.params, eqn.params['dimension_numbers']
  kernel, out = eqn.invars[1].aval.shape, eqn.outvars[0].aval.shape
  positions = math.prod(kernel[i] for i in numbers.rhs_spec[2:])
  uses = math.prod(out[i] for i in numbers.out_spec[2:])
  return (
    p['feature_group_count'] == p['batch_group_count'] == 1
    and all(n == 1 for n in p['lhs_dilation'])
    and positions <= POSITIONS
    and uses * math.prod(kernel) >= MACS
  )


def _is_large(eqn: Any) -> bool:
  """Return whether a window is larger than the input or the output."""
  p, numbers = eqn.params, eqn.params['dimension_numbers']
  x, kernel = (v.aval.shape for v in eqn.invars)
  out = eqn.outvars[0].aval.shape
  specs = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec)
  sides = zip(*(spec[2:] for spec in specs), p['rhs_dilation'], strict=True)
  return any(
    (kernel[j] - 1) * apart + 1 > min(x[i], out[k]) for i, j, k, apart in sides
  )


def _as_matrices(eqn: Any, operands: tuple[Array, Array]) -> Array:
  """Return a convolution as the product of its patches with the kernel."""
  x, w = operands
  p, numbers = eqn.params, eqn.params['dimension_numbers']
  batch, channels, *space = numbers.lhs_spec
  x = x.transpose(batch, *space, channels)
  outputs, inputs, *space = numbers.rhs_spec
  w = w.transpose(*space, inputs, outputs)
  batch, channels, *space = numbers.out_spec
  sides = [eqn.outvars[0].aval.shape[i] for i in space]
  around = ((0, 0, 0), *((*ends, 0) for ends in p['padding']), (0, 0, 0))
  x = jax.lax.pad(x, jnp.zeros((), x.dtype), around)
  patches = []
  for at in itertools.product(*map(range, w.shape[:-2])):
    first = [i * apart for i, apart in zip(at, p['rhs_dilation'], strict=True)]
    last = [
      i + (n - 1) * stride + 1
      for i, n, stride in zip(first, sides, p['window_strides'], strict=True)
    ]
    limits = (x.shape[0], *last, x.shape[-1])
    strides = (1, *p['window_strides'], 1)
    patches.append(jax.lax.slice(x, (0, *first, 0), limits, strides))
  y = jax.lax.dot_general(
    jnp.concatenate(patches, axis=-1),
    w.reshape(-1, w.shape[-1]),
    (((x.ndim - 1,), (0,)), ((), ())),
    precision=p['precision'],
    preferred_element_type=p['preferred_element_type'],
  )
  return y.transpose(np.argsort((batch, *space, channels)))
