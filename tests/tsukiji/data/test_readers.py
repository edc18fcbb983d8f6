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
  assert got.train.x.shape == (18, 50, 1, 3)
  assert got.train.x.dtype == np.float32
  np.testing.assert_array_equal(got.test.x[:, :, 0], x[:6].astype(np.float32))
  assert len(datasets.moments(got.train.x)[0]) == 3


def test_rows_of_a_table(tmp_path: Path) -> None:
  x = np.linspace(-1, 1, 20 * 7).reshape(20, 7)
  got = datasets.load(write_npz(tmp_path, x_train=x, x_test=x[:6]))
  assert got.train.x.shape == (18, 1, 1, 7)
  np.testing.assert_array_equal(got.test.x[:, 0, 0], x[:6].astype(np.float32))


@pytest.mark.parametrize(
  ('shape', 'kind', 'wanted'),
  [
    ((5, 4), 'u1', (5, 4, 1)),
    ((5, 5), 'f8', (5, 5, 1)),
    ((5, 4), 'f4', (5, 1, 4)),
    ((1, 4), 'f4', (1, 1, 4)),
    ((4,), 'u1', (1, 1, 4)),
    ((5, 4, 2), 'f4', (5, 4, 2)),
  ],
)
def test_axes(
  tmp_path: Path, shape: tuple[int, ...], kind: str, wanted: tuple[int, ...]
) -> None:
  x = np.zeros((20, *shape), kind)
  got = datasets.load(write_npz(tmp_path, x_train=x, x_test=x[:6]))
  assert got.train.x.shape[1:] == wanted


def test_columns_that_float32_cannot_distinguish(tmp_path: Path) -> None:
  """Seconds around 1.7e9, of two classes by their sign, next to noise."""
  rng = np.random.default_rng(0)
  signs = rng.choice([-1, 1], 200)
  x = np.stack([1.7e9 + 30 * signs, rng.normal(5, 2, 200)], axis=1)
  assert len(np.unique(np.float32(x[:, 0]))) == 1
  y = (signs > 0).astype(int)
  changes = {'x_train': x[:150], 'x_test': x[150:], 'y_train': y[:150]}
  got = datasets.load(write_npz(tmp_path, **changes, y_test=y[150:]))
  for split in (got.train, got.validation, got.test):
    assert split.x.dtype == np.float32
    np.testing.assert_array_equal(split.x[:, 0, 0, 0] > 0, split.y == 1)
  assert got.scaling is not None
  # The mean and the deviation, of an exact computation in fractions of 1.
  share = (signs[:150] > 0).mean()
  mean = 1.7e9 + 30 * (2 * share - 1)
  std = 60 * np.sqrt(share * (1 - share))
  assert got.scaling.mean[0] == pytest.approx(mean, abs=1e-5)
  assert got.scaling.std[0] == pytest.approx(std, rel=1e-6)
  want = (x[150:] - np.array([mean, x[:150, 1].mean()])) / np.array(
    [std, x[:150, 1].std()]
  )
  np.testing.assert_allclose(got.test.x[:, 0, 0], want, rtol=1e-4, atol=1e-5)


def test_columns_that_float32_holds_stay_in_their_unit(tmp_path: Path) -> None:
  x = np.random.default_rng(0).normal(1000, 1, (20, 3))
  got = datasets.load(write_npz(tmp_path, x_train=x, x_test=x[:6]))
  assert got.scaling is None
  np.testing.assert_array_equal(got.test.x[:, 0, 0], x[:6].astype(np.float32))


@pytest.mark.parametrize('folder', [False, True])
def test_sorted_files_are_shuffled(tmp_path: Path, folder: bool) -> None:
  digits = readers.digits()
  order = np.argsort(digits.y_train, kind='stable')
  x, y = digits.x_train[order], digits.y_train[order]
  changes = {'x_train': x, 'y_train': y}
  tests = {'x_test': digits.x_test, 'y_test': digits.y_test}
  if folder:
    made = {**changes, **tests}
    for name, key in zip(readers.IDX_FILES, readers.KEYS, strict=True):
      packed = pack_idx(made[key].astype(np.uint8))
      (tmp_path / name).write_bytes(packed)
    path = str(tmp_path)
  else:
    path = write_npz(tmp_path, **changes, **tests)
  got = datasets.load(path)
  # Ten classes in 300 of 1294: the chance that one is missing is 1e-13.
  for start in range(0, 900, 300):
    assert {*got.train.y[start : start + 300]} == {*range(10)}
  assert len({*got.validation.y[:72]}) > 5
  # The same examples as in the order of the file, each with its own label.
  kept, held = datasets.hold_out(len(y), 0.1, 0)
  for split, indices in ((got.train, kept), (got.validation, held)):
    ours, theirs = (
      sorted(zip(map(bytes, a), b.tolist(), strict=True))
      for a, b in ((split.x, split.y), (x[indices], y[indices]))
    )
    assert ours == theirs
  assert_same(got, datasets.load(path))
  assert not np.array_equal(got.train.y, datasets.load(path, seed=1).train.y)


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
    ({'x_train': np.zeros(20, np.uint8)}, r'x_train: .*\(20,\)'),
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
    (
      {'x_train': np.array([{}] * 20)},
      'plain arrays, got a file of another kind or of objects',
    ),
  ],
)
def test_npz_refused(tmp_path: Path, changes: dict, match: str) -> None:
  refuses(match, write_npz(tmp_path, **changes))


def test_npz_damaged_missing_or_lying(tmp_path: Path) -> None:
  path = Path(write_npz(tmp_path))
  complete = path.read_bytes()
  # The header of x_train asks for 10^15 times what the file has.
  lie = complete.replace(
    b'(20, 5, 4), }' + b' ' * 15, b'(20, 5, 4000000000000000), }'
  )
  assert lie != complete
  for content in (b'', b'PK\3\4', complete[:-30], lie, b'\x93NUMPY'):
    path.write_bytes(content)
    refuses('mine.npz: expected an .npz of plain arrays', str(path))
  path.unlink()
  refuses('No such file', str(path))


def test_npz_that_is_text_or_holds_objects(tmp_path: Path) -> None:
  text = tmp_path / 'text.npz'
  text.write_bytes(b'x,y\n1,2\n')
  objects = write_npz(tmp_path, y_train=np.array([{}] * 20, object))
  for path in (str(text), objects):
    with pytest.raises(ValueError, match='a file of another kind') as raised:
      datasets.load(path)
    assert 'pickle' not in str(raised.value)


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
