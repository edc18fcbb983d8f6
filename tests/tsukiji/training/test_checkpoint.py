"""Checkpoints: the same bits back, or a refusal that says why."""

import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe, tree
from compress.method import Ctx
from tsukiji.training import checkpoint

STATE = {
  'weight': np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32),
  'odd': np.float32([np.nan, -0.0, np.inf, 1e-45]),
  'mask': np.array([[True, False, True]]),
  'key': np.uint32([2**32 - 1, 0]),
  'codes': np.int8([-128, 127]),
  'half': jnp.bfloat16([1.5, -2.0]),
  'nested': ({'step': np.int32(3)}, [], {'count': np.int64(2**40)}),
}


def assert_same_bits(got: Any, expected: Any) -> None:
  assert jax.tree.structure(got) == jax.tree.structure(expected)
  pairs = zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
  for a, b in pairs:
    a, b = np.asarray(a), np.asarray(b)
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert a.tobytes() == b.tobytes()


@pytest.fixture(scope='module')
def saved(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('run') / 'deep' / 'below'
  checkpoint.save(folder, 3, STATE)
  return folder


@pytest.fixture
def folder(saved: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
  """A copy of the checkpoint, to be damaged."""
  return shutil.copytree(saved, tmp_path / 'copy')


def test_the_same_bits_come_back(saved: pathlib.Path) -> None:
  assert_same_bits(checkpoint.restore(saved, STATE), STATE)


def test_nodes_come_back(tmp_path: pathlib.Path) -> None:
  params = {'fc': {'kernel': jnp.arange(12.0).reshape(3, 4)}}
  method = recipe.parse('prune.weights(0.5) >> quantize.int8()')
  ranges = {'fc/kernel': np.float32([-1, 2])}
  nodes = method.init(params, Ctx(key=jax.random.key(0), stats=ranges))
  assert tree.is_node(nodes['fc']['kernel'])
  checkpoint.save(tmp_path, 0, nodes)
  empty = jax.tree.map(jnp.zeros_like, nodes)
  assert_same_bits(checkpoint.restore(tmp_path, empty), nodes)


def test_no_checkpoint_is_none(tmp_path: pathlib.Path) -> None:
  assert checkpoint.restore(tmp_path / 'absent', STATE) is None
  assert checkpoint.restore(tmp_path, STATE) is None
  assert not (tmp_path / 'absent').exists()


def test_only_the_newest_is_kept(folder: pathlib.Path) -> None:
  newer = STATE | {'key': np.uint32([7, 8])}
  checkpoint.save(folder, 20, newer)
  assert_same_bits(checkpoint.restore(folder, STATE), newer)
  assert [p.name for p in folder.iterdir()] == ['20']


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'mask': np.ones((3, 1), bool)}, r'mask to be bool\[3, 1\], got bool\[1'),
    ({'key': np.int32([1, 2])}, r'key to be int32\[2\], got uint32\[2\]'),
    ({'new': np.zeros(2)}, r'new to be float64\[2\], got absent'),
    ({'nested': ()}, r'nested/0/step to be absent, got int32\[\]'),
    ({'half': np.float16([1, 2])}, r'half to be float16.*, got bfloat16'),
  ],
)
def test_another_tree_is_refused(
  saved: pathlib.Path, changes: dict[str, Any], said: str
) -> None:
  with pytest.raises(ValueError, match=f'{said}.*another network, method'):
    checkpoint.restore(saved, STATE | changes)


@pytest.fixture
def patient() -> Iterator[None]:
  """Wait for reads that Orbax leaves behind when one of them has failed."""
  yield
  time.sleep(0.2)


late = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)


def damage(path: pathlib.Path, how: str) -> None:
  blob = path.read_bytes()
  path.unlink()
  if how != 'gone':
    path.write_bytes(blob[: len(blob) // 2] if how == 'half' else b'')


@late
@pytest.mark.usefixtures('patient')
@pytest.mark.parametrize('how', ['gone', 'half', 'empty'])
def test_a_damaged_file_is_refused_or_not_needed(
  saved: pathlib.Path, tmp_path: pathlib.Path, how: str
) -> None:
  files = [p for p in saved.rglob('*') if p.is_file()]
  refused = []
  for i, path in enumerate(files):
    copy = shutil.copytree(saved, tmp_path / str(i))
    damage(copy / path.relative_to(saved), how)
    try:
      assert_same_bits(checkpoint.restore(copy, STATE), STATE)
    except ValueError as e:
      assert 'expected an intact checkpoint' in str(e)
      refused.append(path)
  values = max(files, key=lambda path: path.stat().st_size)
  assert {values, saved / '3' / 'default' / '_METADATA'} <= set(refused)


@late
@pytest.mark.usefixtures('patient')
@pytest.mark.parametrize('gone', ['3/default', '3/default/d'])
def test_a_lost_folder_is_refused(folder: pathlib.Path, gone: str) -> None:
  shutil.rmtree(folder / gone)
  with pytest.raises(ValueError, match='intact checkpoint.*Remove the folder'):
    checkpoint.restore(folder, STATE)


def test_a_save_that_was_killed_leaves_the_one_before(
  folder: pathlib.Path,
) -> None:
  begun = folder / '5.orbax-checkpoint-tmp'
  shutil.copytree(folder / '3' / 'default', begun / 'default')
  (begun / 'default' / '_METADATA').write_text('{')
  assert_same_bits(checkpoint.restore(folder, STATE), STATE)
  newer = STATE | {'key': np.uint32([7, 8])}
  checkpoint.save(folder, 5, newer)
  assert_same_bits(checkpoint.restore(folder, STATE), newer)


def test_a_place_that_takes_nothing_is_one_line(tmp_path: pathlib.Path) -> None:
  (tmp_path / 'file').touch()
  with pytest.raises(OSError, match='expected a place to write to') as raised:
    checkpoint.save(tmp_path / 'file' / 'run', 1, {'a': np.zeros(3)})
  assert '\n' not in str(raised.value) and len(str(raised.value)) < 300
