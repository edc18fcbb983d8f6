"""Files compute several examples together where that is faster."""

import pathlib
import shutil
import subprocess

import numpy as np
import pytest

from tests.tsukiji.deploy.c.test_source import COMPILERS, STRICT, whole
from tsukiji.deploy.c import native
from tsukiji.deploy.c.plan.reading import Read
from tsukiji.deploy.c.plan.values import FLOAT
from tsukiji.deploy.c.source import Source, generated, source
from tsukiji.graph.nodes import Graph, Input, Node

ARM = 'arm-none-eabi-gcc'


def made(inputs: int, outputs: int, window: int, name: str = 'net') -> Source:
  """Return a product of floats: a matrix, or a convolution with windows."""
  generator = np.random.default_rng(0)
  shape = (window, window, inputs, outputs) if window else (inputs, outputs)
  weights = generator.normal(size=shape).astype(np.float32)
  attrs: dict[str, object] = {'dims': (((1,), (0,)), ((), ()))}
  before, after = (inputs,), (outputs,)
  if window:
    before, after = (16, 16, inputs), (17 - window, 17 - window, outputs)
    attrs = {
      'dims': ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)),
      'strides': (1, 1),
      'padding': ((0, 0), (0, 0)),
      'dilation': ((1, 1), (1, 1)),
    }
  node = Node('conv' if window else 'dot', ('@0', weights), attrs)
  graph = Graph((node,), (0,), (Input(before),))
  return generated(Read(graph, [FLOAT], {}, (Input(after),)), name)


def test_matrices_are_for_several_examples_and_windows_are_not() -> None:
  matrix, windows = made(256, 64, 0), made(8, 16, 5)
  assert matrix.fast_bytes > matrix.scratch_bytes
  assert windows.fast_bytes == windows.scratch_bytes
  assert 'FAST' not in windows.code


@pytest.mark.skipif(not COMPILERS, reason='there is no compiler')
@pytest.mark.parametrize('batch', [1, 3, 4, 8, 21])
def test_every_number_of_examples_is_computed(batch: int) -> None:
  one = made(40, 12, 0)
  x = np.random.default_rng(1).normal(size=(batch, 40)).astype(np.float32)
  got = native.loaded(one, batch, (*STRICT, '-O1', '-march=native'))(x)
  alone = native.loaded(one, 1, (*STRICT, '-O1', '-march=native'))
  want = np.concatenate([alone(row[None]) for row in x])
  np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.skipif(not shutil.which(ARM), reason='there is no compiler')
def test_devices_hold_nothing_for_several_examples(
  tmp_path: pathlib.Path,
) -> None:
  """Their flash is that of the constants, the code and nothing else."""
  net, _ = whole('two', 'quantize.int8()')
  for one in (made(256, 64, 0), source(*net, 'net')):
    native.written(one, tmp_path)
    sizes = []
    for options in ((), ('-Dnet_SMALL',)):
      command = [ARM, *STRICT, '-Os', '-mcpu=cortex-m4', *options]
      subprocess.run(
        [*command, '-c', 'net.c', '-o', 'net.o'], cwd=tmp_path, check=True
      )
      sizes.append((tmp_path / 'net.o').stat().st_size)
    assert sizes[0] == sizes[1]
    assert sizes[0] < one.weight_bytes + 8000
