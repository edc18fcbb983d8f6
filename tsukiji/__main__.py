"""The command `tsukiji`, which is also `main.py` and `python -m tsukiji`."""

import os
import signal
import sys
from types import FrameType


def main() -> int:
  """Run one experiment; return the exit code."""
  for signum in (signal.SIGINT, signal.SIGTERM):
    signal.signal(signum, _leave)
  sys.path.append(os.getcwd())  # where own networks and methods may be
  from tsukiji import cli

  code = cli.main(sys.argv[1:])
  if code > 128:  # a signal: XLA takes a second to take itself down
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  return code


def _leave(signum: int, frame: FrameType | None) -> None:
  """Exit on a signal during start-up."""
  del frame
  os._exit(128 + signum)


if __name__ == '__main__':
  sys.exit(main())
