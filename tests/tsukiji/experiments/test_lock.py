"""A workdir belongs to one command at a time."""

import os
import pathlib
import subprocess
import sys

import pytest

from tsukiji.experiments import lock

HOLD = (
  'import pathlib, sys, time\n'
  'from tsukiji.experiments import lock\n'
  'with lock.held(pathlib.Path(sys.argv[1])):\n'
  '  print("held", flush=True)\n'
  '  time.sleep(60)\n'
)


def test_the_holder_is_named_and_a_killed_one_lets_go(
  tmp_path: pathlib.Path,
) -> None:
  command = [sys.executable, '-c', HOLD, str(tmp_path)]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
    assert holder.stdout is not None
    assert holder.stdout.readline() == 'held\n'
    said = f'no other command uses, got .process {holder.pid} on'
    with pytest.raises(ValueError, match=said), lock.held(tmp_path):
      pass
    holder.kill()
    holder.wait()
    with lock.held(tmp_path):
      assert f'process {os.getpid()} on' in (tmp_path / 'lock').read_text()
  assert (tmp_path / 'lock').read_text() == ''


def test_a_holder_holds_again_after_it_let_go(tmp_path: pathlib.Path) -> None:
  for _ in range(2):
    with lock.held(tmp_path), pytest.raises(ValueError, match='no other'):
      lock.held(tmp_path).__enter__()
