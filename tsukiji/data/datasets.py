"""Data as arrays: one function gives train, validation and test.

`load` finds and checks the arrays (`readers`, `sensors`, `tfds`), keeps the
slow ones in a cache and takes the validation split out of train. Everything
fits in memory, so there is no pipeline: a batch is an array of indices.
"""

import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tsukiji import atomic
from tsukiji.data import layout, readers, sensors, tfds
from tsukiji.data.layout import Scaling
from tsukiji.data.readers import Raw
from tsukiji.errors import expect


class Split(NamedTuple):
  """Examples and their labels.

  Attributes:
    x: [n, height, width, channels] uint8, or float32 in the unit of the source
      (standardized where `Data.scaling` is given).
    y: [n] int32 in [0, classes), or [n, numbers] float32 for regression.
  """

  x: np.ndarray
  y: np.ndarray


class Data(NamedTuple):
  """A dataset, ready to train on.

  Attributes:
    name: as given to `load`.
    train: the training examples.
    validation: held out of train, for model selection.
    test: evaluated once, after every choice is made.
    classes: names by label.
    scaling: how inputs were standardized on loading, where float32 cannot
      represent the differences between them; a network trained on them takes
      inputs standardized in the same way.
  """

  name: str
  train: Split
  validation: Split
  test: Split
  classes: tuple[str, ...]
  scaling: Scaling | None = None


def load(
  name: str = 'digits',
  *,
  validation: float | int = 0.1,
  seed: int = 0,
  folder: str = '',
  cache: str = '',
) -> Data:
  """Load a dataset by name or path.

  Args:
    name: 'digits' or 'digits_angle' (embedded; the second has the angle of
      turned digits as label); 'watch' or 'basic_motions' (see `sensors`; of
      optional packages); a TFDS name such as 'fashion_mnist'; a folder of IDX
      files; or an `.npz` with `x_train, y_train, x_test, y_test` (and
      `classes`), where x is [n, height, width, channels] images; [n, height,
      width] ones, uint8 or square; other [n, time, channels], windows of a
      sequence, laid out as [n, time, 1, channels]; or [n, features], laid out
      as [n, 1, 1, features]. A folder called like a well-known dataset is
      meant by ./NAME.
    validation: the part of train held out: a fraction < 1, or a count; of
      people, where the data say who is who.
    seed: chooses that part, and the order of the examples of files.
    folder: the TFDS `data_dir`; '' for TFDS's own.
    cache: where decoded TFDS arrays are kept; '' for `tsukiji` in
      `$XDG_CACHE_HOME` or `~/.cache`.

  Returns:
    The splits. Every source of one TFDS name gives the same ones: examples are
    put in the order of their content first. Examples of files, which may be
    sorted by class, are shuffled, since calibration takes the first ones.

  Raises:
    ValueError: the data cannot be found, is damaged, or is not images (or
      windows) with one class each; or the validation split is impossible.

  >>> load('digits', validation=200).train.x.shape
  (1238, 8, 8, 1)
  """
  raw, scaling, in_files = _find(name, folder, cache)
  train, rest = _split(raw, validation, seed)
  if in_files:
    train, rest = (
      np.random.RandomState([seed, i]).permutation(indices)
      for i, indices in enumerate((train, rest))
    )
  return Data(
    name,
    Split(raw.x_train[train], raw.y_train[train]),
    Split(raw.x_train[rest], raw.y_train[rest]),
    Split(raw.x_test, raw.y_test),
    raw.classes,
    scaling,
  )


def moments(x: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Measure the mean and standard deviation of each channel.

  Args:
    x: [n, height, width, channels], any real type.

  Returns:
    Means and deviations in the unit of `x`, computed in float64 a block at a
    time. The deviation of a constant channel is given as 1, so that dividing
    by it is safe.

  >>> moments(np.array([[[[0, 5]]], [[[4, 5]]]], np.uint8))
  ((2.0, 5.0), (2.0, 1.0))
  """
  axes = (0, 1, 2)
  mean = x.mean(axes, dtype=np.float64)
  blocks = (x[i : i + 1024] for i in range(0, len(x), 1024))
  squares = sum(np.square(block - mean).sum(axes) for block in blocks)
  constant = x.min(axes) == x.max(axes)
  std = np.where(constant, 1.0, np.sqrt(squares * x.shape[-1] / x.size))
  return tuple(mean.tolist()), tuple(std.tolist())


def _split(
  raw: Raw, validation: float | int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Return the indices to train on and those held out, groups as a whole."""
  if raw.groups is None:
    return hold_out(len(raw.y_train), validation, seed)
  names = np.unique(raw.groups)
  _, held = hold_out(len(names), validation, seed, 'groups of examples')
  out = np.isin(raw.groups, names[held])
  return np.flatnonzero(~out), np.flatnonzero(out)


def hold_out(
  n: int, validation: float | int, seed: int, of: str = 'train examples'
) -> tuple[np.ndarray, np.ndarray]:
  """Choose which of n examples to train on and which to hold out.

  Args:
    n: how many there are.
    validation: a fraction < 1 of them, or a count.
    seed: in [0, 2^32).
    of: what they are, for errors.

  Returns:
    Two ascending index arrays, disjoint, together 0..n-1.

  Raises:
    ValueError: one of the two would be empty.

  >>> hold_out(5, 2, seed=0)
  (array([1, 3, 4]), array([0, 2]))
  """
  fraction = isinstance(validation, float) and 0 < validation <= 1
  count = float(n * validation if fraction else validation)
  # A count may come as a float: a config field that began as 0.1 stays one.
  ok = (fraction or count.is_integer()) and 1 <= round(count) < n
  fix = 'Give a fraction such as 0.1 or a count.'
  what = f'1 to {n - 1} of {n} {of}, or such a fraction'
  expect('validation', ok, what, validation, fix)
  fix = 'Give an integer from 0.'
  expect('seed', 0 <= seed < 2**32, 'it in [0, 2^32)', seed, fix)
  # RandomState is frozen by NumPy's policy (NEP 19), default_rng is not.
  order = np.random.RandomState(seed).permutation(n)
  return np.sort(order[round(count) :]), np.sort(order[: round(count)])


class _Found(NamedTuple):
  """Checked arrays, their standardization, and whether they are files."""

  raw: Raw
  scaling: Scaling | None = None
  in_files: bool = False


def _find(name: str, folder: str, cache: str) -> _Found:
  """Return the checked arrays of a name or path."""
  if name == 'digits':
    return _Found(readers.check(readers.digits(), name))
  if name == 'digits_angle':
    return _Found(readers.check_numbers(readers.digits_angle(), name))
  if name in sensors.READERS:
    raw, scaling = _laid_out(sensors.READERS[name]())
    return _Found(readers.check(raw, name), scaling, in_files=True)
  path = os.path.expanduser(name)
  if name.endswith('.npz'):
    raw, scaling = _laid_out(readers.npz(Path(path)))
    return _Found(readers.check(raw, name), scaling, in_files=True)
  # A folder called mnist where one happens to stand must not hide the dataset.
  if os.path.isdir(path) and name not in tfds.KNOWN:
    raw = readers.check(readers.idx(Path(path)), name)
    return _Found(raw, in_files=True)
  return _Found(_cached(name, folder, cache))


def _laid_out(raw: Raw) -> tuple[Raw, Scaling | None]:
  """Return inputs with four axes, standardized if float32 demands it."""
  train, test = map(layout.with_four_axes, (raw.x_train, raw.x_test))
  by = layout.scaling(train)
  if by and test.dtype.kind in 'fiu' and test.shape[1:] == train.shape[1:]:
    train, test = (layout.scaled(x, by) for x in (train, test))
  else:
    by = None
  return raw._replace(x_train=train, x_test=test), by


def _cached(name: str, folder: str, cache: str) -> Raw:
  """Return a named dataset from the cache, or from its source through it."""
  path = _cache_path(name, folder, cache)
  with contextlib.suppress(ValueError):  # absent or damaged: rebuilt below
    return readers.check(readers.npz(path), str(path))
  raw = _in_order(readers.check(tfds.named(name, folder, str(path)), name))
  with contextlib.suppress(OSError):  # no cache costs time, not results
    _save(path, raw)
  return raw


def _cache_path(name: str, folder: str, cache: str) -> Path:
  """Return the file that keeps a named dataset of one TFDS folder."""
  base = cache or os.path.join(
    os.environ.get('XDG_CACHE_HOME') or '~/.cache', 'tsukiji'
  )
  place = os.path.abspath(os.path.expanduser(folder)) if folder else ''
  mark = f'-{hashlib.sha256(place.encode()).hexdigest()[:8]}' if place else ''
  stem = re.sub(r'[^\w.-]', '-', name)
  return Path(base).expanduser() / f'{stem}{mark}.npz'


def _in_order(raw: Raw) -> Raw:
  """Put examples in the order of their content.

  TFDS shuffles what it writes, so without this the same seed would hold out
  other images from TFDS than from the original files.
  """
  train = _order(raw.x_train, raw.y_train)
  test = _order(raw.x_test, raw.y_test)
  return Raw(
    raw.x_train[train],
    raw.y_train[train],
    raw.x_test[test],
    raw.y_test[test],
    raw.classes,
  )


def _order(x: np.ndarray, y: np.ndarray) -> list[int]:
  """Return the indices that sort examples by the digest of image and label."""
  pairs = zip(x, y, strict=True)
  digests = [
    hashlib.sha256(a.tobytes() + b.tobytes()).digest() for a, b in pairs
  ]
  return sorted(range(len(digests)), key=digests.__getitem__)


def _save(path: Path, raw: Raw) -> None:
  """Write arrays as an `.npz` atomically.

  Args:
    path: the file; its folder is created.
    raw: checked arrays, so nothing in them needs pickle.

  Raises:
    OSError: the folder cannot be written, or the disk is full.
  """
  found = raw._asdict().items()
  arrays: dict[str, Any] = {k: np.asarray(v) for k, v in found if v is not None}
  with atomic.replacing(path) as file:
    np.savez(file, **arrays)
