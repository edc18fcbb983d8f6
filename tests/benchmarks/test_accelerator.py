"""The benchmark of devices, on small sizes."""

import json
import pathlib
from typing import Any

import pytest

from benchmarks import accelerator


@pytest.mark.slow
def test_all_parts_are_measured_and_written(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'accelerator.json'
  found = accelerator.measured(accelerator.tiny(), path)
  assert json.loads(path.read_text()) == found
  assert set(found['step_ms']) == {'8', '16'}
  assert [x['together'] for x in found['trials']] == [1, 2]
  assert all(x['trials_an_hour'] > 0 for x in found['trials'])
  assert found['laws']['passed'] == 1 and not found['laws']['failed']


def test_what_there_is_no_time_for_is_left_out(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  def laws(*args: Any) -> dict[str, Any]:
    return {'passed': 0, 'failed': []}

  monkeypatch.setattr(accelerator, 'laws', laws)
  monkeypatch.setattr(accelerator, 'step_ms', lambda *_: {'p50': 1.0})
  path = tmp_path / 'accelerator.json'
  found = accelerator.measured(accelerator.tiny()._replace(minutes=0.0), path)
  assert found['trials'] == [] and '16' in found['step_ms']
