"""Event files of TensorBoard hold the metrics of each epoch."""

import importlib.util
import pathlib
import struct

import pytest

from tsukiji.training import event_files


def read(path: pathlib.Path) -> list[tuple[int, str, float]]:
  """Return step, name and value of the scalars of a file."""
  events = pytest.importorskip('tensorboardX').proto.event_pb2
  found, blob = [], path.read_bytes()
  while blob:
    (size,) = struct.unpack_from('<Q', blob)
    event = events.Event.FromString(blob[12 : 12 + size])
    blob = blob[16 + size :]
    found += [(event.step, x.tag, x.simple_value) for x in event.summary.value]
  return found


def test_each_epoch_is_in_one_file(tmp_path: pathlib.Path) -> None:
  pytest.importorskip('tensorboardX')
  for step in (10, 20):
    event_files.write(tmp_path / 'run' / 'train', step, 0.5, 0.25)
  (path,) = (tmp_path / 'run' / 'train').iterdir()
  assert read(path) == [
    (step, name, value)
    for step in (10, 20)
    for name, value in (('loss', 0.5), ('accuracy', 0.25))
  ]


def test_nothing_is_written_without_a_writer(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  event_files.write(tmp_path / 'run', 10, 0.5, 0.25)
  assert not (tmp_path / 'run').exists()
