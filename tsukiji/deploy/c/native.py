"""C files as functions of this process."""

import ctypes
import functools
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tsukiji.deploy.c.plan.values import FLOAT, kind_of
from tsukiji.deploy.c.source import Source
from tsukiji.errors import expect

COMPILERS = ('cc', 'gcc', 'clang')
FAST = ('-O3', '-march=native')
COPIED = 2**15  # bytes that are copied faster than asked where they are


def found() -> str:
  """Return the path of a C compiler, '' if there is none."""
  paths = map(shutil.which, COMPILERS)
  return next((path for path in paths if path), '')


def loaded(
  source: Source, batch: int = 1, options: Sequence[str] = FAST
) -> Callable[..., Any]:
  """Return a network in C as a function.

  It is compiled once for each text of the file and options, into a folder of
  this user among the temporary files.

  Args:
    source: The files.
    batch: Examples in a call.
    options: Of the compiler.

  Returns:
    A function of arrays `[batch, ...]`, in C order and of the types of the
    inputs; it raises a TypeError for others. It returns the output, or a tuple
    of several.

  Raises:
    ValueError: If there is no compiler, or it fails.
  """
  library = ctypes.CDLL(str(_compiled(source, (*options,))))
  name = f'{source.name}_run' if batch == 1 else f'{source.name}_run_batch'
  run = getattr(library, name)
  run.restype = None
  count = len(source.inputs) + len(source.outputs) + 1
  run.argtypes = (ctypes.c_int,) * (batch > 1) + (ctypes.c_void_p,) * count
  scratch = np.empty(max(source.fast_bytes, 1) + 64, np.uint8)
  memory = scratch.ctypes.data + -scratch.ctypes.data % 64
  takes = [((batch, *x.shape), _wide(x.dtype)) for x in source.inputs]
  gives = [((batch, *x.shape), np.dtype(x.dtype)) for x in source.outputs]
  first = (batch,) if batch > 1 else ()
  own = [np.empty(*end) for end in (*takes, *gives)]
  taken, given = own[: len(takes)], own[len(takes) :]
  places = [*first, *map(_place, own), memory]
  is_small = sum(x.nbytes for x in own) <= COPIED

  def call(*images: Any) -> Any:
    if [(x.shape, x.dtype) for x in images] != takes:
      raise TypeError('other images')  # it would read out of bounds
    if is_small:
      for x, image in zip(taken, images, strict=False):
        x[...] = image
      run(*places)
      found = [x.copy() for x in given]
    else:
      ends = [*map(np.ascontiguousarray, images)]
      found = [np.empty(*end) for end in gives]
      run(*first, *map(_place, (*ends, *found)), memory)
    return found[0] if len(found) == 1 else tuple(found)

  call.memory = scratch  # type: ignore[attr-defined]
  return call


def _place(x: np.ndarray) -> int:
  """Return the address of an array, which takes a microsecond."""
  return int(x.__array_interface__['data'][0])


def _wide(dtype: str) -> np.dtype[Any]:
  """Return the type in which an input is given: every float is float32."""
  return np.dtype(np.float32 if kind_of(dtype) == FLOAT else dtype)


def _compiled(source: Source, options: tuple[str, ...]) -> pathlib.Path:
  """Return the shared library of a file."""
  compiler = found()
  fix = f'Install one of {", ".join(COMPILERS)}, or choose another engine.'
  expect('engine c', bool(compiler), 'a C compiler', 'none', fix)
  text = '\0'.join((compiler, *options, source.header, source.code))
  key = hashlib.sha256(text.encode()).hexdigest()[:24]
  path = _folder() / f'{key}.so'
  if not path.exists():
    with tempfile.TemporaryDirectory(dir=path.parent) as place:
      folder = pathlib.Path(place)
      built = build(source, folder, compiler, options)
      os.replace(built, path)
  return path


def build(
  source: Source,
  folder: pathlib.Path,
  compiler: str,
  options: Sequence[str],
) -> pathlib.Path:
  """Write the files of a network into a folder and compile a shared library.

  Args:
    source: The files.
    folder: Where to.
    compiler: Its path.
    options: Its options.

  Returns:
    The library.

  Raises:
    ValueError: If the compiler fails, with its first line.
  """
  written(source, folder)
  library = folder / f'{source.file}.so'
  command = [compiler, *options, '-shared', '-fPIC', f'{source.file}.c']
  command += ['-o', str(library), '-lm']
  done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
  first = (done.stderr or done.stdout).strip().split('\n')[0]
  expect('engine c', done.returncode == 0, 'a file that compiles', first)
  return library


def written(source: Source, folder: pathlib.Path) -> None:
  """Write `NAME.c` and `NAME.h` into a folder."""
  (folder / f'{source.file}.c').write_text(source.code)
  (folder / f'{source.file}.h').write_text(source.header)


@functools.cache
def _folder() -> pathlib.Path:
  """Return a folder that only this user can write to."""
  path = pathlib.Path(tempfile.gettempdir()) / f'tsukiji-c-{os.getuid()}'
  path.mkdir(mode=0o700, exist_ok=True)
  stat = path.lstat()
  mine = path.is_dir() and not path.is_symlink() and stat.st_uid == os.getuid()
  if mine and not stat.st_mode & 0o022:
    return path
  return pathlib.Path(tempfile.mkdtemp(prefix='tsukiji-c-'))
