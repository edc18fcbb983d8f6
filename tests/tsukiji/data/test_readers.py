"""Files of data: what is read, and what is refused and how."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tsukiji.data import datasets, readers

IDX_CODES = {'u1': 8, 'i1': 9, '>i2': 11, '>i4': 12, '>f4': 13, '>f8': 14}


def pack_idx(x: np.ndarray) -> bytes:
  """Write an IDX file, as its description says."""
  kind = x.dtype.newbyteorder('>').str.replace('|', '')
  head = bytes([0, 0, IDX_CODES[kind], x.ndim])
  sizes = struct.pack(f'>{x.ndim}I', *x.shape)
  return head + sizes + x.astype(kind).tobytes()


def arrays(n: int = 20, m: int = 6, **changes: Any) -> dict[str, np.ndarray]:
  """Make a small valid dataset of three classes, with `changes`."""
  rng = np.random.default_rng(0)
  made = {
    'x_train': rng.integers(0, 256, (n, 5, 4), np.uint8),
    'y_train': np.arange(n) % 3,
    'x_test': rng.integers(0, 256, (m, 5, 4), np.uint8),
    'y_test': np.arange(m) % 3,
  }
  return {**made, **changes}


def write_npz(folder: Path, **changes: Any) -> str:
  """Write `arrays(**changes)` as an .npz; a change of None drops the key."""
  kept = {k: v for k, v in arrays(**changes).items() if v is not None}
  np.savez(folder / 'mine.npz', **kept)
  return str(folder / 'mine.npz')


def write_idx(folder: Path, packed: bool = False) -> str:
  """Write `arrays()` as the four IDX files."""
  folder.mkdir(exist_ok=True)
  for name, key in zip(readers.IDX_FILES, readers.KEYS, strict=True):
    content = pack_idx(arrays()[key].astype(np.uint8))
    if packed:
      (folder / f'{name}.gz').write_bytes(gzip.compress(content))
    else:
      (folder / name).write_bytes(content)
  return str(folder)


def assert_same(a: datasets.Data, b: datasets.Data) -> None:
  """Compare two datasets but for their names."""
  assert a.classes == b.classes
  for split in ('train', 'validation', 'test'):
    for ours, theirs in zip(getattr(a, split), getattr(b, split), strict=True):
      np.testing.assert_array_equal(ours, theirs)
      assert ours.dtype == theirs.dtype


def refuses(match: str, name: str, **kwargs: Any) -> None:
  """Expect one line that says where, what was expected and what was got."""
  with pytest.raises(ValueError, match=match) as caught:
    datasets.load(name, **kwargs)
  message = str(caught.value)
  assert ': expected ' in message
  assert ', got ' in message
  assert '\n' not in message


@pytest.mark.parametrize('packed', [False, True])
def test_idx_folder(tmp_path: Path, packed: bool) -> None:
  got = datasets.load(write_idx(tmp_path / 'idx', packed), validation=5)
  assert_same(got, datasets.load(write_npz(tmp_path), validation=5))
  assert got.train.x.shape == (15, 5, 4, 1)
  assert got.classes == ('0', '1', '2')


def test_sensor_windows(tmp_path: Path) -> None:
  x = np.linspace(-1, 1, 20 * 50 * 3).reshape(20, 50, 3)
  got = datasets.load(write_npz(tmp_path, x_train=x, x_test=x[:6]))
  assert got.train.x.shape == (18, 50, 3, 1)
  assert got.train.x.dtype == np.float32
  np.testing.assert_array_equal(got.test.x[..., 0], x[:6].astype(np.float32))


def test_npz_names_its_classes(tmp_path: Path) -> None:
  names = np.array(['rest', 'walk', 'run'])
  assert datasets.load(write_npz(tmp_path, classes=names)).classes == tuple(
    names
  )


@pytest.mark.parametrize(
  ('changes', 'match'),
  [
    ({'y_test': None}, "keys .*'y_test'.*Add y_test"),
    ({'x_train': None, 'y_train': None}, 'Add x_train, y_train'),
    ({'x_train': np.zeros((20, 5), np.uint8)}, r'x_train: .*\(20, 5\)'),
    ({'x_train': np.zeros((0, 5, 4), np.uint8)}, r'none empty, got \(0,'),
    ({'x_test': np.zeros((6, 4, 5), np.uint8)}, r'x_test: .*\(4, 5, 1\)'),
    ({'x_test': np.zeros((6, 5, 4))}, 'x_test: .*float32'),
    ({'x_train': np.full((20, 5, 4), 'a')}, 'x_train: expected real numbers'),
    ({'x_train': np.full((20, 5, 4), np.nan)}, "'20 examples without'"),
    ({'x_train': np.full((20, 5, 4), 1e300)}, 'finite'),
    ({'x_test': np.full((6, 5, 4), -np.inf, np.float32)}, 'x_test: .*finite'),
    ({'y_train': np.arange(19) % 3}, r'y_train: .*\(20,\), got \(19,\)'),
    ({'y_train': np.eye(20, dtype=int)}, r'got \(20, 20\)'),
    ({'y_train': np.arange(20) / 2}, "integer labels, got 'float64'"),
    ({'y_train': np.arange(20) - 1}, 'y_train: .*got -1'),
    ({'y_train': np.arange(20) + 10**12}, '2.31'),
    ({'y_train': np.arange(20) + 10**9}, 'labels < 20, got 1000000019'),
    ({'y_test': np.arange(6)}, r'y_test: .*got \[3, 4, 5\]'),
    ({'classes': np.array(['a', 'b'])}, 'labels < 2, got 2'),
    ({'x_train': np.array([{}] * 20)}, 'plain arrays, got Object arrays'),
  ],
)
def test_npz_refused(tmp_path: Path, changes: dict, match: str) -> None:
  refuses(match, write_npz(tmp_path, **changes))


def test_npz_damaged_missing_or_lying(tmp_path: Path) -> None:
  path = Path(write_npz(tmp_path))
  whole = path.read_bytes()
  # The header of x_train asks for 10^15 times what the file has.
  lie = whole.replace(
    b'(20, 5, 4), }' + b' ' * 15, b'(20, 5, 4000000000000000), }'
  )
  assert lie != whole
  for content in (b'', b'PK\3\4', whole[:-30], lie, b'\x93NUMPY'):
    path.write_bytes(content)
    refuses('mine.npz: expected an .npz of plain arrays', str(path))
  path.unlink()
  refuses('No such file', str(path))


@pytest.mark.parametrize(
  ('content', 'match'),
  [
    (None, 'train-labels.*No such file'),
    (b'', 'magic'),
    (b'\0\0\x07\1\0\0\0\x01a', 'magic'),
    (b'\1\0\x08\1\0\0\0\x01a', 'magic'),
    (b'\0\0\x08\3\0\0', '16 bytes'),
    (b'\0\0\x08\1\0\0\0\x14' + bytes(19), 'expected 28 bytes.*got 27'),
    (b'\0\0\x08\1\0\0\0\x14' + bytes(21), 'expected 28 bytes.*got 29'),
    (b'\0\0\x08\4' + b'\xff' * 16 + bytes(9), 'bytes for shape.*got 29'),
    (b'\0\0\x08\1\0\0\0\0', 'must not be empty'),
    (pack_idx(np.zeros(20)), 'integer labels'),
  ],
)
def test_idx_refused(tmp_path: Path, content: bytes | None, match: str) -> None:
  folder = write_idx(tmp_path / 'idx')
  labels = Path(folder) / readers.IDX_FILES[1]
  labels.unlink()
  if content is not None:
    labels.write_bytes(content)
  refuses(match, folder)


def test_idx_gz_damaged(tmp_path: Path) -> None:
  folder = write_idx(tmp_path / 'idx', packed=True)
  labels = Path(folder) / f'{readers.IDX_FILES[1]}.gz'
  for content in (labels.read_bytes()[:-9], b'not gzip'):
    labels.write_bytes(content)
    refuses('expected an IDX file', folder)


@settings(deadline=None, max_examples=50)
@given(
  st.sampled_from(sorted(IDX_CODES)).flatmap(
    lambda kind: hnp.arrays(kind, hnp.array_shapes(max_dims=4, max_side=5))
  )
)
def test_idx_round_trip(x: np.ndarray) -> None:
  got = readers.parse_idx(pack_idx(x))
  np.testing.assert_array_equal(got, x)
  assert got.shape == x.shape


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([b'', b'\0\0\x08\1', b'\0\0\x0e\2']), st.binary())
def test_any_bytes_parse_or_are_refused(head: bytes, rest: bytes) -> None:
  try:
    assert readers.parse_idx(head + rest).nbytes < len(head + rest)
  except ValueError as error:
    assert ': expected ' in str(error)
