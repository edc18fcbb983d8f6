"""Locks of workdirs, which one command uses at a time."""

import contextlib
import fcntl
import os
import pathlib
import shlex
import socket
import sys
from collections.abc import Iterator

from tsukiji.errors import expect


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
  """Lock a workdir; the lock of a process that dies is released.

  Args:
    folder: The workdir, which exists.

  Raises:
    ValueError: If another process has the lock; the message names it.
  """
  with (folder / 'lock').open('a+', errors='replace') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      holder = file.read(150).strip() or 'another process'
      fix = 'Wait until it is done, or use another --workdir.'
      what = 'a workdir that no other command uses'
      expect(f'workdir {folder}', False, what, holder, fix)
    except OSError:  # a file system without locks
      yield
      return
    file.truncate(0)
    file.write(
      f'process {os.getpid()} on {socket.gethostname()}: {shlex.join(sys.argv)}'
    )
    file.flush()
    try:
      yield
    finally:
      file.truncate(0)
