"""Inputs of integer products as unsigned codes of 8 bits."""

from typing import NamedTuple

import numpy as np

from tsukiji.deploy.c.formulas import SHRUNK
from tsukiji.deploy.c.plan.steps import Window
from tsukiji.deploy.c.plan.values import Const, Expr, Value, shape_of

GROUP = 4  # taps that kernels read at once
TOP = 127  # the largest weight
WIDEST = 255  # the largest code
FEWEST = 8  # outputs for which blocks are faster than single numbers


class Grid(NamedTuple):
  """Codes of an input.

  Attributes:
    low: The value of code 0.
    top: The largest code.
  """

  low: int
  top: int


def grid(x: Value, window: Window) -> Grid | None:
  """Return the codes of an input; None if it has no such codes.

  Args:
    x: The input of a product, of which the range must be known.
    window: The product.
  """
  _, width, inputs, outputs = window.weights.shape
  odd = window.groups > 1 or outputs < FEWEST
  spread = width > 1 and window.dilation[1] > 1
  if odd or spread or not isinstance(x, Expr):
    return None
  if np.max(np.abs(window.weights), initial=0) > TOP:
    return None
  if x.op in ('rescaled', SHRUNK):
    low, high = x.attrs['low'], x.attrs['high']
  elif x.op == 'rounded':
    low, high = -x.attrs['zero'], x.attrs['top'] - x.attrs['zero']
  else:
    return None
  fits = low <= 0 and high - low <= WIDEST
  return Grid(int(low), int(high - low)) if fits else None


def coded(x: Value, low: int) -> Value:
  """Return values as codes."""
  if low == 0:
    return x
  first = Const(np.broadcast_to(np.int32(low), shape_of(x)), x.kind)
  return Expr('sub', (x, first), x.kind)


def corrected(sums: Value, low: int, window: Window) -> Value:
  """Return sums of products of values, from those of their codes."""
  if low == 0:
    return sums
  weights = window.weights.reshape(-1, window.weights.shape[-1])
  added = low * weights.sum(axis=0, dtype=np.int64)
  wide = np.broadcast_to(added.astype(np.int32), shape_of(sums))
  return Expr('add', (sums, Const(wide, sums.kind)), sums.kind)
