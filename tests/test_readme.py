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

from tests.commands import ROOT, once, workdir

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


def test_commands_run(tmp_path_factory: pytest.TempPathFactory) -> None:
  """Run every command on its config's ':tiny' form, in one workdir each.

  The workdirs are those of `test_main`: the first to come does the work.
  """
  lines = [c for c in COMMANDS if c.startswith('python ')]
  assert len(lines) >= 3
  for line in lines:
    program, *words = shlex.split(line)[1:]
    if program == '-m':
      look(tmp_path_factory, *words)
      continue
    assert program == 'main.py'
    args = []
    folder = None
    for word in words:
      if word.startswith('--config='):
        word = word.removesuffix(':tiny') + ':tiny'
        stem = pathlib.Path(word.removesuffix(':tiny')).stem
        folder = workdir(tmp_path_factory, stem)
      if word.startswith('--config.train.epochs='):
        word = '--config.train.epochs=1'
      if not word.startswith('--workdir='):
        args.append(word)
    assert folder
    done = once(folder, args[0], f'--workdir={folder}', *args[1:])
    assert done.returncode == 0, done.stderr


def look(factory: pytest.TempPathFactory, module: str, file: str) -> None:
  """Run a module on an artefact of the quickstart."""
  path = workdir(factory, 'quickstart') / 'artefacts' / pathlib.Path(file).name
  subprocess.run(
    [sys.executable, '-m', module, path],
    cwd=ROOT,
    check=True,
    capture_output=True,
  )


def test_code_runs(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.chdir(ROOT)
  names: dict[str, Any] = {}
  for block in CODE:
    exec(block, names)
  assert np.shape(names['logits']) == (3, 3)
  np.testing.assert_allclose(names['onnx_logits'], names['logits'], 1e-4, 1e-4)
  (served,) = [block for block in CODE if 'onnxruntime' in block]
  # A module that is None cannot be imported.
  alone = f"import sys; sys.modules['jax'] = None\n{served}"
  subprocess.run([sys.executable, '-c', alone], cwd=ROOT, check=True)
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
