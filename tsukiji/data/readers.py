"""Readers of files: each returns a `Raw`.

Nothing read here is trusted: there is no pickle, a header is compared with the
bytes at hand before it is believed, and `check` admits only images, or sensor
windows, with one class each. Datasets by name are in `tfds`.
"""

import gzip
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tsukiji.errors import expect

KEYS = ('x_train', 'y_train', 'x_test', 'y_test')

# The four files of an IDX folder, in the order of KEYS.
IDX_FILES = (
  'train-images-idx3-ubyte',
  'train-labels-idx1-ubyte',
  't10k-images-idx3-ubyte',
  't10k-labels-idx1-ubyte',
)
# Third byte of the magic number (http://yann.lecun.com/exdb/mnist).
_IDX_TYPES = {8: '>u1', 9: '>i1', 11: '>i2', 12: '>i4', 13: '>f4', 14: '>f8'}


class Raw(NamedTuple):
  """Arrays as a source gives them, not yet checked.

  Attributes:
    x_train: [n, height, width(, channels)] numbers.
    y_train: [n] integer labels.
    x_test: [m, height, width(, channels)] numbers.
    y_test: [m] integer labels.
    classes: names by label; empty where the source has none.
    groups: [n] of each training example, as the person it is of; a group is
      held out as a whole, so that validation is on others. None has none.
  """

  x_train: np.ndarray
  y_train: np.ndarray
  x_test: np.ndarray
  y_test: np.ndarray
  classes: tuple[str, ...] = ()
  groups: np.ndarray | None = None


def line(error: Exception) -> str:
  """Return the message of another library's error on one line.

  >>> line(ValueError('first\\n  second'))
  'first second'
  """
  return ' '.join(str(error).split()) or type(error).__name__


def digits() -> Raw:
  """Read the 1797 handwritten digits that scikit-learn carries.

  They come without an official test split, so one is fixed here: 20 % of each
  class, always the same.

  Returns:
    [1438, 8, 8] and [359, 8, 8] uint8 in 0..16, and their labels.
  """
  from sklearn.datasets import load_digits

  bunch = load_digits()
  x, y = bunch.images.astype(np.uint8), bunch.target
  order = np.random.RandomState(2021).permutation(len(y))
  by_class = [order[y[order] == label] for label in range(10)]
  test = np.sort(np.concatenate([o[: round(len(o) / 5)] for o in by_class]))
  train = np.setdiff1d(order, test)
  return Raw(x[train], y[train], x[test], y[test])


def digits_angle(largest: float = 45.0) -> Raw:
  """Rotate each digit of `digits` by a random angle, the label.

  Args:
    largest: Angle in degrees, either way; drawn uniformly, always the same.

  Returns:
    [1438, 8, 8] and [359, 8, 8] float32 in 0..16, and the angles over the
    largest, float32 in [-1, 1]; counterclockwise is positive.
  """
  from scipy.ndimage import rotate

  raw, drawn = digits(), np.random.RandomState(2021)

  def turned(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    part = drawn.uniform(-1, 1, len(x))
    images = [
      rotate(image.astype(np.float32), angle, reshape=False, order=1)
      for image, angle in zip(x, largest * part, strict=True)
    ]
    return np.stack(images), part.astype(np.float32)

  x_train, y_train = turned(raw.x_train)
  x_test, y_test = turned(raw.x_test)
  return Raw(x_train, y_train, x_test, y_test, ('angle',))


def check_numbers(raw: Raw, where: str) -> Raw:
  """Check inputs as `check` does, and labels that are real numbers.

  Args:
    raw: Arrays; labels [n] or [n, numbers], named by `classes`.
    where: The dataset, for errors.

  Returns:
    x as `check` gives it and y as float32 [n, numbers].

  Raises:
    ValueError: If shapes or values are not those of inputs with numbers.
  """
  x_train = _inputs(raw.x_train, f'{where} x_train')
  x_test = _inputs(raw.x_test, f'{where} x_test')
  labels = []
  for y, x in ((raw.y_train, x_train), (raw.y_test, x_test)):
    shape = (len(x), len(raw.classes))
    right = y.size == math.prod(shape) and bool(np.isfinite(y).all())
    expect(f'{where} y', right, f'{shape} finite numbers', y.shape)
    labels.append(y.astype(np.float32).reshape(shape))
  return Raw(x_train, labels[0], x_test, labels[1], raw.classes)


def idx(folder: Path, sha256: Mapping[str, str] | None = None) -> Raw:
  """Read the four IDX files of a folder, plain or `.gz`.

  Args:
    folder: where the files named `IDX_FILES` are.
    sha256: of each file, decompressed; `None` takes any content.

  Returns:
    The arrays, [n, height, width] and [n], as the files hold them.

  Raises:
    ValueError: a file is missing, damaged, or not the one pinned.
  """
  contents = {name: _content(folder, name) for name in IDX_FILES}
  for name, want in (sha256 or {}).items():
    got = hashlib.sha256(contents[name]).hexdigest()
    fix = 'The file is not the published one; install it again.'
    expect(f'{folder / name}', got == want, f'sha256 {want}', got, fix)
  arrays = (parse_idx(c, f'{folder / n}') for n, c in contents.items())
  x_train, y_train, x_test, y_test = arrays
  return Raw(x_train, y_train, x_test, y_test)


def parse_idx(content: bytes, where: str = 'IDX') -> np.ndarray:
  """Parse an IDX file: 0 0 type ndim, big-endian sizes, then the numbers.

  Args:
    content: of the file, decompressed.
    where: its name, for errors.

  Returns:
    A read-only view of `content`; wider types stay big-endian.

  Raises:
    ValueError: the magic number is unknown, or the sizes in the header do not
      fill the file exactly.

  >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
  array([7, 8, 9], dtype=uint8)
  """
  magic = content[:4]
  known = len(magic) == 4 and magic[2] in _IDX_TYPES and 1 <= magic[3] <= 4
  fix = 'The file is not IDX or is damaged; fetch it again.'
  ok = known and magic[:2] == bytes(2)
  expect(where, ok, 'the magic number 0 0 type ndim', magic, fix)
  dtype, start = np.dtype(_IDX_TYPES[magic[2]]), 4 + 4 * magic[3]
  sizes = [content[i : i + 4] for i in range(4, start, 4)]
  shape = tuple(int.from_bytes(size, 'big') for size in sizes)
  size = start + math.prod(shape) * dtype.itemsize
  what = f'{size} bytes for shape {shape}, which must not be empty'
  expect(where, len(content) == size > start, what, len(content), fix)
  return np.ndarray(shape, dtype, content, start)


def npz(path: Path) -> Raw:
  """Read an `.npz` with the arrays `KEYS`, and `classes` (names) if there.

  Args:
    path: the file.

  Returns:
    Its arrays, unchecked.

  Raises:
    ValueError: the file is missing or damaged, holds objects (which would need
      pickle), or lacks a key.
  """
  try:
    with open(path, 'rb') as stream:  # np.load(path) leaks a damaged zip
      file = np.load(stream, allow_pickle=False)
      found = {key: file[key] for key in (*KEYS, 'classes') if key in file}
  except Exception as error:  # zipfile, zlib and numpy each raise their own
    fix = 'Write it with np.savez(path, x_train=..., y_train=..., ...).'
    raise ValueError(
      f'{path}: expected an .npz of plain arrays, got {_said(error)}. {fix}'
    ) from error
  missing = [key for key in KEYS if key not in found]
  fix = f'Add {", ".join(missing)}.'
  expect(f'{path}', not missing, f'keys {KEYS}', tuple(found), fix)
  classes = np.atleast_1d(found.pop('classes', np.array([], str))).tolist()
  return Raw(**found, classes=tuple(map(str, classes)))


def _said(error: Exception) -> str:
  """Return numpy's message about a file, without its advice to trust it."""
  text = line(error)
  return 'a file of another kind or of objects' if 'pickle' in text else text


def check(raw: Raw, where: str) -> Raw:
  """Check the arrays of a source and convert them to one form.

  Args:
    raw: arrays of any real type.
    where: the dataset, for errors.

  Returns:
    x as [n, height, width, channels] uint8 or float32, y as [n] int32, and
    class names ('0', '1', ... where the source has none).

  Raises:
    ValueError: shapes, types or values are not those of images with classes.
  """
  train = _inputs(raw.x_train, f'{where} x_train')
  test = _inputs(raw.x_test, f'{where} x_test')
  kinds = [(x.shape[1:], x.dtype.name) for x in (train, test)]
  fix = 'Make the test inputs as the train inputs were made.'
  expect(f'{where} x_test', kinds[0] == kinds[1], f'{kinds[0]}', kinds[1], fix)
  y_train = _labels(raw.y_train, len(train), f'{where} y_train')
  y_test = _labels(raw.y_test, len(test), f'{where} y_test')
  top = int(y_train.max())
  # Without this bound one huge label would need as many class names.
  limit = len(raw.classes) or len(y_train)
  fix = 'Number the classes 0, 1, 2, ...'
  expect(f'{where} y_train', top < limit, f'labels < {limit}', top, fix)
  unseen = np.setdiff1d(y_test, y_train).tolist()
  fix = 'Every class of the test split must occur in train.'
  expect(f'{where} y_test', not unseen, 'labels of train', unseen[:5], fix)
  classes = raw.classes or tuple(map(str, range(top + 1)))
  return Raw(train, y_train, test, y_test, classes, raw.groups)


def _inputs(x: np.ndarray, where: str) -> np.ndarray:
  """Return x as finite uint8 or float32 [n, height, width, channels]."""
  fix = 'Save plain numbers, uint8 or float32.'
  expect(where, x.dtype.kind in 'buif', 'real numbers', x.dtype.name, fix)
  what = '[n, height, width(, channels)], windows or rows, none empty'
  fix = 'Reshape it, and see that it holds examples.'
  expect(where, x.ndim in (3, 4) and x.size > 0, what, x.shape, fix)
  if x.dtype != np.uint8:
    with np.errstate(over='ignore'):  # what overflows is inf, refused below
      x = x.astype(np.float32)
    bad = len(x) - int(np.isfinite(x).all(axis=tuple(range(1, x.ndim))).sum())
    fix = 'Drop or repair them.'
    expect(where, not bad, 'finite numbers', f'{bad} examples without', fix)
  return x if x.ndim == 4 else x[..., None]


def _labels(y: np.ndarray, n: int, where: str) -> np.ndarray:
  """Return y as int32 [n], none negative."""
  fix = 'Give one integer class per example, not one-hot rows or scores.'
  expect(where, y.dtype.kind in 'iu', 'integer labels', y.dtype.name, fix)
  expect(where, y.shape == (n,), f'labels of shape ({n},)', y.shape, fix)
  low, high = int(y.min()), int(y.max())
  ok = low >= 0 and high < 2**31
  fix = 'Number the classes 0, 1, 2, ...'
  expect(where, ok, 'labels in [0, 2^31)', low if low < 0 else high, fix)
  return y.astype(np.int32)


def _content(folder: Path, name: str) -> bytes:
  """Return the bytes of `folder/name` or of `folder/name.gz`, unpacked."""
  plain, packed = folder / name, folder / f'{name}.gz'
  try:
    if plain.is_file():
      return plain.read_bytes()
    return gzip.decompress(packed.read_bytes())
  except Exception as error:  # OSError, EOFError, zlib.error
    fix = f'The folder must hold {", ".join(IDX_FILES)}, plain or .gz.'
    raise ValueError(
      f'{plain}: expected an IDX file, plain or .gz, got {line(error)}. {fix}'
    ) from error
