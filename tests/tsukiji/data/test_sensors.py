"""Recordings of sensors: windows, who is in which split, missing packages."""

import importlib.util
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tsukiji.data.test_readers import refuses
from tsukiji.data import datasets, readers, sensors

SEGLEARN = pytest.mark.skipif(
  not importlib.util.find_spec('seglearn'),
  reason='pip install --no-deps seglearn',
)
AEON = pytest.mark.skipif(
  not importlib.util.find_spec('aeon'), reason='pip install --no-deps aeon'
)
HEAD = '# About\n@dimensions 2\n@classLabel true walk run\n@data\n'


@settings(deadline=None)
@given(st.integers(3, 40), st.integers(1, 3), st.integers(1, 5))
def test_windows_are_parts_of_the_recording(
  time: int, length: int, step: int
) -> None:
  x = np.arange(2 * time).reshape(time, 2)
  found = sensors.windows(x, length, step)
  assert len(found) == (time - length) // step + 1
  for i, window in enumerate(found):
    np.testing.assert_array_equal(window, x[i * step : i * step + length])


@SEGLEARN
def test_nobody_is_in_two_splits_of_the_watch() -> None:
  raw = sensors.watch()
  assert raw.x_train.shape[1:] == raw.x_test.shape[1:] == (128, 6)
  assert raw.classes == ('PEN', 'ABD', 'FEL', 'IR', 'ER', 'TRAP', 'ROW')
  assert raw.groups is not None and len(raw.groups) == len(raw.y_train)
  assert {*raw.groups} == {*range(1, 11)} - {*sensors.TEST_SUBJECTS}
  for split in (raw.y_train, raw.y_test):
    assert {*split} == {*range(7)}
  data = datasets.load('watch', validation=2)
  sizes = np.bincount(raw.groups)[1:8]
  pairs = {a + b for i, a in enumerate(sizes) for b in sizes[:i]}
  assert len(data.validation.y) in pairs
  assert len(data.train.y) + len(data.validation.y) == len(raw.y_train)
  assert len(data.test.y) == len(raw.y_test)
  assert data.train.x.shape[1:] == (128, 1, 6)
  assert data.train.x.dtype == np.float32


@AEON
def test_basic_motions_has_the_splits_of_the_archive() -> None:
  data = datasets.load('basic_motions', validation=8)
  shapes = [s.x.shape for s in (data.train, data.validation, data.test)]
  assert shapes == [(n, 100, 1, 6) for n in (32, 8, 40)]
  assert data.classes == ('Badminton', 'Running', 'Standing', 'Walking')


def write_aeon(folder: pathlib.Path) -> None:
  """Write a package aeon that holds a tiny data set."""
  inner = folder / 'aeon' / 'datasets' / 'data' / 'BasicMotions'
  inner.mkdir(parents=True)
  (folder / 'aeon' / '__init__.py').write_text('raise ImportError("heavy")')
  lines = '1,2,3:4,5,6:walk\n7,8,9:-1,0.5,2e3:run\n'
  for split in ('TRAIN', 'TEST'):
    (inner / f'BasicMotions_{split}.ts').write_text(HEAD + lines)


def test_files_of_a_package_are_read_without_importing_it(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  write_aeon(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  raw = sensors.basic_motions()
  assert raw.classes == ('run', 'walk')
  assert raw.y_train.tolist() == [1, 0]
  assert raw.x_test.tolist() == [
    [[1, 4], [2, 5], [3, 6]],
    [[7, -1], [8, 0.5], [9, 2000]],
  ]


@pytest.mark.parametrize(
  ('name', 'package'), [('watch', 'seglearn'), ('basic_motions', 'aeon')]
)
def test_a_missing_package_is_named(
  monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
  nothing = SimpleNamespace(find_spec=lambda _: None)
  monkeypatch.setattr(sensors.importlib, 'util', nothing)
  refuses(f"data '{name}': .*`pip install --no-deps {package}`", name)


@pytest.mark.parametrize('validation', [1, 2, 0.3, 0.67])
def test_groups_are_held_out_as_a_whole(
  monkeypatch: pytest.MonkeyPatch, validation: float
) -> None:
  x = np.arange(24.0).reshape(12, 2, 1)
  y, groups = np.arange(12) % 2, np.repeat([3, 5, 9], (2, 4, 6))
  raw = readers.Raw(x, y, x[:2], y[:2], groups=groups)
  monkeypatch.setattr(sensors, 'READERS', {'watch': lambda: raw})
  data = datasets.load('watch', validation=validation)
  held = data.validation.x[:, 0, 0, 0] // 2
  kept = data.train.x[:, 0, 0, 0] // 2
  people = [{groups[int(i)] for i in rows} for rows in (kept, held)]
  assert not people[0] & people[1]
  assert len(people[1]) == (2 if validation in (2, 0.67) else 1)
  assert sorted([*held, *kept]) == list(range(12))
  refuses('expected 1 to 2 of 3 groups', 'watch', validation=3)
