"""Runs that are stopped go on as if they had not been."""

import os
import pathlib
import signal
import subprocess
import time

import pytest

from tests.commands import once, run, start, workdir

pytestmark = pytest.mark.slow
LONG = (
  '--config=configs/quickstart.py:tiny',
  '--config.task=train',
  '--config.train.epochs=40',
  '--config.measure.repeats=2',
)


BUDGET = ('--config=configs/budget.py:tiny', '--config.workers=1')


def wait_for_epoch(
  folder: pathlib.Path, process: subprocess.Popen[str], lines: int = 4
) -> None:
  path = folder / 'metrics.jsonl'
  for _ in range(4800):
    if path.exists() and len(path.read_text().splitlines()) >= lines:
      return
    assert process.poll() is None, process.communicate()
    time.sleep(0.05)
  raise AssertionError('no epoch within minutes')


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('whole')
  assert run(*LONG, f'--workdir={folder}').returncode == 0
  return folder


@pytest.mark.parametrize(
  ('signum', 'code'),
  [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)],
)
def test_a_stopped_run_continues_to_the_same_bits(
  signum: int, code: int, tmp_path: pathlib.Path, uninterrupted: pathlib.Path
) -> None:
  args = (*LONG, f'--workdir={tmp_path}')
  process = start(*args)
  wait_for_epoch(tmp_path, process)
  if signum == signal.SIGKILL:
    process.kill()  # its workers notice
  else:  # as a terminal or a scheduler does: to the workers as well
    os.killpg(process.pid, signum)
  _, said = process.communicate(timeout=120)
  assert process.returncode == code
  assert 'Traceback' not in said
  assert not (tmp_path / 'results.json').exists()
  assert run(*args).returncode == 0
  for path in (uninterrupted / 'artefacts').iterdir():
    assert (tmp_path / 'artefacts' / path.name).read_bytes() == (
      path.read_bytes()
    )


def test_a_search_within_a_budget_continues_to_the_same_bits(
  tmp_path: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
  whole = workdir(tmp_path_factory, 'budget')
  done = once(whole, BUDGET[0], f'--workdir={whole}', BUDGET[1])
  assert done.returncode == 0, done.stderr
  args = (*BUDGET, f'--workdir={tmp_path}')
  process = start(*args)
  # In the recipe of the first trial, or in the network of the second.
  wait_for_epoch(tmp_path / 'trials', process, 3)
  os.killpg(process.pid, signal.SIGKILL)
  process.communicate(timeout=120)
  again = run(*args)
  assert again.returncode == 0, again.stderr
  files = sorted((whole / 'artefacts').glob('*.tsk'))
  assert len(files) == 5
  for path in files:
    other = tmp_path / 'artefacts' / path.name
    assert other.read_bytes() == path.read_bytes()
  for text in (again.stdout, (tmp_path / 'report.md').read_text()):
    said = ' '.join(text.split())
    assert 'The best network within 3,000 bytes: student' in said
    assert 'Runner-up: student' in said and '2 trials of 1 epochs' in said
