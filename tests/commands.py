"""The command line, the way a newcomer uses it, in runs that tests share."""

import fcntl
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
Done = subprocess.CompletedProcess[str]


def start(*args: str) -> subprocess.Popen[str]:
  """Start `main.py`."""
  env = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'COLUMNS': '120'}
  return subprocess.Popen(
    [sys.executable, 'main.py', *args],
    cwd=ROOT,
    env=env,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    start_new_session=True,  # a group of its own, to signal as a whole
  )


def run(*args: str) -> Done:
  """Run `main.py` to its end."""
  process = start(*args)
  try:
    out, err = process.communicate(timeout=300)
  finally:
    process.kill()  # where it took too long
  return Done(args, process.returncode, out, err)


def workdir(factory: pytest.TempPathFactory, name: str) -> pathlib.Path:
  """Return the folder that all processes of this session know by a name."""
  base = factory.getbasetemp()  # of a worker, where there are several
  base = base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base
  (base / 'shared').mkdir(exist_ok=True)
  return base / 'shared' / name


def once(folder: pathlib.Path, *args: str) -> Done:
  """Run `main.py` in a shared workdir, or return what it has said there.

  Args:
    folder: What `workdir` gave; one process at a time runs in it.
    *args: The arguments, `--workdir` among them.

  Returns:
    What came of the first run with these arguments.
  """
  digest = hashlib.sha256(json.dumps(args).encode()).hexdigest()[:10]
  said = folder.with_name(f'{folder.name}-{digest}.json')
  with folder.with_name(f'{folder.name}.lock').open('w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not said.exists():
      done = run(*args)
      said.write_text(json.dumps([done.returncode, done.stdout, done.stderr]))
  return Done(args, *json.loads(said.read_text()))
