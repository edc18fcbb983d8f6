"""Datasets by name, the cache, the split and the moments."""

import io
import socket
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.tsukiji.data.test_readers import (
  arrays,
  assert_same,
  refuses,
  write_idx,
  write_npz,
)
from tsukiji.data import datasets, readers
from tsukiji.data import tfds as tfds_lib


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  """Keep the cache and TFDS out of the real home."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
  return tmp_path


@pytest.fixture(scope='module')
def toy() -> Any:
  """A TFDS builder that, giving PNG bytes, can prepare without TensorFlow."""
  tfds = pytest.importorskip('tensorflow_datasets')
  image = pytest.importorskip('PIL.Image')
  tfds.disable_progress_bar()

  class Toy(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version('3.0.1')
    name = 'fashion_mnist'

    def _info(self) -> Any:
      features = {
        'image': tfds.features.Image(shape=(5, 4, 1)),
        'label': tfds.features.ClassLabel(names=tfds_lib.FASHION_CLASSES),
      }
      return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.FeaturesDict(features),
        supervised_keys=('image', 'label'),
      )

    def _split_generators(self, _: Any) -> Any:
      return {k: self._generate_examples(k) for k in ('train', 'test')}

    def _generate_examples(self, split: str) -> Any:
      made = arrays()
      for i, x in enumerate(made[f'x_{split}']):
        png = io.BytesIO()
        image.fromarray(x).save(png, 'PNG')
        png.seek(0)
        yield i, {'image': png, 'label': int(made[f'y_{split}'][i])}

  return Toy


@pytest.fixture(scope='module')
def prepared(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
  """A TFDS folder that holds a tiny 'fashion_mnist'."""
  folder = str(tmp_path_factory.mktemp('tfds'))
  toy(data_dir=folder).download_and_prepare(file_format='array_record')
  return folder


def test_digits() -> None:
  got = datasets.load()
  shapes = [s.x.shape for s in (got.train, got.validation, got.test)]
  assert shapes == [(1294, 8, 8, 1), (144, 8, 8, 1), (359, 8, 8, 1)]
  assert got.classes == tuple('0123456789')
  assert got.train.x.dtype == np.uint8
  assert got.train.y.dtype == np.int32
  assert got.train.x.max() == 16
  shares = np.bincount(got.test.y) / np.bincount(
    np.concatenate([s.y for s in (got.train, got.validation, got.test)])
  )
  assert np.abs(shares - 0.2).max() < 0.005


def test_order_of_digits_is_that_of_published_results() -> None:
  digits = readers.digits()
  kept, held = datasets.hold_out(len(digits.y_train), 0.1, 0)
  got = datasets.load()
  np.testing.assert_array_equal(got.train.y, digits.y_train[kept])
  np.testing.assert_array_equal(got.validation.y, digits.y_train[held])
  assert got.scaling is None
  assert {*got.train.y[:100]} == {*range(10)}


def test_seed_moves_validation_and_not_test() -> None:
  a, b = datasets.load(seed=0), datasets.load(seed=1)
  np.testing.assert_array_equal(a.test.x, b.test.x)
  assert not np.array_equal(a.validation.x, b.validation.x)


def test_folder_does_not_hide_a_dataset(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.chdir(tmp_path)
  write_idx(tmp_path / 'digits')
  assert len(datasets.load('digits').test.y) == 359
  assert len(datasets.load('./digits').test.y) == 6


def test_tfds_folder_equals_original_files(
  prepared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  from_tfds = datasets.load('fashion_mnist', folder=prepared)
  files = Path(write_idx(tmp_path / 'debian'))
  monkeypatch.setattr(tfds_lib, 'FASHION_FOLDER', files)
  monkeypatch.setattr(tfds_lib, 'FASHION_SHA256', {})
  from_files = datasets.load('fashion_mnist', folder=str(tmp_path / 'empty'))
  assert_same(from_tfds, from_files)
  assert from_tfds.classes == tfds_lib.FASHION_CLASSES
  assert from_tfds.test.x.shape == (6, 5, 4, 1)


def test_tfds_downloads_last(
  toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepared: str
) -> None:
  monkeypatch.setattr(tfds_lib, '_builder', lambda _, dir: toy(data_dir=dir))
  monkeypatch.setattr(tfds_lib, '_prerequisites', lambda: None)
  monkeypatch.setattr(tfds_lib, 'FASHION_FOLDER', tmp_path / 'none')
  got = datasets.load('fashion_mnist', folder=str(tmp_path / 'new'))
  assert_same(got, datasets.load('fashion_mnist', folder=prepared))


@pytest.mark.slow
def test_fashion_mnist_of_debian(tmp_path: Path) -> None:
  if not tfds_lib.FASHION_FOLDER.is_dir():
    pytest.skip('apt-get install dataset-fashion-mnist')
  kwargs: Any = {'validation': 5000, 'folder': str(tmp_path / 'empty')}
  got = datasets.load('fashion_mnist', **kwargs)
  shapes = [s.x.shape for s in (got.train, got.validation, got.test)]
  assert shapes == [(n, 28, 28, 1) for n in (55000, 5000, 10000)]
  assert np.bincount(got.test.y).tolist() == [1000] * 10
  both = np.concatenate([got.train.x, got.validation.x])
  mean, std = datasets.moments(both)
  np.testing.assert_allclose((mean[0], std[0]), (72.94035, 90.02118), 1e-6)
  assert_same(got, datasets.load('fashion_mnist', **kwargs))


def test_other_content_than_pinned_is_refused(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  files = Path(write_idx(tmp_path / 'debian'))
  monkeypatch.setattr(tfds_lib, 'FASHION_FOLDER', files)
  folder = str(tmp_path / 'empty')
  refuses('expected sha256 c59f468a', 'fashion_mnist', folder=folder)


@pytest.mark.parametrize(
  ('name', 'match'),
  [
    ('digit', "Did you mean 'digits'"),
    ('wach', "Did you mean 'watch'"),
    ('fashon_mnist', "Did you mean 'fashion_mnist'"),
    ('/no/such/folder', "Did you mean 'digits' or 'mnist'"),
    ('', 'a TFDS name, a folder'),
    ('emnist/leters', "data 'emnist/leters': .*BuilderConfig leters not found"),
    ('imdb_reviews', r'inputs of one shape .* got \(\)'),
    ('tf_flowers', r'got \(None, None, 3\)'),
    ('dsprites', 'one input and one label, got None'),
  ],
)
def test_names_refused(tmp_path: Path, name: str, match: str) -> None:
  refuses(match, name, folder=str(tmp_path / 'empty'))


@pytest.mark.parametrize(
  ('tensorflow', 'reason'), [(None, 'not installed'), ('here', 'no network')]
)
def test_unprepared_names_every_place(
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  tensorflow: str | None,
  reason: str,
) -> None:
  def offline(*_: Any) -> None:
    raise OSError('no network')

  find_spec = SimpleNamespace(find_spec=lambda _: tensorflow)
  monkeypatch.setattr(tfds_lib.importlib, 'util', find_spec)
  monkeypatch.setattr(tfds_lib.urllib.request, 'getproxies', dict)
  monkeypatch.setattr(socket, 'getaddrinfo', offline)
  monkeypatch.setattr(tfds_lib, 'FASHION_FOLDER', tmp_path / 'debian')
  places = 'xdg/tsukiji/fashion_mnist-.*/tfds/fashion_mnist/.*/debian'
  ways = 'apt-get install dataset-fashion-mnist.*pip install tensorflow.*npz'
  match = f'{places}.*{reason}.*{ways}'
  refuses(match, 'fashion_mnist', folder=str(tmp_path / 'tfds'))


def test_tfds_damaged(toy: Any, tmp_path: Path) -> None:
  builder = toy(data_dir=str(tmp_path))
  builder.download_and_prepare(file_format='array_record')
  for file in Path(builder.data_path).glob('*train*'):
    file.write_bytes(file.read_bytes()[:100])
  refuses('readable array_record', 'fashion_mnist', folder=str(tmp_path))


def test_cache_hit_is_equal_and_used(
  prepared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  kwargs: Any = {'folder': prepared, 'cache': str(tmp_path / 'kept')}
  cold = datasets.load('fashion_mnist', **kwargs)
  monkeypatch.delattr(tfds_lib, 'named')
  assert_same(cold, datasets.load('fashion_mnist', **kwargs))
  assert len(list((tmp_path / 'kept').iterdir())) == 1


@pytest.mark.parametrize('damage', ['cut', 'flip', 'pickle', 'empty', 'labels'])
def test_damaged_cache_is_rebuilt(
  prepared: str, tmp_path: Path, damage: str
) -> None:
  cold = datasets.load('fashion_mnist', folder=prepared, cache=str(tmp_path))
  (file,) = tmp_path.glob('*.npz')
  full = file.read_bytes()
  middle = full.index(b'NUMPY') + 200
  flipped = bytes([full[middle] ^ 1])
  contents = {
    'cut': full[:-50],
    'flip': full[:middle] + flipped + full[middle + 1 :],
    'empty': b'',
  }
  if damage in contents:
    file.write_bytes(contents[damage])
  else:
    bad = np.array([{}] * 20) if damage == 'pickle' else np.arange(20) - 9
    np.savez(file, **arrays(y_train=bad))
  again = datasets.load('fashion_mnist', folder=prepared, cache=str(tmp_path))
  assert_same(cold, again)
  assert sorted(tmp_path.glob('*.npz')) == [file]
  assert file.read_bytes()[:500] == full[:500]


def test_cache_that_cannot_be_written_is_done_without(prepared: str) -> None:
  got = datasets.load('fashion_mnist', folder=prepared, cache='/dev/null/cache')
  assert len(got.test.y) == 6


@settings(deadline=None)
@given(st.integers(2, 300), st.data(), st.integers(0, 2**32 - 1))
def test_split_is_disjoint_complete_and_fixed(
  n: int, draw: st.DataObject, seed: int
) -> None:
  count = draw.draw(st.integers(1, n - 1))
  kept, held = datasets.hold_out(n, count, seed)
  assert len(held) == count
  assert sorted([*kept, *held]) == list(range(n))
  np.random.random()  # noqa: NPY002  the global state must not matter
  for same in (count, float(count), count / n):
    if same != 1.0 or isinstance(same, int):
      np.testing.assert_array_equal(datasets.hold_out(n, same, seed)[1], held)


def test_split_is_the_same_in_every_process_and_version() -> None:
  assert datasets.hold_out(10, 3, 7)[1].tolist() == [0, 5, 8]


@pytest.mark.parametrize(
  'validation',
  [0, 0.0, -1, -0.1, 1.0, 20, 21, 1.5, 1e9, 0.01, 0.99]
  + [float('nan'), float('inf'), float('-inf')],
)
def test_impossible_validation(tmp_path: Path, validation: float) -> None:
  refuses('^validation: ', write_npz(tmp_path), validation=validation)


@pytest.mark.parametrize('seed', [-1, 2**32])
def test_impossible_seed(tmp_path: Path, seed: int) -> None:
  refuses('^seed: ', write_npz(tmp_path), seed=seed)


@settings(deadline=None, max_examples=50)
@given(
  hnp.arrays(
    st.sampled_from([np.uint8, np.float32]),
    hnp.array_shapes(min_dims=4, max_dims=4, max_side=4),
    elements=st.integers(0, 255),
  )
)
def test_moments(x: np.ndarray) -> None:
  mean, std = datasets.moments(x)
  wide = x.astype(np.float64)
  np.testing.assert_allclose(mean, wide.mean((0, 1, 2)), rtol=1e-12)
  want = wide.std((0, 1, 2))
  np.testing.assert_allclose(std, np.where(want > 1e-9, want, 1), rtol=1e-9)


def test_moments_make_no_wide_copy() -> None:
  x = np.zeros((40000, 8, 8, 1), np.uint8)
  tracemalloc.start()
  datasets.moments(x)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < x.nbytes
