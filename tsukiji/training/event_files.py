"""Event files for TensorBoard, where tensorboardX is installed."""

import importlib.util
import pathlib
import struct
import time

NAME, VERSION = 'events.out.tfevents.0.tsukiji', 'brain.Event:2'


def write(
  folder: pathlib.Path, step: int, loss: float, accuracy: float
) -> None:
  """Append the metrics of an epoch, if somebody can write such files.

  Args:
    folder: Of the files of a run and split; made if it is missing.
    step: Number of training steps so far.
    loss: The mean loss.
    accuracy: A fraction in [0, 1].
  """
  if importlib.util.find_spec('tensorboardX') is None:
    return
  from tensorboardX.proto import event_pb2, summary_pb2

  values = [
    summary_pb2.Summary.Value(tag=tag, simple_value=value)
    for tag, value in (('loss', loss), ('accuracy', accuracy))
  ]
  summary = summary_pb2.Summary(value=values)
  event = event_pb2.Event(wall_time=time.time(), step=step, summary=summary)
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / NAME).open('ab') as file:
    if file.tell() == 0:
      first = event_pb2.Event(wall_time=time.time(), file_version=VERSION)
      file.write(_record(first.SerializeToString()))
    file.write(_record(event.SerializeToString()))


def _record(data: bytes) -> bytes:
  """Return an entry of a file: its length and itself, each with a checksum."""
  from tensorboardX.record_writer import masked_crc32c

  size = struct.pack('<Q', len(data))
  sums = [struct.pack('<I', masked_crc32c(part)) for part in (size, data)]
  return size + sums[0] + data + sums[1]
