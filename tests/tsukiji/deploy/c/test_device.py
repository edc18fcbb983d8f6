"""C files on other processors give the outputs of the PC."""

import pathlib
import re
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from benchmarks.cortex_m import ARM, BOARD, BOOT, LINKED
from tests.runs import one_shot
from tests.tsukiji.deploy.c.test_source import COMPILERS, STRICT
from tests.tsukiji.deploy.onnx.test_model import SPECS, drawn, lowered
from tsukiji.deploy.c import native
from tsukiji.deploy.c.source import Source, source
from tsukiji.deploy.export import export
from tsukiji.deploy.integer import compile as integers
from tsukiji.deploy.passes.lower import lower
from tsukiji.models import zoo

ROOT = pathlib.Path(__file__).parents[4]
GOLDEN = ROOT / 'tests/golden/format1.tsk'
MAIN = """
#include <stdio.h>
#include "net.h"
#include "examples.h"
#define ALL (EXAMPLES * net_OUTPUT_SIZE)
static float scratch[net_SCRATCH_BYTES / sizeof(float) + 1];
static union { float number[ALL]; uint32_t bits[ALL]; } y;
static void print(void) {
  for (int i = 0; i < ALL; ++i) printf("%08lx\\n", (unsigned long)y.bits[i]);
}
int main(void) {
  for (int n = 0; n < EXAMPLES; ++n)
    net_run(examples + n * net_INPUT_SIZE, y.number + n * net_OUTPUT_SIZE,
            scratch);
  print();
  net_run_batch(EXAMPLES, examples, y.number, scratch);
  print();
  return 0;
}
"""
DEVICES = {
  'cortex-m4': (
    ' '.join([*ARM, *LINKED, '-Os', 'boot.c']),
    ' '.join([*BOARD, '-kernel']),
  ),
  'arm64': ('aarch64-linux-gnu-gcc -O2 -static', 'qemu-aarch64'),
  'arm64, dot products': (
    'aarch64-linux-gnu-gcc -O2 -static -march=armv8.2-a+dotprod',
    'qemu-aarch64',
  ),
}
WHERE = {
  name: [*map(str.split, pair)]
  for name, pair in DEVICES.items()
  if all(shutil.which(text.split()[0]) for text in pair)
}


def run(
  made: Source, x: np.ndarray, folder: pathlib.Path, device: Sequence[Any]
) -> np.ndarray:
  """Return what a device computes: example by example, then all at once."""
  compile_it, emulate = device
  native.written(made, folder)
  numbers = ', '.join(f'{value!s}f' for value in x.ravel())
  (folder / 'examples.h').write_text(
    f'#define EXAMPLES {len(x)}\n'
    f'static const float examples[] = {{{numbers}}};\n'
  )
  (folder / 'main.c').write_text(MAIN)
  (folder / 'boot.c').write_text(BOOT)
  files = ['main.c', f'{made.file}.c', '-o', 'net', '-lm']
  subprocess.run([*compile_it, *STRICT, *files], cwd=folder, check=True)
  command = [*emulate, 'net' if '-kernel' in emulate else './net']
  done = subprocess.run(
    command, cwd=folder, check=True, capture_output=True, text=True
  )
  words = [int(word, 16) for word in done.stdout.split()]
  return np.array(words, np.uint32).view(np.float32).reshape(2, len(x), -1)


@pytest.mark.slow
@pytest.mark.skipif(not WHERE, reason='there is no emulator')
@pytest.mark.parametrize('name', sorted(WHERE))
@pytest.mark.parametrize(
  ('text', 'kernels'),
  [
    ('quantize.int8()', ('codes_1x32', 'codes_5x16')),
    ('quantize.lsq(4, 8)', ('packed_1x32_4', 'packed_5x16_4')),
  ],
)
def test_devices_compute_the_same_integers(
  text: str, kernels: tuple[str, ...], name: str, tmp_path: pathlib.Path
) -> None:
  sizes = {'conv': (8, 32), 'hidden': (32,)}
  spec = zoo.build('tsukijinet2021', (19, 15, 1), 5, **sizes)
  net = lower(spec, one_shot(spec, text))
  reference = integers.compiled(*net)
  made = source(*net, 'net')
  assert all(f'{kernel}(' in made.code for kernel in kernels)
  x = np.float32(drawn(net[0], 3))
  got = run(made, x, tmp_path, WHERE[name])
  want = np.float32(reference(x)) * np.float32(reference.scale)
  np.testing.assert_array_equal(got, [want, want])


@pytest.mark.slow
@pytest.mark.skipif(not WHERE, reason='there is no emulator')
@pytest.mark.parametrize('name', sorted(WHERE))
def test_devices_compute_the_same_floats(
  name: str, tmp_path: pathlib.Path
) -> None:
  net = lowered(SPECS['tsukijinet2021'], 'prune.weights(0.9)')
  made = source(*net, 'net')
  x = np.float32(drawn(net[0], 2))
  got = run(made, x, tmp_path, WHERE[name])
  want = native.loaded(made, 2, ('-O1',))(x)
  np.testing.assert_allclose(got, [want, want], rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not COMPILERS, reason='there is no compiler')
def test_the_main_file_of_the_docs_runs(tmp_path: pathlib.Path) -> None:
  page = (ROOT / 'docs/deploy.md').read_text()
  (text,) = re.findall(r'^```c\n(.*?)^```', page, re.S | re.M)
  export(GOLDEN, tmp_path, ('c',))
  (tmp_path / 'main.c').write_text(text)
  command = [COMPILERS[0], *STRICT, 'main.c', 'format1.c', '-lm', '-o', 'main']
  subprocess.run(command, cwd=tmp_path, check=True)
  done = subprocess.run(
    ['./main'], cwd=tmp_path, check=True, capture_output=True, text=True
  )
  assert re.fullmatch(r'class \d+\n', done.stdout)
