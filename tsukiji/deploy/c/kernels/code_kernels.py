"""Inner loops of products of 8-bit codes.

Inputs are unsigned codes, weights signed ones, sums 32 bits: exactly those of
the integer reference, in any order. Taps come in groups of 4, as VNNI and the
dot products of arm64 multiply them; with AVX2 alone, and on a Cortex-M with
SMLAD, pairs of 16 bits are multiplied, or with AVX2 of 8 bits where their sums
have no more than 16.
"""

import numpy as np

from tsukiji.deploy.c.kernels import smlad

OUTPUTS = 32  # of a block, at most
GROUP = 4  # taps
MOST = 6  # neighbors
CHAINS = 4  # sums of one window by turns: a product waits for the one before
LIMIT = 2**15 - 1
BITS = 8  # of a weight

TYPES = """\
#if defined(__AVX512VNNI__) && defined(__AVX512F__)
#define CODES 512
#include <immintrin.h>
typedef uint8_t code;
#elif defined(__AVX2__)
#define CODES 256
#include <immintrin.h>
typedef int16_t code; /* what its instructions multiply */
#elif defined(__ARM_FEATURE_DOTPROD) && defined(__ARM_NEON)
#define CODES 128
#include <arm_neon.h>
typedef uint8_t code;
#elif defined(__ARM_FEATURE_SIMD32)
#define CODES 32
typedef uint8_t code;
#else
#define CODES 0
typedef uint8_t code;
#endif

#if CODES == 256
#define WIDENED(name, x, n) \\
  code name[n];             \\
  for (int i = 0; i < n; ++i) name[i] = x[i]
#else
#define WIDENED(name, x, n) const code *const name = x
#endif"""


def name(count: int, width: int, is_narrow: bool = False) -> str:
  """Return the name of the kernel of some neighbors and outputs."""
  return f'{"narrow" if is_narrow else "codes"}_{count}x{width}'


def is_narrow(weights: np.ndarray, top: int) -> bool:
  """Return whether sums of two products fit in 16 bits.

  Args:
    weights: `[taps, outputs]`.
    top: The largest code of an input.

  >>> is_narrow(np.full((3, 1), 127), 127), is_narrow(np.full((4, 1), 127), 255)
  (True, False)
  """
  sizes = np.abs(weights.astype(np.int64))
  sizes = np.pad(sizes, ((0, len(sizes) % 2), (0, 0)))
  return bool(top * np.max(sizes[::2] + sizes[1::2], initial=0) <= LIMIT)


def kernel(count: int, width: int, is_narrow: bool = False) -> str:
  """Return a kernel as C.

  Args:
    count: Neighbors.
    width: Outputs of a block, a multiple of 16.
    is_narrow: Whether sums of two products fit in 16 bits.
  """
  kind = 'uint8_t' if is_narrow else 'code'
  inner = _bytes if is_narrow else _pairs
  unused = '  (void)column;\n' if count == 1 else ''
  return f"""\
/* Sums of {count} windows: rows of 4 * taps codes, {width} outputs. */
ALONE void {name(count, width, is_narrow)}(const {kind} *x, int column, int row,
                       int rows, int taps, const int8_t *w, int32_t *sums) {{
{unused}#if CODES == 512
{wide(count, width)}
#elif CODES == 256
{inner(count, width)}
#elif CODES == 128
{_dots(count, width)}
#elif CODES == 32
{smlad.kernel(count, width, BITS)}
#else
  for (int n = 0; n < {count * width}; ++n) sums[n] = 0;
  for (int y = 0; y < rows; ++y, x += row)
    for (int k = 0; k < taps; ++k, w += {GROUP * width})
      for (int j = 0; j < {count}; ++j) {{
        const {kind} *const at = x + j * column + 4 * k;
        for (int o = 0; o < {width}; ++o)
          sums[{width} * j + o] += at[0] * w[4 * o] + at[1] * w[4 * o + 1] +
                              at[2] * w[4 * o + 2] + at[3] * w[4 * o + 3];
      }}
#endif
}}"""


def block(outputs: int) -> int:
  """Return the outputs of a block.

  >>> block(64), block(10)
  (32, 16)
  """
  return OUTPUTS if outputs > OUTPUTS // 2 else OUTPUTS // 2


def wide(count: int, width: int) -> str:
  """Return the body with `vpdpbusd`, of 16 outputs by 4 taps.

  Args:
    count: Neighbors.
    width: Outputs of a block.
  """
  turns = range(CHAINS if count == 1 else 1)
  names = [f's{j}{p}' for j in range(count) for p in 'ab'[: width // 16]]
  every = ',\n          '.join(
    f'{x}{_chain(turn)} = _mm512_setzero_si512()'
    for turn in turns
    for x in names
  )
  step = GROUP * width

  def loop(head: str, many: int) -> str:
    lines = [x for turn in range(many) for x in _added(count, width, turn)]
    inner = '\n      '.join(lines)
    return f'    {head} {{\n      {inner}\n    }}\n'

  few = f'for (; k + {CHAINS} <= taps; k += {CHAINS}, w += {CHAINS * step})'
  loops = loop(few, CHAINS) if count == 1 else ''
  loops += loop(f'for (; k < taps; ++k, w += {step})', 1)
  ends = [
    f'{x} = _mm512_add_epi32({x}, {x}{_chain(turn)});'
    for turn in turns[1:]
    for x in names
  ]
  ends += [
    f'_mm512_storeu_si512(sums + {16 * n}, {x});' for n, x in enumerate(names)
  ]
  last = '\n  '.join(ends)
  return f"""\
  __m512i {every};
  for (int y = 0; y < rows; ++y, x += row) {{
    int k = 0;
{loops}  }}
  {last}"""


def _chain(turn: int) -> str:
  """Return the end of the names of the sums of a turn."""
  return str(turn) if turn else ''


def _added(count: int, width: int, turn: int) -> list[str]:
  """Return lines that add the products of fours, some turns ahead."""
  parts = 'ab'[: width // 16]
  lines = []
  for n, p in enumerate(parts):
    place = GROUP * width * turn + 64 * n
    lines.append(f'const __m512i w{p} = _mm512_loadu_si512(w + {place});')
  lines += ['__m512i v;', 'int32_t four;']
  at = f'4 * (k + {turn})' if turn else '4 * k'
  for j in range(count):
    lines += [
      f'memcpy(&four, x + {at} + {j} * column, 4);',
      'v = _mm512_set1_epi32(four);',
    ]
    for p in parts:
      own = f's{j}{p}{_chain(turn)}'
      lines.append(f'{own} = _mm512_dpbusd_epi32({own}, v, w{p});')
  return ['{', *lines, '}']


def _pairs(count: int, width: int) -> str:
  """Return the kernel with `vpmaddwd`, of 8 outputs by 4 taps at a time."""
  sums = [f's{j}{p}' for j in range(count) for p in 'ab']
  zeros = ',\n            '.join(f'{x} = _mm256_setzero_si256()' for x in sums)
  steps = []
  for j in range(count):
    steps += [
      f'memcpy(&four, at + 4 * k + {j} * column, 8);',
      'v = _mm256_set1_epi64x(four);',
      *(
        f's{j}{p} = _mm256_add_epi32(s{j}{p}, _mm256_madd_epi16(v, w{p}));'
        f' KEEP(s{j}{p});'
        for p in 'ab'
      ),
    ]
  ends = [
    f'_mm256_storeu_si256((__m256i *)(sums + {width * j} + o), '
    f'_mm256_permute4x64_epi64(_mm256_hadd_epi32(s{j}a, s{j}b), 0xd8));'
    for j in range(count)
  ]
  inner, last = '\n        '.join(steps), '\n    '.join(ends)
  return f"""\
  for (int o = 0; o < {width}; o += 8) {{
    const code *at = x;
    const int8_t *p = w + 4 * o;
    __m256i {zeros};
    for (int y = 0; y < rows; ++y, at += row)
      for (int k = 0; k < taps; ++k, p += {GROUP * width}) {{
        const __m256i wa = _mm256_cvtepi8_epi16(
            _mm_loadu_si128((const __m128i *)p));
        const __m256i wb = _mm256_cvtepi8_epi16(
            _mm_loadu_si128((const __m128i *)(p + 16)));
        __m256i v;
        int64_t four;
        {inner}
      }}
    {last}
  }}"""


def _bytes(count: int, width: int) -> str:
  """Return the kernel with `vpmaddubsw`, of 16 outputs by 4 taps at a time."""
  sums = [f's{j}{p}' for j in range(count) for p in 'ab']
  zeros = ',\n            '.join(f'{x} = _mm256_setzero_si256()' for x in sums)
  steps = []
  for j in range(count):
    steps += [
      f'memcpy(&four, at + 4 * k + {j} * column, 4);',
      'v = _mm256_set1_epi32(four);',
      *(
        f's{j}{p} = _mm256_add_epi32(s{j}{p}, _mm256_madd_epi16('
        f'_mm256_maddubs_epi16(v, w{p}), ones)); KEEP(s{j}{p});'
        for p in 'ab'
      ),
    ]
  ends = [
    f'_mm256_storeu_si256((__m256i *)(sums + o + {at}), s{j}{p});'
    for j in range(count)
    for p, at in (('a', width * j), ('b', width * j + 8))
  ]
  inner, last = '\n        '.join(steps), '\n    '.join(ends)
  return f"""\
  const __m256i ones = _mm256_set1_epi16(1);
  for (int o = 0; o < {width}; o += 16) {{
    const uint8_t *at = x;
    const int8_t *p = w + 4 * o;
    __m256i {zeros};
    for (int y = 0; y < rows; ++y, at += row)
      for (int k = 0; k < taps; ++k, p += {GROUP * width}) {{
        const __m256i wa = _mm256_loadu_si256((const __m256i *)p);
        const __m256i wb = _mm256_loadu_si256((const __m256i *)(p + 32));
        __m256i v;
        int32_t four;
        {inner}
      }}
    {last}
  }}"""


def _dots(count: int, width: int) -> str:
  """Return the kernel with `sdot`, of 4 outputs by 4 taps at a time.

  It multiplies signed numbers: codes less 128, of which the sum of the weights
  makes up for.
  """
  sums = [f's{j}' for j in range(count)]
  zeros = ', '.join(f'{x} = vdupq_n_s32(0)' for x in ('own', *sums))
  steps = []
  for j in range(count):
    steps += [
      f'memcpy(&four, at + 4 * k + {j} * column, 4);',
      'v = vreinterpretq_s8_u32(vdupq_n_u32(four ^ 0x80808080u));',
      f's{j} = vdotq_s32(s{j}, weights, v);',
    ]
  ends = [
    f'vst1q_s32(sums + {width * j} + o, vaddq_s32(s{j}, vshlq_n_s32(own, 7)));'
    for j in range(count)
  ]
  inner, last = '\n        '.join(steps), '\n    '.join(ends)
  return f"""\
  for (int o = 0; o < {width}; o += 4) {{
    const uint8_t *at = x;
    const int8_t *p = w + 4 * o;
    int32x4_t {zeros};
    for (int y = 0; y < rows; ++y, at += row)
      for (int k = 0; k < taps; ++k, p += {GROUP * width}) {{
        const int8x16_t weights = vld1q_s8(p);
        int8x16_t v;
        uint32_t four;
        own = vdotq_s32(own, weights, vdupq_n_s8(1));
        {inner}
      }}
    {last}
  }}"""
