"""A folder belongs to one experiment, and its files are complete."""

import json
import os
import pathlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from ml_collections import ConfigDict

from tsukiji.config import settings
from tsukiji.experiments import store


def config(**changes: Any) -> ConfigDict:
  made = settings.default()
  made.networks = {'net': settings.network('small')}
  made.update_from_flattened_dict(changes)
  return made


@pytest.fixture
def claimed(tmp_path: pathlib.Path) -> pathlib.Path:
  folder = tmp_path / 'deep' / 'run'
  store.claim(folder, config())
  return folder


def row(name: str) -> dict[str, Any]:
  return {
    'name': name,
    'recipe': 'dense',
    'network': 'net',
    'seed': 0,
    'artefact': f'artefacts/{name}.tsk',
    'bytes': 100,
    'latency_ms': {'batch_1': {}},
  }


def names(folder: pathlib.Path) -> set[str]:
  return {path.name for path in folder.iterdir()}


def test_a_claimed_folder_says_where_it_came_from(
  claimed: pathlib.Path,
) -> None:
  folders = {'artefacts', 'cells', 'checkpoints', 'figures'}
  assert names(claimed) == folders | {'config.json'}
  found = json.loads((claimed / 'config.json').read_text())
  assert found['config'] == settings.plain(config())
  assert set(found) == {'config', 'command', 'commit', 'versions', 'machine'}
  assert found['versions'].keys() >= {'python', 'jax', 'flax'}
  assert f'{os.cpu_count()} cores' in found['machine']
  assert store.provenance_of(claimed) == found


def test_the_same_config_may_come_again(claimed: pathlib.Path) -> None:
  before = (claimed / 'config.json').read_text()
  store.claim(claimed, config())
  store.claim(claimed, config(task='train', workers=3, distributed=True))
  assert (claimed / 'config.json').read_text() == before


def test_a_folder_of_an_older_release_is_the_same(
  claimed: pathlib.Path,
) -> None:
  path = claimed / 'config.json'
  stored = json.loads(path.read_text())
  del stored['config']['measure'], stored['config']['train']['clip']
  del stored['config']['networks']['net']['seeds']
  path.write_text(json.dumps(stored))
  store.claim(claimed, config())
  with pytest.raises(ValueError, match='differs in train'):
    store.claim(claimed, config(**{'train.clip': 0.5}))


def test_a_lost_folder_is_made_again(claimed: pathlib.Path) -> None:
  (claimed / 'cells').rmdir()
  store.claim(claimed, config())
  store.write_cell(claimed, row('x'))
  assert store.cell(claimed, 'x') == row('x')


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'train.lr': 0.5}, 'differs in train. Use another --workdir'),
    ({'seeds': (1,)}, 'differs in seeds'),
    (
      {'networks.net.kind': 'vgg', 'title': 'x', 'workers': 9},
      'differs in networks, title. Use',
    ),
  ],
)
def test_another_config_is_refused(
  claimed: pathlib.Path, changes: dict[str, Any], said: str
) -> None:
  with pytest.raises(ValueError, match=said):
    store.claim(claimed, config(**changes))


def test_an_unwritable_folder_is_refused(tmp_path: pathlib.Path) -> None:
  (tmp_path / 'file').touch()
  for folder in (tmp_path / 'file', tmp_path / 'file' / 'run'):
    with pytest.raises(ValueError, match='can be written, got Not a direct'):
      store.claim(folder, config())


JSON = st.recursive(
  st.none() | st.integers() | st.text(max_size=2),
  lambda inner: (
    st.lists(inner, max_size=2)
    | st.dictionaries(st.sampled_from(['config', 'train']), inner)
  ),
  max_leaves=4,
)
DAMAGE = st.binary(max_size=9) | JSON.map(lambda x: json.dumps(x).encode())


@effort(
  deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(DAMAGE)
def test_a_damaged_config_is_refused(
  claimed: pathlib.Path, sensitivity: bytes
) -> None:
  (claimed / 'config.json').write_bytes(sensitivity)
  with pytest.raises(ValueError, match='damaged file|differs in.*networks'):
    store.claim(claimed, config())


@pytest.mark.parametrize('text', ['[' * 100_000, '{"config": {"train":'])
def test_a_config_cut_short_is_refused(
  claimed: pathlib.Path, text: str
) -> None:
  (claimed / 'config.json').write_text(text)
  with pytest.raises(ValueError, match='expected a JSON object.* --workdir'):
    store.claim(claimed, config())


def test_files_are_complete_or_absent(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'x.json'
  store.write_json(path, {'a': 1})
  with pytest.raises(TypeError):
    store.write_json(path, {'a': 2, 'b': object()})
  assert json.loads(path.read_text()) == {'a': 1}
  store.write_json(path, [3])
  assert json.loads(path.read_text()) == [3]
  assert names(tmp_path) == {'x.json'}


def test_rows_and_cells(claimed: pathlib.Path) -> None:
  assert store.rows(claimed) == []
  assert store.cell(claimed, 'net-0-dense') is None
  one = row('net-0-dense')
  store.write_cell(claimed, one)
  assert store.cell(claimed, 'net-0-dense') == one
  assert store.rows(claimed) == []
  store.write_rows(claimed, [one, one])
  assert store.rows(claimed) == [one, one]
  assert names(claimed / 'cells') == {'net-0-dense.json'}


@pytest.mark.parametrize(
  'text', ['', '[1]', '{"rows": [', '{}', '{"rows": [1]}', '{"rows": [{}]}']
)
def test_damaged_rows_are_refused(claimed: pathlib.Path, text: str) -> None:
  for path in ('results.json', 'cells/x.json'):
    (claimed / path).write_text(text)
  for read in (store.rows, lambda folder: store.cell(folder, 'x')):
    with pytest.raises(ValueError, match='damaged file'):
      read(claimed)


def test_commit_is_that_of_the_sources() -> None:
  assert store.commit() == '' or int(store.commit(), 16) >= 0
