r"""Products of signs: $n - 2\,\mathrm{popcount}(a \oplus b)$ of their bits.

Courbariaux & Hubara+ 2016, arXiv 1602.02830, section 4; the sums are those of
`integer.popcount`.
"""

import numpy as np

from tsukiji.deploy.c import indices
from tsukiji.deploy.c.kernels.nests import Loops, indented, opened
from tsukiji.deploy.c.kernels.plain_product import strides_of
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
  """Write a product of packed signs, window by window."""
  (x,), window = step.reads, step.attrs['window']
  assert isinstance(x, Load) and step.tail is not None
  height, width, inputs, _ = window.weights.shape
  rows, columns, outputs = step.tail.shape
  deep = step.tail.pool.height if step.tail.pool else 1
  packed = words(np.moveaxis(window.weights > 0, 3, 0))
  table = tables.add(packed, 'uint32_t', step.path)
  across = packed[0, 0].size
  base, (row, column, _) = strides_of(x)
  spot = indices.formula(
    indices.Affine(
      base,
      (
        row * window.strides[0] * deep,
        row * window.strides[0],
        column * window.strides[1],
        row * window.dilation[0],
        1,
      ),
    ),
    ('r', 'i', 'j', 'y', 'n'),
  )
  own = f'{table}[{height * across} * k + {across} * y + n]'
  sums = [
    'int unlike = 0;',
    f'for (int y = 0; y < {height}; ++y)',
    f'  for (int n = 0; n < {across}; ++n)',
    f'    unlike += bits_set({x.buffer.name}[{spot}] ^ {own});',
    f'sums[i][j][k] = (float)({height * width * inputs} - 2 * unlike);',
  ]
  tile = Tile(deep, columns, outputs, 'sums[{0}][{1}][{2}]', 'r')
  loops = f'for (int i = 0; i < {deep}; ++i)'
  return [
    f'float sums[{deep}][{columns}][{outputs}];',
    f'for (int r = 0; r < {rows // deep}; ++r) {{',
    f'  {loops}',
    f'    for (int j = 0; j < {columns}; ++j)',
    f'      for (int k = 0; k < {outputs}; ++k) {{',
    *indented(indented(indented(indented(sums)))),
    '      }',
    *indented(tail(step, tables, tile)),
    '}',
  ]
