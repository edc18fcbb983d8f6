"""Inner loops of dense products, in registers: sums of a few neighbors at once.

A kernel sums, for `count` neighboring windows and one block of outputs, all the
products of the windows with the weights of the block. GCC and Clang keep the
sums in vector registers; without them the same function is plain loops.
"""

LANES = 8  # numbers of a vector
OUTPUTS = 16  # of a block of several windows
MOST = 6  # neighbors: 12 sums, 2 weights and an input fill 16 registers
ROW = 64  # outputs of a block of one window, at most

TYPES = """\
#if defined(__GNUC__) && (defined(__SSE__) || defined(__ARM_NEON))
#define VECTORS 1
typedef float vector
    __attribute__((vector_size(32), aligned(4), may_alias));
typedef float half __attribute__((vector_size(16), aligned(4), may_alias));
#else
#define VECTORS 0
#endif
#if VECTORS && defined(__AVX512F__)
#define WIDE 1
typedef float wide __attribute__((vector_size(64), aligned(4), may_alias));
#else
#define WIDE 0
#endif"""


def name(count: int, width: int) -> str:
  """Return the name of the kernel of some neighbors and outputs."""
  return f'dense_{count}x{width}'


def kernel(count: int, width: int) -> str:
  """Return a kernel as C.

  Args:
    count: Neighbors.
    width: Outputs of a block.
  """
  parts = range(width // LANES)
  sums = [f's{j}_{p}' for j in range(count) for p in parts]
  lines = [f'vector w{p} = *(const vector *)(w + {LANES * p});' for p in parts]
  lines += [f'KEEP(w{p});' for p in parts] if count > 1 else []
  for j in range(count):
    at = {0: 'x[k]', 1: 'x[k + column]'}.get(j, f'x[k + {j} * column]')
    lines += [f's{j}_{p} += {at} * w{p};' for p in parts]
  ends = [
    f'*(vector *)(sums + {width * j + LANES * p}) = s{j}_{p};'
    for j in range(count)
    for p in parts
  ]
  zeros = ',\n         '.join(f'{x} = {{0}}' for x in sums)
  inner, last = '\n      '.join(lines), '\n  '.join(ends)
  unused = '  (void)column;\n' if count == 1 else ''
  return f"""\
/* Sums of {count} windows: rows of taps, weights [rows][taps][{width}]. */
ALONE void {name(count, width)}(const float *x, int column, int row, int rows,
                       int taps, const float *w, float *sums) {{
{unused}{_wide(count, width) or '#if VECTORS'}
  vector {zeros};
  for (int y = 0; y < rows; ++y, x += row)
    for (int k = 0; k < taps; ++k, w += {width}) {{
      {inner}
    }}
  {last}
#else
  for (int j = 0; j < {count}; ++j)
    for (int o = 0; o < {width}; ++o) {{
      float sum = 0.0f;
      for (int y = 0; y < rows; ++y)
        for (int k = 0; k < taps; ++k)
          sum += x[y * row + j * column + k] * w[(y * taps + k) * {width} + o];
      sums[{width} * j + o] = sum;
    }}
#endif
}}"""


def _wide(count: int, width: int) -> str:
  """Return the body with vectors of 16 numbers, up to that of other vectors.

  It is '' where there is none, as for single windows.

  Even and odd taps have sums of their own: 12 at most, of which two begin in a
  cycle and take 4.
  """
  if count == 1 or width < OUTPUTS:
    return ''
  names = [f's{j}{p}' for j in range(count) for p in 'ab']

  def added(p: str) -> list[str]:
    at = {'a': 'k', 'b': 'k + 1'}[p]
    shift = f' + {width}' if p == 'b' else ''
    lines = [f'const wide w{p} = *(const wide *)(w{shift});']
    return lines + [
      f's{j}{p} += x[{at} + {j} * column] * w{p};' for j in range(count)
    ]

  zeros = ', '.join(f'{x} = {{0}}' for x in names)
  even, odd = ('\n      '.join(added(p)) for p in 'ab')
  ends = '\n  '.join(
    f'*(wide *)(sums + {width * j}) = s{j}a + s{j}b;' for j in range(count)
  )
  return f"""\
#if WIDE
  wide {zeros};
  for (int y = 0; y < rows; ++y, x += row) {{
    int k = 0;
    for (; k + 2 <= taps; k += 2, w += {2 * width}) {{
      {even}
      {odd}
    }}
    if (k < taps) {{
      {even}
      w += {width};
    }}
  }}
  {ends}
#elif VECTORS"""


def block(count: int, outputs: int) -> int:
  """Return the outputs of a block: many if there is one window alone.

  >>> block(6, 32), block(6, 8), block(1, 256), block(1, 10)
  (16, 8, 64, 16)
  """
  if outputs <= LANES:
    return LANES
  if count > 1:
    return OUTPUTS
  widths = (ROW, ROW // 2, OUTPUTS)
  return min(widths, key=lambda n: (-(-outputs // n) * n, -n))


def best(columns: int) -> int:
  """Return how many neighbors a kernel takes, for the fewest cycles.

  >>> [best(n) for n in (1, 4, 8, 24)]
  [1, 4, 4, 6]
  """
  if columns == 1:
    return 1
  # A sum of fewer than 4 waits for the one before.
  return min(
    range(2, min(MOST, columns) + 1),
    key=lambda n: (-(-columns // n) * max(n, 4), -n),
  )
