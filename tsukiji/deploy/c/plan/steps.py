"""The steps in which a C file computes a network."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tsukiji.deploy.c.plan.values import Buffer, Load, Value, loads


class Step(NamedTuple):
  """One loop over a network's numbers, a function of the file.

  Attributes:
    kind: Name in the table of what writes it.
    buffer: What it writes.
    places: There, of the shape of its result.
    reads: What it reads.
    attrs: Its settings.
    path: Of the weight that it multiplies, or ''.
    tail: What is done with each of its results.
    border: What the buffer holds where nothing is stored, or None.
  """

  kind: str
  buffer: Buffer
  places: np.ndarray
  reads: tuple[Value, ...] = ()
  attrs: Mapping[str, Any] = {}
  path: str = ''
  tail: 'Tail | None' = None
  border: float | None = None

  @property
  def sources(self) -> tuple[Buffer, ...]:
    """Buffers that it reads."""
    found = {x.buffer: None for value in self.reads for x in loads(value)}
    for value in self.tail.values if self.tail else ():
      found |= {x.buffer: None for x in loads(value)}
    own = (self.tail.sums, self.tail.pooled) if self.tail else ()
    return tuple(x for x in found if x not in own)


class Ends(NamedTuple):
  """What the caller of a file gives.

  Attributes:
    inputs: What is read.
    outputs: What is written.
  """

  inputs: tuple[Buffer, ...]
  outputs: tuple[Buffer, ...]

  @property
  def all(self) -> tuple[Buffer, ...]:
    """Both."""
    return (*self.inputs, *self.outputs)


class Pool(NamedTuple):
  """Windows without overlap over the first two axes of a product.

  Attributes:
    op: What joins the numbers of a window: 'max', 'min' or 'add'.
    height: Of a window.
    width: Of a window.
  """

  op: str
  height: int
  width: int


class Tail(NamedTuple):
  """What follows a product without being stored before.

  Attributes:
    sums: Stands for a result of the product in `before`.
    shape: Of the product: rows, columns, channels.
    before: Function of a result.
    pool: Windows of these, or None.
    pooled: Stands for a result of windows in `after`.
    after: Function of a result of windows, or None.
  """

  sums: Buffer
  shape: tuple[int, ...]
  before: Value
  pool: Pool | None = None
  pooled: Buffer | None = None
  after: Value | None = None

  @property
  def values(self) -> tuple[Value, ...]:
    """Both functions."""
    return (self.before,) if self.after is None else (self.before, self.after)


def identity(buffer: Buffer, shape: tuple[int, ...], kind: str) -> Load:
  """Return an array that fills a buffer, perhaps but for its end."""
  places = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
  return Load(buffer, places, kind)


def order(load: Load, size: int) -> np.ndarray | None:
  """Return where each entry of a buffer is in an array of all; else None."""
  flat = load.places.ravel()
  if flat.size != size:
    return None
  found = np.full(size, -1, np.int64)
  found[flat] = np.arange(size)
  return None if np.any(found < 0) else found


class Window(NamedTuple):
  """A product of a constant kernel with windows of an input.

  Attributes:
    weights: `[rows, columns, inputs of a group, outputs]`.
    strides: Of windows, rows and columns.
    dilation: Between the entries of a window.
    groups: Of channels.
  """

  weights: np.ndarray
  strides: tuple[int, int] = (1, 1)
  dilation: tuple[int, int] = (1, 1)
  groups: int = 1

  def after(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the shape of the result for an input `[rows, columns, inputs]`."""
    sides = (
      (n - (k - 1) * d - 1) // s + 1
      for n, k, s, d in zip(
        shape, self.weights.shape, self.strides, self.dilation, strict=False
      )
    )
    rows, columns = sides
    return max(rows, 0), max(columns, 0), self.weights.shape[3]
