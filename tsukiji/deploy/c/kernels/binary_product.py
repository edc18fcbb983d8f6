r"""Products of signs: $n - 2\,\mathrm{popcount}(a \oplus b)$ of their bits.

Courbariaux & Hubara+ 2016, arXiv 1602.02830, section 4; the sums are those of
`integer.popcount`.
"""

from typing import NamedTuple

import numpy as np

from tsukiji.deploy.c import indices
from tsukiji.deploy.c.kernels.nests import Loops, indented, opened
from tsukiji.deploy.c.kernels.tails import Tile, tail
from tsukiji.deploy.c.plan import signs
from tsukiji.deploy.c.plan.signs import BITS
from tsukiji.deploy.c.plan.steps import Step
from tsukiji.deploy.c.plan.values import FLOAT, Load
from tsukiji.deploy.c.tables import Tables

Lines = list[str]
BLOCK = 64  # outputs whose sums are in registers


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


class _Taps(NamedTuple):
  """Taps of the window in row `deep * r + i` and column `j`, as C.

  Attributes:
    before: Lines that tell which taps meet the input.
    rows: The first of these and the one after the last, along rows.
    words: Likewise along columns, in words.
    word: The word of the input at tap `y` and word `n` of a row.
    place: Of the word of weights there, among those of an output.
    total: How many numbers are multiplied.
  """

  before: Lines
  rows: tuple[str, str]
  words: tuple[str, str]
  word: str
  place: str
  total: str

  def loops(self, body: Lines) -> Lines:
    """Return lines that are run for each word of the taps."""
    return [
      f'for (int y = {self.rows[0]}; y < {self.rows[1]}; ++y)',
      f'  for (int n = {self.words[0]}; n < {self.words[1]}; ++n) {{',
      *indented(indented(body)),
      '  }',
    ]


def _taps(step: Step, x: Load, deep: int) -> _Taps:
  window, border = step.attrs['window'], step.attrs['border']
  height, width, inputs, _ = window.weights.shape
  tall, wide, count = x.places.shape
  (top, _), (left, _) = border
  down, right = window.strides
  line, across = wide * count, width * count
  at = indices.formula(
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
  found = _Taps(
    [],
    ('0', str(height)),
    ('0', str(across)),
    f'{x.buffer.name}[{at}]',
    f'{across} * y + n',
    str(height * width * inputs),
  )
  if not any(map(any, border)):
    return found
  return found._replace(
    before=[
      *_inside('y', f'{top} - {down} * ({deep} * r + i)', height, tall),
      *_inside('x', f'{left} - {right} * j', width, wide),
    ],
    rows=('y0', 'y1'),
    words=(f'{count} * x0', f'{count} * x1'),
    total=f'(y1 - y0) * (x1 - x0) * {inputs}',
  )


def product(step: Step, tables: Tables) -> Lines:
  """Write a product of packed signs, window by window.

  Zeros around the input are not stored: their taps are left out. Where there
  are vectors, each holds neighboring outputs.
  """
  (x,), window = step.reads, step.attrs['window']
  assert isinstance(x, Load) and step.tail is not None
  outputs = window.weights.shape[3]
  rows, columns, _ = step.tail.shape
  deep = step.tail.pool.height if step.tail.pool else 1
  taps = _taps(step, x, deep)
  bits = words(np.moveaxis(window.weights > 0, 3, 0))
  bits = bits.reshape(outputs, -1)
  is_small = step.attrs['is_small']
  table = tables.add(bits if is_small else bits.T, 'uint32_t', step.path)
  scales = signs.scales(window)
  assert scales is not None
  own = f'{table}[{bits.shape[1]} * k + {taps.place}]'
  value, gain = f'({taps.total} - 2 * {{}})', ''
  if np.any(scales != 1):
    gain = f'{tables.add(scales, FLOAT, step.path)}[k] * '
  if is_small:
    inner = [
      f'for (int k = 0; k < {outputs}; ++k) {{',
      '  int unlike = 0;',
      *indented(taps.loops([f'unlike += bits_set({taps.word} ^ {own});'])),
      f'  sums[i][j][k] = {gain}(float){value.format("unlike")};',
      '}',
    ]
  else:
    inner = _in_blocks(taps, table, outputs, f'{gain}(float){value}')
  tile = Tile(deep, columns, outputs, 'sums[{0}][{1}][{2}]', 'r')
  return [
    f'float sums[{deep}][{columns}][{outputs}];',
    f'for (int r = 0; r < {rows // deep}; ++r) {{',
    f'  for (int i = 0; i < {deep}; ++i)',
    f'    for (int j = 0; j < {columns}; ++j) {{',
    *indented(indented(indented([*taps.before, *inner]))),
    '    }',
    *indented(tail(step, tables, tile)),
    '}',
  ]


def _in_blocks(taps: _Taps, table: str, outputs: int, value: str) -> Lines:
  """Write the sums of one window, a block of outputs at a time."""
  block = max(n for n in range(1, BLOCK + 1) if outputs % n == 0)
  every = f'for (int m = 0; m < {block}; ++m)'
  value = value.replace('[k]', '[k + m]').format('unlike[m]')
  return [
    f'for (int k = 0; k < {outputs}; k += {block}) {{',
    f'  int32_t unlike[{block}] = {{0}};',
    *indented(
      taps.loops(
        [
          f'const uint32_t word = {taps.word};',
          f'const uint32_t *own = {table} + {outputs} * ({taps.place}) + k;',
          f'count_unlike(unlike, word, own, {block});',
        ]
      )
    ),
    f'  {every} sums[i][j][k + m] = {value};',
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
