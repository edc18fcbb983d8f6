"""What networks take on an emulated Cortex-M4.

`python -m benchmarks.cortex_m FILE.tsk ...` writes each as C, builds it by
`arm-none-eabi-gcc`, and runs one example in `qemu-system-arm`, whose clock
counts instructions: bytes of code and constants, bytes of memory, and
instructions of an inference, with SMLAD and without. Each is a cycle on the
device where it is neither a load, a branch nor a division.
"""

import argparse
import math
import pathlib
import subprocess
import tempfile

import numpy as np

from tsukiji.deploy import artefact, engines
from tsukiji.deploy.c import footprint, native
from tsukiji.deploy.c.source import Source

ARM = ['arm-none-eabi-gcc', '-mcpu=cortex-m4', '-mthumb', '-mfloat-abi=hard']
ARM += ['-mfpu=fpv4-sp-d16']
LINKED = ['--specs=rdimon.specs', '-Wl,--section-start=.vectors=0']
LINKED += ['-Wl,-Tdata=0x20000000']
BOARD = ['qemu-system-arm', '-M', 'mps2-an386', '-nographic', '-monitor']
BOARD += ['none', '-serial', 'none', '-semihosting']
COUNTED = ['-icount', 'shift=0']  # a nanosecond for each instruction
TICK = 40  # nanoseconds of the clock of the board, which has 25 MHz
# The vectors of a Cortex-M4, which starts without its floating-point unit.
BOOT = """
#include <stdint.h>
extern void _start(void);
static void boot(void) {
  *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20;
  __asm__ volatile("dsb\\n isb");
  _start();
}
__attribute__((section(".vectors"), used)) const uintptr_t vectors[] = {
    0x20400000u, (uintptr_t)boot};
"""
MAIN = """
#include <stdio.h>
#include "{name}.h"
#define TIMER ((volatile uint32_t *)0xE000E010u) /* SysTick counts down */
static const float input[] = {{{numbers}}};
static float output[{name}_OUTPUT_SIZE];
static float scratch[{name}_SCRATCH_BYTES / sizeof(float) + 1];
int main(void) {{
  TIMER[1] = 0xFFFFFF, TIMER[2] = 0, TIMER[0] = 5;
  {name}_run(input, output, scratch);
  printf("%lu\\n", (unsigned long)(-TIMER[2] & 0xFFFFFF));
  return 0;
}}
"""


def flash(folder: pathlib.Path, name: str, flags: list[str]) -> int:
  """Return the bytes of code and constants of a C file."""
  command = [*ARM, *flags, '-c', f'{name}.c', '-o', 'alone.o']
  subprocess.run(command, cwd=folder, check=True)
  size = ['arm-none-eabi-size', 'alone.o']
  done = subprocess.run(
    size, cwd=folder, check=True, capture_output=True, text=True
  )
  code, data, *_ = done.stdout.splitlines()[1].split()
  return int(code) + int(data)


def instructions(made: Source, folder: pathlib.Path, flags: list[str]) -> int:
  """Return the instructions of an inference, to `TICK`; at most 671 million."""
  size = sum(math.prod(x.shape) for x in made.inputs)
  numbers = np.random.default_rng(0).uniform(size=size)
  text = ', '.join(f'{x:.4f}f' for x in numbers)
  native.written(made, folder)
  (folder / 'boot.c').write_text(BOOT)
  (folder / 'main.c').write_text(MAIN.format(name=made.name, numbers=text))
  files = ['boot.c', 'main.c', f'{made.file}.c', '-o', 'net', '-lm']
  subprocess.run([*ARM, *LINKED, *flags, *files], cwd=folder, check=True)
  command = [*BOARD, *COUNTED, '-kernel', 'net']
  done = subprocess.run(
    command, cwd=folder, check=True, capture_output=True, text=True
  )
  return TICK * int(done.stdout)


def main() -> None:
  """Print a line for each file and choice of instructions."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('files', nargs='+', metavar='FILE.tsk')
  for path in parser.parse_args().files:
    made = engines.written(artefact.load(path))
    for level in ('-Os', '-O2'):
      for flags in ([level], [level, '-U__ARM_FEATURE_SIMD32']):
        with tempfile.TemporaryDirectory() as name:
          count = instructions(made, pathlib.Path(name), flags)
          size = flash(pathlib.Path(name), made.file, flags)
        print(
          f'{path} {" ".join(flags)}: {size:,} B of flash, '
          f'{footprint.ram(made):,} B of memory, {count / 1e6:.2f} M'
        )


if __name__ == '__main__':
  main()
