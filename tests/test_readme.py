"""The README is run: its commands, its code and its numbers."""

import json
import pathlib
import re
import shlex
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / 'README.md').read_text()
COMMANDS = [
  line.split('#')[0].strip()
  for block in re.findall(r'```sh\n(.*?)```', TEXT, re.S)
  for line in block.splitlines()
  if line.strip()
]
CODE = re.findall(r'```python\n(.*?)```', TEXT, re.S)
TABLES = re.findall(
  r'<!-- table: (\S+)(?: ([^\n]+?))? -->\n(.*?)<!-- end -->', TEXT, re.S
)


@pytest.mark.parametrize('line', [c for c in COMMANDS if c.startswith('make ')])
def test_make_targets_exist(line: str) -> None:
  subprocess.run(
    [*line.split(), '--dry-run'], cwd=ROOT, check=True, capture_output=True
  )


def test_commands_run(tmp_path: pathlib.Path) -> None:
  """Run every command on its config's ':tiny' form, in one workdir each."""
  lines = [c for c in COMMANDS if c.startswith('python ')]
  assert len(lines) >= 3
  seen: set[tuple[str, ...]] = set()
  for line in lines:
    args = []
    for word in shlex.split(line)[1:]:
      if word.startswith('--config='):
        word = word.removesuffix(':tiny') + ':tiny'
      if word.startswith('--workdir='):
        word = f'--workdir={tmp_path / word.rpartition("/")[2]}'
      if word.startswith('--config.train.epochs='):
        word = '--config.train.epochs=1'
      args.append(word)
    if not any(word.startswith('--workdir') for word in args):
      args.append(f'--workdir={tmp_path / "default"}')
    if tuple(args) in seen:
      continue
    seen.add(tuple(args))
    done = subprocess.run(
      [sys.executable, *args], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_code_runs(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.chdir(ROOT)
  names: dict[str, Any] = {}
  for block in CODE:
    exec(block, names)
  assert np.shape(names['logits']) == (3, 3)
  low = names['lowrank'](2).init({'fc': np.ones((4, 3), np.float32)}, None)
  assert low['fc'].u.shape == (4, 2)
  np.testing.assert_allclose(low['fc'].decode(None), 1, rtol=1e-5)


@pytest.mark.parametrize(('path', 'named', 'table'), TABLES)
def test_tables_come_from_results(path: str, named: str, table: str) -> None:
  from tsukiji import report

  rows = json.loads((ROOT / path).read_text())['rows']
  assert table.strip() == report.markdown(rows, named).strip()


def test_pictures_exist() -> None:
  pictures = re.findall(r'!\[[^]]*\]\(([^)]+)\)', TEXT)
  assert pictures
  for picture in pictures:
    assert (ROOT / picture).read_bytes()[:4] == b'\x89PNG'
