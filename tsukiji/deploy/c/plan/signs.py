"""Products of signs with signs: their inputs as bits, 32 to a word."""

import math
from typing import Any

import numpy as np

from tsukiji.deploy.c.plan.planning import Planner
from tsukiji.deploy.c.plan.steps import Step, Window, identity
from tsukiji.deploy.c.plan.values import (
  CODE,
  Const,
  Expr,
  Load,
  Value,
  shape_of,
)

BITS, WORD = 32, 'uint32_t'


def positive(x: Value, window: Window) -> Value | None:
  """Return where signs are +1; None if a product is not one of signs.

  Signs are written as `x >= 0 ? 1 : (x < 0 ? -1 : x)`. Those of weights may
  have a scale for each output.

  Args:
    x: The input of a product.
    window: The product.
  """
  if window.groups > 1 or scales(window) is None:
    return None
  if window.weights.shape[1] > 1 and window.dilation[1] > 1:
    return None
  first = _chosen(x, 'ge', 1)
  second = _chosen(first[1], 'lt', -1) if first else None
  if first is None or second is None or second[1] is not second[0].args[0]:
    return None
  return first[0] if first[0].args[0] is second[1] else None


def scales(window: Window) -> np.ndarray | None:
  """Return what signs of weights are times, `[outputs]`; None if no signs are.

  >>> scales(Window(np.array([[[[-2.0, 1.0], [2.0, 1.0]]]])))
  array([2., 1.])
  """
  sizes = np.abs(window.weights)
  found: np.ndarray = sizes[0, 0, 0]
  return found if np.all((sizes == found) & (found > 0)) else None


def _chosen(x: Value, op: str, number: int) -> tuple[Expr, Value] | None:
  """Return the comparison with 0 and the rest of `x op 0 ? number : rest`."""
  if not isinstance(x, Expr) or x.op != 'select':
    return None
  test, rest, chosen = x.args
  if not isinstance(test, Expr) or test.op != op:
    return None
  known = [(chosen, number), (test.args[1], 0)]
  same = all(isinstance(a, Const) and np.all(a.array == b) for a, b in known)
  return (test, rest) if same else None


def may_border(window: Window, widths: Any) -> bool:
  """Return whether the kernel can leave out the taps that meet a border.

  Args:
    window: The product.
    widths: Zeros before, after and between rows, columns and channels.
  """
  return window.dilation == (1, 1) and not any(c for _, _, c in widths)


def packed(planner: Planner, x: Value) -> Load:
  """Append a step that packs bits and return them in memory.

  Args:
    planner: The planner.
    x: 1 where a sign is positive, `[rows, columns, channels]`.

  Returns:
    Words, `[rows, columns, words]`; bits behind the last channel are 0.
  """
  shape = rows, columns, channels = shape_of(x)
  count = -(-channels // BITS)
  bits = planner.buffer(math.prod(shape), CODE)
  planner.put(x, bits, np.arange(bits.size, dtype=np.int32).reshape(shape))
  words = planner.buffer(rows * columns * count, WORD)
  found = identity(words, (rows, columns, count), WORD)
  read = identity(bits, (rows * columns, channels), CODE)
  planner.add(Step('pack', words, found.places, (read,)))
  return found
