"""A PostgreSQL server of a test's own."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

PLACES = '/usr/lib/postgresql/*/bin'  # where Debian puts what is not on a path


@contextlib.contextmanager
def server() -> Iterator[str]:
  """Start a server that forgets all in the end, and yield its URL."""
  commands = _commands()
  with tempfile.TemporaryDirectory() as folder:
    data = f'{folder}/data'
    requested: tuple[str, ...] = ()
    if os.geteuid() == 0:  # it does not run as root
      shutil.chown(folder, 'postgres')
      requested = ('runuser', '-u', 'postgres', '--')
    port = _free_port()
    options = f'-k {folder} -h 127.0.0.1 -p {port} -c fsync=off'
    control = (*requested, f'{commands}/pg_ctl', '-D', data)
    _run(
      *requested, f'{commands}/initdb', '-D', data, '-A', 'trust', '-U', 'me'
    )
    _run(*control, '-o', options, '-l', f'{folder}/log', '-w', 'start')
    try:
      yield f'postgresql+psycopg://me@127.0.0.1:{port}/postgres'
    finally:
      _run(*control, '-m', 'immediate', 'stop')


def _commands() -> pathlib.Path:
  on_path = shutil.which('initdb')
  found = sorted(pathlib.Path('/').glob(PLACES[1:]))
  if not (on_path or found):
    pytest.skip('No PostgreSQL server is installed: apt install postgresql.')
  return pathlib.Path(on_path).parent if on_path else found[-1]


def _free_port() -> int:
  with socket.socket() as one:
    one.bind(('127.0.0.1', 0))
    port: int = one.getsockname()[1]
  return port


def _run(*command: str) -> None:
  subprocess.run(command, check=True, cwd='/', stdout=subprocess.DEVNULL)
