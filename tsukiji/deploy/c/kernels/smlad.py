"""Products of codes on a Cortex-M with SMLAD, two of 16 bits an instruction.

As `arm_nn_mat_mult_kernel` of CMSIS-NN (Lai et al. 2018, arXiv 1801.06601):
entries 0 and 2 of four taps, then 1 and 3, are widened to halves of a register.
"""

TYPES = """\
#if defined(__ARM_FEATURE_SIMD32)
#include <arm_acle.h>
#endif"""

NEAR = 2  # windows, and outputs, whose sums are in registers


def kernel(count: int, width: int, size: int) -> str:
  """Return the body of a kernel as C; see `code_kernels.kernel`.

  Args:
    count: Windows.
    width: Outputs of a block.
    size: Bits of a weight: 8, or packed as `packed_weights.packed` does.
  """
  groups = [
    range(first, min(first + NEAR, count)) for first in range(0, count, NEAR)
  ]
  return '\n'.join(_tile(near, width, size) for near in groups)


def _tile(near: range, width: int, size: int) -> str:
  sums = [f's{j}{o}' for j in near for o in 'ab']
  zeros = ', '.join(f'{x} = 0' for x in sums)
  steps = [line for n, o in enumerate('ab') for line in _weights(o, n, size)]
  for j in near:
    steps.append(f'memcpy(&four, at + 4 * k + {j} * column, 4);')
    steps.append('even = __uxtb16(four), odd = __uxtb16(four >> 8);')
    steps += [
      f's{j}{o} = __smlad(odd, {o}1, __smlad(even, {o}0, s{j}{o}));'
      for o in 'ab'
    ]
  ends = [
    f'sums[{width * j} + o] = s{j}a, sums[{width * j + 1} + o] = s{j}b;'
    for j in near
  ]
  inner, last = '\n        '.join(steps), '\n    '.join(ends)
  step = size // 2
  kind = 'int8_t' if size == 8 else 'uint8_t'
  return f"""\
  for (int o = 0; o < {width}; o += 2) {{
    const uint8_t *at = x;
    const {kind} *p = w + {step} * o;
    int32_t {zeros};
    for (int y = 0; y < rows; ++y, at += row)
      for (int k = 0; k < taps; ++k, p += {step * width}) {{
        uint32_t four, even, odd;
        {inner}
      }}
    {last}
  }}"""


def _weights(name: str, place: int, size: int) -> list[str]:
  """Return lines that widen the four weights of one output."""
  if size == 8:
    return [
      f'memcpy(&four, p + {4 * place}, 4);',
      f'const uint32_t {name}0 = __sxtb16(four);',
      f'const uint32_t {name}1 = __sxtb16(four >> 8);',
    ]
  first = size // 2 * place
  read = f'p[{first}]' if size == 2 else f'p[{first}] | p[{first + 1}] << 8'
  mask, half = (f'0x{x:04x}{x:04x}u' for x in (2**size - 1, 2 ** (size - 1)))
  return [
    f'four = {read}, four |= four << {16 - 2 * size};',
    f'const uint32_t {name}0 = __ssub16(four & {mask}, {half});',
    f'const uint32_t {name}1 = __ssub16(four >> {size} & {mask}, {half});',
  ]
