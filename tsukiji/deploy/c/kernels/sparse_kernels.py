"""Inner loops of products with lists of weights that are not 0."""

LANES = 8  # numbers of a vector
OUTPUTS = 16  # of a matrix, at once
SUMS = 12  # vectors of sums that stay in registers
KINDS = {
  'u8': 'uint8_t',
  'i8': 'int8_t',
  'u16': 'uint16_t',
  'i16': 'int16_t',
  'i32': 'int32_t',
}
SHORT = {kind: key for key, kind in KINDS.items()}


def name(rows: int, columns: int, kind: str) -> str:
  """Return the name of the kernel of some rows of windows."""
  return f'listed_{rows}x{columns}_{SHORT[kind]}'


def matrix_name(kind: str) -> str:
  """Return the name of the kernel of a matrix."""
  return f'listed_{OUTPUTS}x1_{SHORT[kind]}'


def rows_of(rows: int, columns: int, deep: int) -> int:
  """Return how many rows of windows are summed at once.

  Args:
    rows: Of windows.
    columns: Of windows.
    deep: Rows that belong together.

  >>> rows_of(24, 24, 2), rows_of(8, 8, 2)
  (4, 8)
  """
  parts = len(spans(columns))
  fits = [
    n
    for n in range(deep, rows + 1, deep)
    if rows // deep * deep % n == 0 and n * parts <= SUMS
  ]
  return max(fits, default=deep)


def spans(columns: int) -> list[int]:
  """Return where the vectors of a row begin; the last ones may overlap.

  >>> spans(24), spans(10), spans(5)
  ([0, 8, 16], [0, 2], [0, 1])
  """
  wide = width(columns)
  found = [*range(0, columns - wide + 1, wide)]
  if columns % wide:
    found.append(columns - wide)
  return found


def width(columns: int) -> int:
  """Return the numbers of a vector."""
  return LANES if columns >= LANES else LANES // 2


def kernel(rows: int, columns: int, short: str) -> str:
  """Return a kernel as C.

  Args:
    rows: Of windows.
    columns: Of windows, 1 of a matrix.
    short: Type of places, a key of `KINDS`.
  """
  if columns == 1:
    return _matrix(short)
  wide = width(columns)
  kind = 'vector' if wide == LANES else 'half'
  pairs = [(i, at) for i in range(rows) for at in spans(columns)]
  sums = [f's{i}_{at}' for i, at in pairs]
  lines = [
    f's{i}_{at} += w * *(const {kind} *)(x{i} + {at});' for i, at in pairs
  ]
  starts = [
    f'const float *const x{i} = x + places[n]{f" + {i} * row" if i else ""};'
    for i in range(rows)
  ]
  ends = [
    f'*({kind} *)(sums + {columns * i + at}) = s{i}_{at};' for i, at in pairs
  ]
  zeros = ',\n         '.join(f'{x} = {{0}}' for x in sums)
  inner = '\n    '.join([*starts, *lines])
  last = '\n  '.join(ends)
  return f"""\
/* Sums of {rows} rows of {columns} windows, for one output. */
ALONE void listed_{rows}x{columns}_{short}(
    const float *x, int row, const {KINDS[short]} *places,
    const float *weights, int count, float *sums) {{
#if VECTORS
  {kind} {zeros};
  for (int n = 0; n < count; ++n) {{
    const float w = weights[n];
    {inner}
  }}
  {last}
#else
  for (int j = 0; j < {rows * columns}; ++j) sums[j] = 0.0f;
  for (int n = 0; n < count; ++n)
    for (int i = 0; i < {rows}; ++i)
      for (int j = 0; j < {columns}; ++j)
        sums[{columns} * i + j] += weights[n] * x[places[n] + i * row + j];
#endif
}}"""


def _matrix(short: str) -> str:
  """Return the kernel of a matrix: each lane has an output of its own."""
  return f"""\
/* Sums of {OUTPUTS} outputs of a matrix, each with places of its own. */
#if WIDE && !defined(__clang__)
__attribute__((target("prefer-vector-width=256"))) /* gathers of 8 */
#endif
ALONE void listed_{OUTPUTS}x1_{short}(
    const float *x, const {KINDS[short]} *places, const float *weights,
    int count, float *sums) {{
  float all[{OUTPUTS}] = {{0}};
  for (int n = 0; n < count; ++n, places += {OUTPUTS}, weights += {OUTPUTS})
    for (int j = 0; j < {OUTPUTS}; ++j) all[j] += weights[j] * x[places[j]];
  memcpy(sums, all, sizeof all);
}}"""
