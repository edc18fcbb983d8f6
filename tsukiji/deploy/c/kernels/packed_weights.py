"""Weights of 4 or 2 bits, packed in flash and unpacked in the inner loop.

For processors without AVX2, and those with VNNI. The 4 weights of an output
that follow each other are 16 or 8 bits, the first in the lowest ones, each plus
half of its range.
"""

import numpy as np

from tsukiji.deploy.c.kernels import code_kernels, smlad

WIDTHS = (2, 4)


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
                       int rows, int taps, const uint8_t *w, int32_t *sums) {{
{unused}#if CODES == 512
{code_kernels.wide(count, width, size)}
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
