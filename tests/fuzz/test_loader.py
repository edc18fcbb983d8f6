"""The fuzz run distinguishes good files from bad ones."""

import pathlib

import pytest

from tests.fuzz.edits import sealed, seeds
from tests.fuzz.loader import answer
from tests.tsukiji.deploy.tsk.hostile import ATTACKS

pytestmark = pytest.mark.skipif(
  not pathlib.Path('/proc/self/clear_refs').exists(), reason='needs Linux'
)


def test_a_good_file_is_loaded_and_runs(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'good.tsk'
  seed = next(seed for seed in seeds() if 's' in seed.fields)
  path.write_bytes(sealed(seed.fields, seed.parts))
  found = answer(path)
  assert (found['wrong'], found['outcome']) == ('', 'loaded')


def test_a_hostile_file_is_refused(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'bad.tsk'
  path.write_bytes(ATTACKS['toeplitz'][1]())
  found = answer(path)
  assert (found['wrong'], found['outcome']) == ('', 'refused')


def test_large_arrays_are_made_of_few_bytes(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'large.tsk'
  seed = next(seed for seed in seeds() if 's' in seed.fields)
  seed.fields['v']['batch_stats'] = {'x': {'y': 'f4 1000 1000'}}
  path.write_bytes(sealed(seed.fields, seed.parts))
  assert path.stat().st_size < 1000
  assert answer(path)['outcome'] == 'refused'  # no weight of the network
