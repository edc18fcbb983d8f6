"""Inner loops over lists of weights, for 8 windows or examples in a vector.

Each output has a list of places of its inputs and of weights. A vector holds
what lies at one place of 8 neighboring windows, or of 8 examples; several such
vectors are summed at once, so that a place and its weights are read once.

Floats are multiplied one by one. Codes of 8 bits are multiplied in fours by
`vpmaddubsw`, whose sums of two products have 16 bits: a chunk is a few fours
whose sums cannot leave 16 bits whatever the codes are, as `chunks` finds them.
"""

import functools
from typing import NamedTuple

LANES = 8
SHORT = {
  'uint8_t': 'u8',
  'int8_t': 'i8',
  'uint16_t': 'u16',
  'int16_t': 'i16',
  'int32_t': 'i32',
}
KINDS = {short: kind for kind, short in SHORT.items()}
VECTORS = {'float': 'vector', 'int32_t': 'wholes'}
STEMS = {'float': 'floats', 'int32_t': 'integers', 'uint8_t': 'fours'}

TYPES = """\
#if FAST
#if defined(__AVX2__)
#include <immintrin.h>
#endif
typedef int32_t wholes __attribute__((vector_size(32), aligned(4), may_alias));
#endif"""


class Inner(NamedTuple):
  """An inner loop.

  Attributes:
    kind: Type of the inputs: 'float', 'int32_t', or 'uint8_t' for fours.
    rows: Of vectors.
    columns: Of vectors.
    unit: Entries of a place.
    down: Entries between rows.
    right: Entries between columns.
    across: Sums of a row.
    outputs: That share places.
    length: Entries of a list at once: sums of their own, or a chunk of fours.
    deep: Rows of which only the maximum is stored.
    broad: Columns, likewise.
    short: Type of places.
  """

  kind: str
  rows: int
  columns: int
  unit: int
  down: int
  right: int
  across: int
  outputs: int
  length: int
  deep: int
  broad: int
  short: str

  @property
  def name(self) -> str:
    """Name of the function."""
    return '_'.join([STEMS[self.kind], *map(str, self[1:])])


def named(stem: str, numbers: str) -> Inner:
  """Return the inner loop of a name."""
  kind = next(kind for kind, text in STEMS.items() if text == stem)
  *sizes, short = numbers.split('_')
  return Inner._make((kind, *map(int, sizes), short))


def kernel(loop: Inner) -> str:
  """Return an inner loop as C."""
  return _fours(loop) if loop.kind == 'uint8_t' else _numbers(loop)


def _vectors(loop: Inner) -> list[tuple[str, int, int]]:
  """Return names of vectors, and where they are read and stored."""
  return [
    (
      f'{i}_{j}',
      loop.down * i + loop.right * j,
      loop.across * i + LANES * j,
    )
    for i in range(loop.rows)
    for j in range(loop.columns)
  ]


def _maxima(loop: Inner) -> list[tuple[str, int]]:
  """Return the maxima of sums of codes, and where they are stored."""
  found = []
  for i in range(loop.rows // loop.deep):
    for j in range(loop.columns // loop.broad):
      own = [
        f's{loop.deep * i + y}_{loop.broad * j + x}'
        for y in range(loop.deep)
        for x in range(loop.broad)
      ]
      text = functools.reduce(lambda a, b: f'_mm256_max_epi32({a}, {b})', own)
      found.append((text, loop.across * i + LANES * j))
  return found


def _plus(text: str, more: int) -> str:
  return f'{text} + {more}' if more else text


def _numbers(loop: Inner) -> str:
  """Return the loop over numbers of 32 bits, with vectors of the compiler."""
  kind, vector, vectors = loop.kind, VECTORS[loop.kind], _vectors(loop)
  every = [(o, u) for o in range(loop.outputs) for u in range(loop.length)]
  sums = [f's{o}_{u}_{at}' for o, u in every for at, _, _ in vectors]
  lines = []
  for u in range(loop.length):
    place = f'places[{_plus("n", u)}]'
    lines.append(f'const {kind} *const x{u} = x + {loop.unit} * {place};')
    for at, read, _ in vectors:
      value = f'*(const {vector} *)({_plus(f"x{u}", read)})'
      if loop.outputs > 1:
        lines.append(f'const {vector} v{u}_{at} = {value};')
        value = f'v{u}_{at}'
      lines += [
        f's{o}_{u}_{at} += weights[{loop.outputs * u + o}] * {value};'
        for o in range(loop.outputs)
      ]
  ends = []
  for o in range(loop.outputs):
    for at, _, to in vectors:
      whole = ' + '.join(f's{o}_{u}_{at}' for u in range(loop.length))
      to += o * loop.rows * loop.across
      ends.append(f'*({vector} *)({_plus("sums", to)}) = {whole};')
  head = _head(loop, kind, f'const {kind} *weights', kind)
  zeros = ',\n         '.join(f'{x} = {{0}}' for x in sums)
  step = loop.length * loop.outputs
  inner, last = '\n    '.join(lines), '\n  '.join(ends)
  return f"""\
{head}
  {vector} {zeros};
  for (int n = 0; n < count; n += {loop.length}, weights += {step}) {{
    {inner}
  }}
  {last}
}}"""


def _head(loop: Inner, kind: str, weights: str, sums: str) -> str:
  return f"""\
/* Sums of {loop.rows} x {loop.columns} vectors, of places with weights. */
ALONE void {loop.name}(
    const {kind} *x, const {KINDS[loop.short]} *places, {weights},
    int count, {sums} *sums) {{"""


def _fours(loop: Inner) -> str:
  """Return the loop over chunks of fours, in the instructions of AVX2."""
  vectors, n = _vectors(loop), loop.length
  zeros = ',\n          '.join(
    f's{at} = _mm256_setzero_si256()' for at, _, _ in vectors
  )
  lines = ['__m256i ' + ', '.join(f't{at}' for at, _, _ in vectors) + ';']
  for m in range(n):
    lines += [
      f'const uint8_t *const x{m} = x + {loop.unit} * places[{m}];',
      f'const __m256i w{m} = _mm256_set1_epi32(weights[{m}]);',
    ]
    for at, read, _ in vectors:
      where = f'(const __m256i *)({_plus(f"x{m}", read)})'
      product = f'_mm256_maddubs_epi16(_mm256_loadu_si256({where}), w{m})'
      both = f'_mm256_add_epi16(t{at}, {product})' if m else product
      lines.append(f't{at} = {both}; KEEP(t{at});')
  lines += [
    f's{at} = _mm256_add_epi32(s{at}, _mm256_madd_epi16(t{at}, ones));'
    for at, _, _ in vectors
  ]
  ends = [
    f'_mm256_storeu_si256((__m256i *)({_plus("sums", to)}), {text});'
    for text, to in _maxima(loop)
  ]
  head = _head(loop, 'uint8_t', 'const int32_t *weights', 'int32_t')
  inner, last = '\n    '.join(lines), '\n  '.join(ends)
  return f"""\
{head}
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i {zeros};
  for (int n = 0; n < count; ++n, places += {n}, weights += {n}) {{
    {inner}
  }}
  {last}
}}"""
