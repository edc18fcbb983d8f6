"""C files beside those of other generators, from the same ONNX models.

`python -m benchmarks.c_peers FILE.tsk ... [--emx=PATH] [--onnx2c=PATH]` writes
each network as ONNX, in float32 and in int8 where it has integers, and as C in
every way: microseconds of a call in turn with ONNX Runtime, one thread, `-O3
-march=native`, and bytes of code and constants on a Cortex-M4 by `-Os` where
there is `arm-none-eabi-gcc`. emx-onnx-cgen is on PyPI, onnx2c in
github.com/kraiskil/onnx2c; install them anywhere. LiteRT and emlearn read no
ONNX.
"""

import argparse
import ctypes
import functools
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import cortex_m
from tsukiji.deploy import artefact, engines
from tsukiji.deploy.c import native
from tsukiji.deploy.onnx import model as written
from tsukiji.measure import sampling

ROUNDS = 200


def flash(folder: pathlib.Path, name: str) -> str:
  """Return the bytes of code and constants of a C file on a Cortex-M4."""
  if not shutil.which(cortex_m.ARM[0]):
    return '-'
  try:
    return f'{cortex_m.flash(folder, name, ["-Os", "-w"]):,}'
  except subprocess.CalledProcessError:
    return 'does not compile'


class Peer(NamedTuple):
  """Another generator.

  Attributes:
    entry: The function that it writes.
    options: Of its command, for a model and a file; it may print the file.
  """

  entry: str
  options: Callable[[str, str], list[str]]


PEERS = {
  'emx': Peer(
    'peer',
    lambda model, file: [
      *('compile', model, file, '--model-name', 'peer'),
      *('--large-temp-threshold', '0', '--large-weight-threshold', '0'),
    ],
  ),
  'onnx2c': Peer('entry', lambda model, file: [model]),
}


def theirs(
  model: Any, x: np.ndarray, folder: pathlib.Path, name: str, program: str
) -> Callable[[], np.ndarray]:
  """Return a call of the C file that a peer makes of a model."""
  source, code = folder / f'{name}.onnx', folder / f'{name}.c'
  source.write_bytes(model.SerializeToString())
  command = [program, *PEERS[name].options(str(source), str(code))]
  done = subprocess.run(command, check=True, capture_output=True)
  if not code.exists():
    code.write_bytes(done.stdout)
  command = [native.found(), *native.FAST, '-w', '-shared', '-fPIC', code.name]
  subprocess.run([*command, '-o', f'{name}.so', '-lm'], cwd=folder, check=True)
  run = getattr(ctypes.CDLL(str(folder / f'{name}.so')), PEERS[name].entry)
  run.restype = None
  shape = [
    d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim
  ]
  y = np.empty([max(n, 1) for n in shape], np.float32)
  x = np.ascontiguousarray(x)
  args = [ctypes.c_void_p(a.ctypes.data) for a in (x, y)]

  def call() -> np.ndarray:
    run(*args)
    return y

  return call


def pinned(model: Any) -> Any:
  """Return a model for one example."""
  for end in (*model.graph.input, *model.graph.output):
    end.type.tensor_type.shape.dim[0].dim_value = 1
  return model


def rows(path: str, programs: Mapping[str, str]) -> Iterator[str]:
  """Yield a line for each form of a network and each way to run it.

  Args:
    path: The file.
    programs: Of `PEERS`.
  """
  net = artefact.load(path)
  x = sampling.images(net.inputs[0].shape, 1) / 255
  for form in dict.fromkeys((*engines.forms('c', net), 'float32')):
    least = 0.0 if form == 'int8' else float('inf')
    model = pinned(written.model(net.network, net.variables, least=least))
    source = engines.written(net, form)
    ours = native.loaded(source)
    known = engines.forms('onnxruntime', net)
    ort = engines.load(
      net, 'onnxruntime', form=form if form in known else 'float32'
    )
    want = np.asarray(ort(x))
    calls: dict[str, Callable[[], Any]] = {
      'onnxruntime': functools.partial(ort, x),
      'here': functools.partial(ours, x),
    }
    with tempfile.TemporaryDirectory() as place:
      folder = pathlib.Path(place)
      sizes = {'onnxruntime': '-'}
      native.written(source, folder)
      sizes['here'] = flash(folder, source.file)
      for name, program in programs.items():
        try:
          calls[name] = theirs(model, x, folder, name, program)
          sizes[name] = flash(folder, name)
        except (OSError, subprocess.CalledProcessError, AttributeError) as e:
          yield f'{path} {form}: {name} {e}'
      errors = {
        k: np.abs(np.asarray(f()) - want).max() for k, f in calls.items()
      }
      times = sampling.sample(calls, repeats=ROUNDS)
      for name, found in times.items():
        least_us = 1e3 * float(np.min(found))
        yield (
          f'{pathlib.Path(path).stem:24} {form:8} {name:12} {least_us:8.1f} us '
          f'{sizes[name]:>10} B, off by {errors[name]:.1e}'
        )


def main(argv: Sequence[str] | None = None) -> None:
  """Print the rows of each file."""
  parser = argparse.ArgumentParser()
  parser.add_argument('files', nargs='+', metavar='FILE.tsk')
  parser.add_argument('--emx', default='emx-onnx-cgen')
  parser.add_argument('--onnx2c', default='onnx2c')
  args = parser.parse_args(argv)
  for path in args.files:
    for row in rows(path, {name: getattr(args, name) for name in PEERS}):
      print(row, flush=True)


if __name__ == '__main__':
  main()
