"""Products in blocks of neighbors and outputs that stay in registers."""

from typing import NamedTuple

import numpy as np

from tsukiji.deploy.c import indices
from tsukiji.deploy.c.indices import Affine
from tsukiji.deploy.c.kernels import (
  code_kernels,
  packed_weights,
  tile_kernels,
  vector_kernels,
)
from tsukiji.deploy.c.kernels.nests import Loops, indented, opened
from tsukiji.deploy.c.kernels.plain_product import strides_of
from tsukiji.deploy.c.kernels.tails import Tile, tail
from tsukiji.deploy.c.plan.steps import Step
from tsukiji.deploy.c.plan.values import CODE, FLOAT, Load
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
    bits: Of a weight that is packed with others, 0 if it is not.
    tiles: A kernel of the same sums by tiles, where there are some.
  """

  name: str
  neighbors: int
  block: int
  taps: int
  weights: np.ndarray
  kind: str
  bits: int = 0
  tiles: 'Kernel | None' = None


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
    kernel = Kernel(name, count, block, taps, packed, 'int8_t')
    size = packed_weights.bits(packed)
    if size < code_kernels.BITS and step.attrs['is_small']:
      kernel = kernel._replace(
        name=packed_weights.name(count, block, size),
        weights=packed_weights.packed(packed, size),
        kind=CODE,
        bits=size,
      )
    return kernel._replace(tiles=_tiles(step, kernel))
  block = vector_kernels.block(count, outputs)
  packed = blocked(weights.reshape(-1, outputs), block)
  name = vector_kernels.name(count, block)
  return Kernel(name, count, block, width * inputs, packed, FLOAT)


def _tiles(step: Step, kernel: Kernel) -> Kernel | None:
  """Return the kernel by tiles that is faster than another, None if none is."""
  assert step.tail is not None
  rows, columns, _ = step.tail.shape
  height = len(step.attrs['window'].weights)
  if not tile_kernels.pays((rows, columns), height, kernel.taps):
    return None
  return kernel._replace(
    name=tile_kernels.name(kernel.block),
    neighbors=tile_kernels.windows(columns),
  )


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
  (x,) = step.reads
  assert isinstance(x, Load) and step.tail is not None
  kernel = _kernel(step)
  rows, columns, outputs = step.tail.shape
  block = kernel.block
  deep = step.tail.pool.height if step.tail.pool else 1
  wide = step.attrs['grid'] is not None and kernel.name.startswith('codes')
  table = tables.add(kernel.weights, kernel.kind, step.path)
  if outputs > block:
    table += f' + {kernel.weights[0].size // block} * o'
  source = 'codes' if wide else x.buffer.name
  before = []
  if kernel.bits:
    size = kernel.weights[0].size * 8 // kernel.bits
    before = [f'UNPACKED(whole, {table}, {size}, unpacked_{kernel.bits});']
    table = 'whole'
  sums = _summed(step, kernel, source, table)
  if kernel.tiles:
    sums = [
      'if (is_tiled) {',
      *indented(_summed(step, kernel.tiles, source, table)),
      '} else {',
      *indented(sums),
      '}',
    ]
  outer = Loops((rows // deep,), ('r',))
  ends = _ended(step, tables, kernel, deep)
  body = [*before, *opened(outer, [*sums, *ends])]
  if outputs > block:
    body = [
      f'for (int o = 0; o < {outputs}; o += {block}) {{',
      *indented(body),
      '}',
    ]
  head = [f'{step.tail.sums.kind} sums[{deep}][{columns}][{block}];']
  if wide:
    head.append(f'WIDENED(codes, {x.buffer.name}, {x.buffer.size});')
  if kernel.tiles:
    shape = kernel.tiles.neighbors, tile_kernels.rest(kernel.taps)
    head.append(f'const int is_tiled = tiles{shape};')
    body.append('TILES_END(is_tiled);')
  return [*head, *body]


def _summed(step: Step, kernel: Kernel, source: str, table: str) -> Lines:
  """Return loops over the rows and columns whose sums follow at once."""
  (x,), window = step.reads, step.attrs['window']
  assert isinstance(x, Load) and step.tail is not None
  base, (row, column, _) = strides_of(x)
  rows, columns, _ = step.tail.shape
  deep, count = step.tail.pool.height if step.tail.pool else 1, kernel.neighbors
  whole, last = columns % count == 0, columns - count
  at = ('j' if whole else 'at') if last else ''
  names = ('r' if rows // deep > 1 else '', 'i' if deep > 1 else '', at)
  down, right = row * window.strides[0], column * window.strides[1]
  place = indices.formula(Affine(base, (deep * down, down, right)), names)
  height, below = len(window.weights), row * window.dilation[0]
  first = source if place == '0' else f'{source} + {place}'
  line = (
    f'{kernel.name}({first}, {right}, {below}, {height}, '
    f'{kernel.taps}, {table}, sums[{names[1] or 0}][{at or 0}]);'
  )
  lines = [line]
  if last:
    lines = [
      f'for (int j = 0; j < {columns}; j += {count}) {{',
      *([] if whole else [f'  const int at = j < {last} ? j : {last};']),
      f'  {line}',
      '}',
    ]
  return opened(Loops((deep,), ('i',)), lines)


def _ended(step: Step, tables: Tables, kernel: Kernel, deep: int) -> Lines:
  """Return what follows the sums of one block."""
  assert step.tail is not None
  rows, columns, outputs = step.tail.shape
  block, row = kernel.block, 'r' if rows // deep > 1 else ''
  if outputs <= block:
    tile = Tile(deep, columns, outputs, 'sums[{0}][{1}][{2}]', row)
    return tail(step, tables, tile)
  tile = Tile(deep, columns, block, 'sums[{0}][{1}][{2}]', row, 'o')
  end, loop = tail(step, tables, tile), f'k < {block};'
  if outputs % block == 0:
    return end
  less = f'k < {block} && o + k < {outputs};'
  return [line.replace(loop, less) for line in end]
