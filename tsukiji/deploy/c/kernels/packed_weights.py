"""Weights of 4 or 2 bits, packed in flash and unpacked in the inner loop.

For processors without AVX2, and those with VNNI, which unpack a block of
outputs at once, before its windows. The 4 weights of an output that follow each
other are 16 or 8 bits, the first in the lowest ones, each plus half of its
range.
"""

import numpy as np

from tsukiji.deploy.c.kernels import code_kernels, smlad

WIDTHS = (2, 4)
TYPES = """\
#if CODES == 512
typedef int8_t packed;
#define UNPACKED(name, w, n, unpack) \\
  int8_t name[n];                    \\
  unpack(w, n, name)
#else
typedef uint8_t packed;
#define UNPACKED(name, w, n, unpack) const packed *const name = w
#endif"""


def bits(weights: np.ndarray) -> int:
  """Return the bits that a weight is stored in.

  >>> [bits(np.array(x)) for x in ([-1, 0, 1], [2, -8], [8])]
  [2, 4, 8]
  """
  low, high = int(weights.min(initial=0)), int(weights.max(initial=0))
  fits = (n for n in WIDTHS if -(2 ** (n - 1)) <= low and high < 2 ** (n - 1))
  return next(fits, 8)


def packed(weights: np.ndarray, width: int) -> np.ndarray:
  """Return fours of weights as bytes.

  Args:
    weights: `[..., 4]`, whole numbers.
    width: Bits of a weight.

  Returns:
    `[..., width / 2]` uint8.

  >>> packed(np.array([[-2, -1, 0, 1]]), 2).tolist()
  [[228]]
  >>> packed(np.array([[1, -1, 0, 7]]), 4).tolist()
  [[121, 248]]
  """
  fields = weights.astype(np.int64) + 2 ** (width - 1)
  whole = (fields << (width * np.arange(4))).sum(axis=-1)
  shifts = 8 * np.arange(width // 2)
  return ((whole[..., None] >> shifts) & 255).astype(np.uint8)


def name(count: int, width: int, size: int) -> str:
  """Return the name of the kernel of some neighbors, outputs and bits."""
  return f'packed_{count}x{width}_{size}'


def kernel(count: int, width: int, size: int) -> str:
  """Return a kernel as C; see `code_kernels.kernel`.

  Args:
    count: Neighbors.
    width: Outputs of a block.
    size: Bits of a weight.
  """
  step, half, most = size // 2, 2 ** (size - 1), 2**size - 1
  read = 'w[o]' if size == 2 else 'w[2 * o] | w[2 * o + 1] << 8'
  shifted = ('four', *(f'(four >> {size * n})' for n in range(1, 4)))
  fields = ',\n                  '.join(
    f'w{n} = ({text} & {most}) - {half}' for n, text in enumerate(shifted)
  )
  unused = '  (void)column;\n' if count == 1 else ''
  return f"""\
/* Sums of {count} windows, {width} outputs, weights of {size} bits. */
ALONE void {name(count, width, size)}(const uint8_t *x, int column, int row,
                       int rows, int taps, const packed *w, int32_t *sums) {{
{unused}#if CODES == 512
{code_kernels.wide(count, width)}
#elif CODES == 32
{smlad.kernel(count, width, size)}
#else
  for (int n = 0; n < {count * width}; ++n) sums[n] = 0;
  for (int y = 0; y < rows; ++y, x += row)
    for (int k = 0; k < taps; ++k, w += {step * width})
      for (int o = 0; o < {width}; ++o) {{
        const int four = {read};
        const int {fields};
        for (int j = 0; j < {count}; ++j) {{
          const uint8_t *const at = x + j * column + 4 * k;
          sums[{width} * j + o] += at[0] * w0 + at[1] * w1 + at[2] * w2 +
                                   at[3] * w3;
        }}
      }}
#endif
}}"""


def unpacked(size: int) -> str:
  """Return the function that unpacks weights of some bits, 64 at a time."""
  if size == 4:
    load = '_mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)w))'
    apart = '_mm512_or_si512(x, _mm512_slli_epi16(x, 4))'
  else:
    load = '_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)w))'
    half = '_mm512_or_si512(x, _mm512_slli_epi32(x, 6))'
    apart = f'_mm512_or_si512({half}, _mm512_slli_epi32({half}, 12))'
  return f"""\
#if CODES == 512
ALONE void unpacked_{size}(const uint8_t *w, int n, int8_t *to) {{
  const __m512i most = _mm512_set1_epi8({2**size - 1});
  const __m512i half = _mm512_set1_epi8({2 ** (size - 1)});
  for (; n > 0; n -= 64, w += {8 * size}, to += 64) {{
    const __m512i x = {load};
    const __m512i apart = {apart};
    _mm512_storeu_si512(
        to, _mm512_sub_epi8(_mm512_and_si512(apart, most), half));
  }}
}}
#endif"""
