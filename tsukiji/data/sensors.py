"""Recordings of motion sensors that packages carry, cut into windows.

- `watch` (Burns et al. 2018, arXiv:1802.01489): a smartwatch at 50 Hz, 3 axes
  of acceleration and 3 of rotation; 10 people do 7 shoulder exercises with
  either arm, a recording each. It comes with seglearn.
- `basic_motions` (of the UEA archive): a smartwatch at 10 Hz, 6 channels, 4
  activities of 4 students; 40 windows to train on and 40 to test. It comes with
  aeon.

The packages are optional, and only their files are used: neither is imported.
"""

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tsukiji.data.readers import Raw
from tsukiji.errors import expect

LENGTH, STEP = 128, 64  # of a window of `watch` and to the next, in samples
TEST_SUBJECTS = (8, 9, 10)  # of `watch`; nobody is in both splits


def windows(x: np.ndarray, length: int, step: int) -> np.ndarray:
  """Cut a recording into windows; what is left at its end is dropped.

  Args:
    x: `[time, channels]`.
    length: Of a window, in samples.
    step: From the start of a window to the start of the next.

  Returns:
    `[n, length, channels]`, a view.

  >>> windows(np.arange(7)[:, None], length=4, step=2)[..., 0].tolist()
  [[0, 1, 2, 3], [2, 3, 4, 5]]
  """
  every = np.lib.stride_tricks.sliding_window_view(x, length, axis=0)
  return every[::step].swapaxes(1, 2)


def watch() -> Raw:
  """Read the exercises with a smartwatch: windows of 2.56 s, by person.

  Returns:
    Windows `[n, 128, 6]`, half of each shared with the next: 7 people to train
    on, who are `groups`, and 3 others to test.

  Raises:
    ValueError: seglearn is not installed.
  """
  data = _seglearn(_folder('seglearn', 'watch') / 'datasets.py').load_watch()
  cut = [windows(x, LENGTH, STEP) for x in data['X']]
  counts = [len(x) for x in cut]
  x = np.concatenate(cut)
  y, subject = (np.repeat(data[key], counts) for key in ('y', 'subject'))
  tested = np.isin(subject, TEST_SUBJECTS)
  classes = tuple(map(str, data['y_labels']))
  people = subject[~tested]
  return Raw(x[~tested], y[~tested], x[tested], y[tested], classes, people)


def basic_motions() -> Raw:
  """Read four activities with a smartwatch, in the splits of the archive.

  Who moves is not in the files, so the same students are in both splits.

  Returns:
    Windows `[40, 100, 6]` to train on and as many to test.

  Raises:
    ValueError: aeon is not installed.
  """
  folder = _folder('aeon', 'basic_motions') / 'datasets/data/BasicMotions'
  splits = []
  for split in ('TRAIN', 'TEST'):
    with open(folder / f'BasicMotions_{split}.ts') as lines:
      splits.append(parse_ts(lines))
  (x_train, named), (x_test, tested) = splits
  classes = tuple(sorted(set(named)))
  y_train, y_test = (
    np.array([classes.index(name) for name in names])
    for names in (named, tested)
  )
  return Raw(x_train, y_train, x_test, y_test, classes)


def parse_ts(lines: Iterable[str]) -> tuple[np.ndarray, list[str]]:
  """Parse a `.ts` file: channels between colons, the class behind the last.

  Args:
    lines: Of a file whose recordings are of one length.

  Returns:
    Windows `[n, time, channels]`, and the name of the class of each.

  >>> x, names = parse_ts(['@dimensions 2', '@data', '1,2,3:4,5,6:run'])
  >>> x.shape, x[0, 0].tolist(), names
  ((1, 3, 2), [1.0, 4.0], ['run'])
  """
  rows = [line.strip().split(':') for line in lines if line[:1] not in '#@\n']
  x = [[c.split(',') for c in channels] for *channels, _ in rows]
  return np.array(x, float).swapaxes(1, 2), [name for *_, name in rows]


def _folder(package: str, name: str) -> Path:
  """Return the folder of a package that is installed, without importing it."""
  found = importlib.util.find_spec(package)
  places = found.submodule_search_locations if found else None
  what = f'the package {package}, which holds it'
  fix = f'`pip install --no-deps {package}` is enough.'
  expect(f'data {name!r}', places, what, None, fix)
  return Path([*(places or ())][0])


def _seglearn(path: Path) -> Any:
  """Return the module that reads the recording, without seglearn's others.

  They need pandas, which seglearn does not install.
  """
  spec = importlib.util.spec_from_file_location('seglearn_datasets', path)
  expect(f'{path}', spec and spec.loader, 'a module', None)
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


READERS: MappingProxyType[str, Callable[[], Raw]] = MappingProxyType(
  {'watch': watch, 'basic_motions': basic_motions}
)
