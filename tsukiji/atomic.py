"""Files that are written atomically."""

import contextlib
import os
import pathlib
import secrets
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
  """Open a temporary file that replaces a file once it is complete.

  Args:
    path: The file; its folder is created.

  Yields:
    The temporary file; it is removed if writing fails.

  Raises:
    OSError: If the place cannot be written or the disk is full.
  """
  draft = path.with_name(f'.{path.name}.{secrets.token_hex(4)}')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(draft, 'xb') as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(draft, path)
  finally:
    with contextlib.suppress(OSError):
      draft.unlink(missing_ok=True)
