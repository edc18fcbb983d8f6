"""What a C file does for one example on a device: products, and bytes moved.

Counted from the loops of the kernels for processors without vectors: what an
inner loop reads is counted each time, what stays in registers once; constants
behind a product are counted with its weights. Caches are left out, as most
microcontrollers have none.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tsukiji.deploy.c.kernels import (
  code_kernels,
  dense_product,
  sparse_kernels,
  vector_kernels,
)
from tsukiji.deploy.c.plan.loops import BEGIN, END
from tsukiji.deploy.c.plan.signs import BITS
from tsukiji.deploy.c.plan.steps import Step
from tsukiji.deploy.c.plan.values import CODE, FLOAT, SIZES, Load


class Work(NamedTuple):
  """The work of a step, for one example.

  Attributes:
    products: Multiply-accumulates; of signs, words of 32.
    kind: Their operands: 'fp32', 'int8', 'int32', or 'bits' for signs.
    flash: Bytes read of constants.
    loads: Bytes read of memory.
    stores: Bytes written to memory.
  """

  products: int = 0
  kind: str = ''
  flash: int = 0
  loads: int = 0
  stores: int = 0


def works(steps: Sequence[Step], sizes: Sequence[int]) -> list[Work]:
  """Return the work of each step; those in loops are done in each turn.

  Args:
    steps: For one example.
    sizes: Bytes of their constants.
  """
  found, turns = [], [1]
  for step, size in zip(steps, sizes, strict=True):
    if step.kind == BEGIN:
      turns.append(turns[-1] * step.attrs['loop'].length)
    one = Work() if step.kind in (BEGIN, END) else _work(step, size)
    n = turns[-1]
    found.append(
      Work(
        n * one.products, one.kind, n * one.flash, n * one.loads, n * one.stores
      )
    )
    if step.kind == END:
      turns.pop()
  return found


def _work(step: Step, size: int) -> Work:
  stores = step.places.size * SIZES[step.buffer.kind]
  if step.kind != 'product':
    read = sum(x.size * SIZES[x.kind] for x in step.sources)
    return Work(flash=size, loads=read, stores=stores)
  (x,), weights = step.reads, step.attrs['window'].weights
  assert isinstance(x, Load) and step.tail is not None
  rows, columns, outputs = step.tail.shape
  windows, taps = rows * columns, weights[..., 0].size
  entry = SIZES[x.buffer.kind]
  kind = 'fp32' if x.buffer.kind == FLOAT else 'int32'
  each, passes, shared = windows * taps * outputs, windows, 1
  if step.attrs['is_binary']:
    kind = 'bits'
    words = math.prod(weights.shape[:2]) * -(-weights.shape[2] // BITS)
    each = windows * words * outputs
  elif step.attrs['is_sparse']:
    each = windows * int(np.count_nonzero(weights))
    deep = step.tail.pool.height if step.tail.pool else 1
    down = sparse_kernels.rows_of(rows, columns, deep) if columns > 1 else 1
    passes = -(-rows // down)
  elif dense_product.fits(step):
    near = vector_kernels.best(columns)
    is_code = x.buffer.kind == CODE
    block = (
      code_kernels.block(outputs)
      if is_code
      else vector_kernels.block(near, outputs)
    )
    kind, shared = 'int8' if is_code else kind, min(block, outputs)
    passes = rows * -(-columns // near)
  return Work(each, kind, size * passes, entry * each // shared, stores)
