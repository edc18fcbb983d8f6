r"""Products of signs: $n - 2\,\mathrm{popcount}(a \oplus b)$ of their bits.

Courbariaux & Hubara+ 2016, arXiv 1602.02830, section 4; the sums are those of
`integer.popcount`.
"""

import numpy as np

from tsukiji.deploy.c import indices
from tsukiji.deploy.c.kernels.nests import Loops, indented, opened
from tsukiji.deploy.c.kernels.tails import Tile, tail
from tsukiji.deploy.c.plan.signs import BITS
from tsukiji.deploy.c.plan.steps import Step
from tsukiji.deploy.c.plan.values import Load
from tsukiji.deploy.c.tables import Tables

Lines = list[str]


def words(bits: np.ndarray) -> np.ndarray:
  """Pack bits along the last axis into words, the first in the lowest bit.

  >>> words(np.array([[1, 0, 1]])).tolist()
  [[5]]
  """
  more = [(0, 0)] * (bits.ndim - 1) + [(0, -bits.shape[-1] % BITS)]
  whole = np.pad(bits, more).reshape(*bits.shape[:-1], -1, BITS)
  shifted = whole.astype(np.uint64) << np.arange(BITS, dtype=np.uint64)
  return shifted.sum(axis=-1).astype(np.uint32)


def pack(step: Step, tables: Tables) -> Lines:
  """Write what packs bytes of 0 and 1 into words."""
  (x,), words_ = step.reads, step.buffer.name
  assert isinstance(x, Load)
  pixels, channels = x.places.shape
  count = step.buffer.size // pixels
  bit = f'(uint32_t){x.buffer.name}[{channels} * p + c] << (c & {BITS - 1})'
  return opened(
    Loops((pixels,), ('p',)) if pixels > 1 else Loops((), ()),
    [
      *(['const int p = 0;'] if pixels == 1 else []),
      f'memset({words_} + {count} * p, 0, {4 * count});',
      f'for (int c = 0; c < {channels}; ++c)',
      f'  {words_}[{count} * p + c / {BITS}] |= {bit};',
    ],
  )


def product(step: Step, tables: Tables) -> Lines:
  """Write a product of packed signs, window by window.

  Zeros around the input are not stored: their taps are left out.
  """
  (x,), window = step.reads, step.attrs['window']
  assert isinstance(x, Load) and step.tail is not None
  height, width, inputs, _ = window.weights.shape
  rows, columns, outputs = step.tail.shape
  deep = step.tail.pool.height if step.tail.pool else 1
  packed = words(np.moveaxis(window.weights > 0, 3, 0))
  table = tables.add(packed, 'uint32_t', step.path)
  deepest, widest, count = x.places.shape
  across, line = width * count, widest * count
  (top, _), (left, _) = border = step.attrs['border']
  down, right = window.strides
  spot = indices.formula(
    indices.Affine(
      -top * line - left * count,
      (
        line * down * deep,
        line * down,
        count * right,
        line * window.dilation[0],
        1,
      ),
    ),
    ('r', 'i', 'j', 'y', 'n'),
  )
  own = f'{table}[{height * across} * k + {across} * y + n]'
  taps, ends = (
    f'{height * width * inputs}',
    ('0', str(height), '0', str(across)),
  )
  before: Lines = []
  if any(map(any, border)):
    ends = 'y0', 'y1', f'{count} * x0', f'{count} * x1'
    taps = f'(y1 - y0) * (x1 - x0) * {inputs}'
    before = [
      *_inside('y', f'{top} - {down} * ({deep} * r + i)', height, deepest),
      *_inside('x', f'{left} - {right} * j', width, widest),
    ]
  sums = [
    'int unlike = 0;',
    f'for (int y = {ends[0]}; y < {ends[1]}; ++y)',
    f'  for (int n = {ends[2]}; n < {ends[3]}; ++n)',
    f'    unlike += bits_set({x.buffer.name}[{spot}] ^ {own});',
    f'sums[i][j][k] = (float)({taps} - 2 * unlike);',
  ]
  tile = Tile(deep, columns, outputs, 'sums[{0}][{1}][{2}]', 'r')
  loops = f'for (int i = 0; i < {deep}; ++i)'
  return [
    f'float sums[{deep}][{columns}][{outputs}];',
    f'for (int r = 0; r < {rows // deep}; ++r) {{',
    f'  {loops}',
    f'    for (int j = 0; j < {columns}; ++j) {{',
    *indented(indented(indented(before))),
    f'      for (int k = 0; k < {outputs}; ++k) {{',
    *indented(indented(indented(indented(sums)))),
    '      }',
    '    }',
    *indented(tail(step, tables, tile)),
    '}',
  ]


def _inside(name: str, first: str, taps: int, size: int) -> Lines:
  """Write which taps of a window meet the input along a side.

  Args:
    name: Of the tap, 'y' or 'x'.
    first: C of the tap that meets entry 0.
    taps: Of the window along the side.
    size: Of the input along it.
  """
  ends = f'{name}_', f'{name}_ + {size}'
  return [
    f'const int {name}_ = {first};',
    *(
      f'const int {name}{i} = {x} < 0 ? 0 : {x} > {taps} ? {taps} : {x};'
      for i, x in enumerate(ends)
    ),
  ]
