"""Products in blocks of neighbors and outputs that stay in registers."""

from typing import NamedTuple

import numpy as np

from tsukiji.deploy.c.kernels import code_kernels, vector_kernels
from tsukiji.deploy.c.kernels.plain_product import strides_of
from tsukiji.deploy.c.kernels.tails import Tile, tail
from tsukiji.deploy.c.plan.steps import Step
from tsukiji.deploy.c.plan.values import FLOAT, Load
from tsukiji.deploy.c.tables import Tables

Lines = list[str]
FEWEST = 8  # outputs for which blocks are faster than single numbers


class Kernel(NamedTuple):
  """The inner loop of a product.

  Attributes:
    name: Of its function.
    neighbors: Windows at once.
    block: Outputs.
    taps: Of a row of a window.
    weights: In its order.
    kind: Type of the weights.
    step: Weights of a tap of one output.
  """

  name: str
  neighbors: int
  block: int
  taps: int
  weights: np.ndarray
  kind: str
  step: int = 1


def fits(step: Step) -> bool:
  """Return whether a product can be computed in blocks."""
  (x,), window = step.reads, step.attrs['window']
  if not isinstance(x, Load) or step.tail is None:
    return False
  if step.attrs['grid'] is not None:
    return True
  _, (_, column, channel) = strides_of(x)
  width, inputs, outputs = window.weights.shape[1:]
  near = inputs == 1 or channel == 1
  whole = width == 1 or (column == inputs and window.dilation[1] == 1)
  kind = step.tail.sums.kind
  return (
    (kind, x.buffer.kind, window.groups) == (FLOAT, FLOAT, 1)
    and near
    and whole
    and outputs >= FEWEST
  )


def _kernel(step: Step) -> Kernel:
  """Return the inner loop for a product."""
  (x,), weights = step.reads, step.attrs['window'].weights
  assert isinstance(x, Load) and step.tail is not None
  _, columns, outputs = step.tail.shape
  height, width, inputs, _ = weights.shape
  count = vector_kernels.best(columns)
  if step.attrs['grid'] is not None:
    block = code_kernels.block(outputs)
    rows = weights.reshape(height, width * inputs, outputs)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4), (0, 0)))
    taps = rows.shape[1] // 4
    fours = rows.reshape(height * taps, 4, outputs)
    packed = blocked(fours.transpose(0, 2, 1), block)
    narrow = code_kernels.is_narrow(
      rows.reshape(-1, outputs), step.attrs['grid'].top
    )
    name = code_kernels.name(count, block, narrow)
    return Kernel(name, count, block, taps, packed, 'int8_t', 4)
  block = vector_kernels.block(count, outputs)
  packed = blocked(weights.reshape(-1, outputs), block)
  name = vector_kernels.name(count, block)
  return Kernel(name, count, block, width * inputs, packed, FLOAT)


def blocked(weights: np.ndarray, block: int) -> np.ndarray:
  """Return weights as blocks of outputs, the last one with zeros.

  Args:
    weights: `[taps, outputs, ...]`.
    block: Outputs of a block.

  >>> blocked(np.arange(6).reshape(2, 3), 2).tolist()
  [[[0, 1], [3, 4]], [[2, 0], [5, 0]]]
  """
  more = [(0, 0)] * weights.ndim
  more[1] = 0, -weights.shape[1] % block
  whole = np.pad(weights, more)
  shape = (len(whole), -1, block, *whole.shape[2:])
  return whole.reshape(shape).swapaxes(0, 1)


def product(step: Step, tables: Tables) -> Lines:
  """Write a product, block by block of its outputs."""
  (x,), window = step.reads, step.attrs['window']
  assert isinstance(x, Load) and step.tail is not None
  kernel = _kernel(step)
  rows, columns, outputs = step.tail.shape
  count, block = kernel.neighbors, kernel.block
  table = tables.add(kernel.weights, kernel.kind, step.path)
  base, (row, column, _) = strides_of(x)
  deep = step.tail.pool.height if step.tail.pool else 1
  column *= window.strides[1]
  sides = (
    column,
    row * window.dilation[0],
    len(window.weights),
    kernel.taps,
  )
  several = outputs > block
  size = kernel.weights[0].size // block
  wide = step.attrs['grid'] is not None and kernel.name.startswith('codes')
  source = 'codes' if wide else x.buffer.name
  first = _place(source, base, row * window.strides[0], deep)
  call = (
    f'{kernel.name}({first} + {column} * at, {", ".join(map(str, sides))}, '
    f'{table}{f" + {size} * o" * several}, sums[i][at]);'
  )
  body = [
    f'for (int r = 0; r < {rows // deep}; ++r) {{',
    f'  for (int i = 0; i < {deep}; ++i)',
    *(f'    {line}' for line in _columns(columns, count, call)),
    *(f'  {line}' for line in _ended(step, tables, kernel, deep)),
    '}',
  ]
  if several:
    body = [
      f'for (int o = 0; o < {outputs}; o += {block}) {{',
      *(f'  {line}' for line in body),
      '}',
    ]
  head = [f'{step.tail.sums.kind} sums[{deep}][{columns}][{block}];']
  if wide:
    head.append(f'WIDENED(codes, {x.buffer.name}, {x.buffer.size});')
  return [*head, *body]


def _place(name: str, base: int, row: int, deep: int) -> str:
  """Return the first input of a row of windows."""
  first = f'{name} + {base}' if base else name
  return f'{first} + {row} * ({deep} * r + i)'


def _columns(columns: int, count: int, call: str) -> Lines:
  """Return a loop over neighbors; the last ones overlap those before."""
  if columns == count:
    return ['{', '  const int at = 0;', f'  {call}', '}']
  last = columns - count
  place = 'j' if columns % count == 0 else f'j < {last} ? j : {last}'
  return [
    f'for (int j = 0; j < {columns}; j += {count}) {{',
    f'  const int at = {place};',
    f'  {call}',
    '}',
  ]


def _ended(step: Step, tables: Tables, kernel: Kernel, deep: int) -> Lines:
  """Return what follows the sums of one block."""
  assert step.tail is not None
  _, columns, outputs = step.tail.shape
  block = kernel.block
  if outputs <= block:
    tile = Tile(deep, columns, outputs, 'sums[{0}][{1}][{2}]', 'r')
    return tail(step, tables, tile)
  tile = Tile(deep, columns, block, 'sums[{0}][{1}][{2}]', 'r', 'o')
  end, loop = tail(step, tables, tile), f'k < {block};'
  if outputs % block == 0:
    return end
  less = f'k < {block} && o + k < {outputs};'
  return [line.replace(loop, less) for line in end]
