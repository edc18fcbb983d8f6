"""Curves from metrics.jsonl: in order, each epoch once."""

import json
import pathlib

from tsukiji.training import loop as fitting


def entry(run: str, step: int, split: str, loss: float) -> str:
  return json.dumps({'run': run, 'step': step, 'split': split, 'loss': loss})


def test_curves_keep_the_later_of_two(tmp_path: pathlib.Path) -> None:
  written = [
    entry('b', 5, 'validation', 1.0),
    entry('b', 5, 'train', 2.0),
    entry('a', 10, 'train', 3.0),
    entry('b', 10, 'train', 4.0),
    '{"no": "run"}',
    entry('b', 5, 'train', 5.0),
    entry('b', 15, 'train', 6.0)[:-9],
  ]
  (tmp_path / 'metrics.jsonl').write_text('\n'.join(written))
  found = fitting.curves(tmp_path)
  assert {
    name: [(x['step'], x['split'], x['loss']) for x in run]
    for name, run in found.items()
  } == {
    'b': [(5, 'train', 5.0), (5, 'validation', 1.0), (10, 'train', 4.0)],
    'a': [(10, 'train', 3.0)],
  }


def test_curves_leave_out_what_is_no_line(tmp_path: pathlib.Path) -> None:
  line = b'{"run": "a", "step": 1, "split": "train"}'
  odd = (b'\xff\xfe{', b'[1]', b'3', b'{"run": []}', b'{"run": "a"')
  (tmp_path / 'metrics.jsonl').write_bytes(b'\n'.join((*odd, line, *odd)))
  (entry,) = fitting.curves(tmp_path)['a']
  assert entry['step'] == 1


def test_curves_of_nothing(tmp_path: pathlib.Path) -> None:
  assert fitting.curves(tmp_path) == {}
