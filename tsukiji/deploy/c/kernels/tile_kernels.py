"""Inner loops of products of 8-bit codes by the tiles of Intel AMX.

A tile has 16 rows of 64 bytes. `tdpbusd` multiplies up to 16 windows of 64
codes by 64 weights of 16 outputs, in the order of `vpdpbusd`, and adds them to
16 x 16 sums (Intel Architecture Instruction Set Extensions Reference, chapter
3). A process has to ask Linux for tiles, which takes 0.1 microseconds; where it
refuses, as in some virtual machines, and for products that are too small,
`code_kernels` go on.
"""

import math

ROWS = 16  # of a tile: windows, or fours of taps
WIDE = 16  # outputs of a tile
GROUP = 4  # taps
# Cycles of a pair of tiles of weights when they come from far, and when they
# are near; of a call; and of shaping the tiles.
FAR, NEAR, CALL, SHAPE = 350, 35, 60, 300

# 0, 1: sums; 2: windows; 3: their last taps; 4, 5: weights; 6, 7: of those.
TYPES = """\
#if CODES == 512 && defined(__AMX_INT8__) && defined(__linux__)
#define TILES 1
#ifndef ask_for_tiles
static long ask_for_tiles(void) { /* arch_prctl(ARCH_REQ_XCOMP_PERM, 18) */
  long refused;
  __asm__ volatile("syscall" : "=a"(refused)
                   : "a"(158L), "D"(0x1023L), "S"(18L)
                   : "rcx", "r11", "memory");
  return refused;
}
#endif
/* Shapes tiles for some windows, and taps after the last 64; 0 if it cannot. */
static int tiles(int windows, int rest) {
  struct {
    uint8_t palette, first, none[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  } shape = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {0}};
  if (ask_for_tiles() != 0) return 0;
  for (int i = 0; i < 4; ++i) shape.rows[i] = (uint8_t)windows;
  for (int i = 4; i < 8; ++i) shape.rows[i] = 16;
  if (rest) {
    shape.bytes[3] = (uint16_t)(4 * rest);
    shape.rows[6] = shape.rows[7] = (uint8_t)rest;
  }
  __asm__ volatile("" : : "r"(&shape) : "memory");
  _tile_loadconfig(&shape);
  return 1;
}
#define TILES_END(is_tiled) if (is_tiled) _tile_release()
#else
#define TILES 0
#define tiles(windows, rest) 0
#define tiles_16(...) (void)0
#define tiles_32(...) (void)0
#define TILES_END(is_tiled) (void)is_tiled
#endif"""


def name(width: int) -> str:
  """Return the name of the kernel of some outputs."""
  return f'tiles_{width}'


def windows(columns: int) -> int:
  """Return the windows of a tile, for as few tiles of a row as possible.

  >>> windows(8), windows(24)
  (8, 12)
  """
  return math.ceil(columns / math.ceil(columns / ROWS))


def rest(taps: int) -> int:
  """Return the fours of taps that are left after whole tiles."""
  return taps % ROWS


def pays(shape: tuple[int, int], height: int, taps: int) -> bool:
  """Return whether tiles are faster than `vpdpbusd`, of 16 fours a cycle.

  Args:
    shape: Rows and columns of the windows.
    height: Rows of a window.
    taps: Fours of taps in each.

  >>> pays((8, 8), 5, 40), pays((1, 1), 1, 128), pays((24, 24), 5, 2)
  (True, False, False)
  """
  rows, columns = shape
  count = windows(columns)
  calls = rows * math.ceil(columns / count)
  far = FAR * height * taps / ROWS
  near = max(NEAR, 2 * count) * height * math.ceil(taps / ROWS)
  cycles = SHAPE + calls * CALL + far + (calls - 1) * near
  return cycles < calls * count * height * taps


def kernel(width: int) -> str:
  """Return a kernel as C.

  Args:
    width: Outputs of a block, 16 or 32.
  """
  parts = range(width // WIDE)
  zeros = ' '.join(f'_tile_zero({n});' for n in parts)
  ends = ' '.join(
    f'_tile_stored({n}, sums + {WIDE * n}, {4 * width});' for n in parts
  )
  whole, last = ('\n      '.join(_step(width, n)) for n in (0, 1))
  return f"""\
#if TILES
/* Sums of the windows of a tile: rows of 4 * taps codes, {width} outputs. */
ALONE void {name(width)}(const uint8_t *x, int column, int row, int rows,
                     int taps, const int8_t *w, int32_t *sums) {{
  __asm__ volatile("" : : : "memory"); /* GCC: tiles read what is stored */
  {zeros}
  for (int y = 0; y < rows; ++y, x += row) {{
    int k = 0;
    for (; k + {ROWS} <= taps; k += {ROWS}, w += {ROWS * GROUP * width}) {{
      {whole}
    }}
    if (k < taps) {{
      {last}
      w += {GROUP * width} * (taps - k);
    }}
  }}
  {ends}
}}
#endif"""


def _step(width: int, is_last: int) -> list[str]:
  """Return lines that add the products of one tile of windows."""
  lines = [f'_tile_loadd({2 + is_last}, x + 4 * k, column);']
  for n in range(width // WIDE):
    own = 4 + n + 2 * is_last
    lines += [
      f'_tile_loadd({own}, w + {GROUP * WIDE * n}, {GROUP * width});',
      f'_tile_dpbusd({n}, {2 + is_last}, {own});',
    ]
  return lines
