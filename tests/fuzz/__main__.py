"""Look for packed files that take more than they announce: `make fuzz`.

`python -m tests.fuzz --minutes=20` writes files of every kind of node, edits
their headers, sets the checksum right, and loads them in a process of limited
memory, which then runs one example. A finding is a file that

- raises anything but ValueError, or ends or blocks the process,
- takes more than 10 times the bytes that its header declares and 64 MiB, or
- takes more than 2 seconds for each declared megabyte and `loader.SECONDS`.

What a process takes once, as the pages of compiled code, counts for the file
that happens to need them first. A finding is therefore loaded again, alone in a
new process; if that one finds nothing wrong, it is counted as 'not repeated'.

Findings are printed and kept in `--folder`; the exit code is 1 if there are
any. Once mended, they belong in `tests/tsukiji/deploy/tsk/hostile.py`.
"""

import argparse
import collections
import hashlib
import pathlib
import sys
import time

import hypothesis

from tests.fuzz.edits import files, seeds
from tests.fuzz.loader import Loader

FRESH = 400  # files that a process loads: compiled programs stay in memory


def run(minutes: float, folder: pathlib.Path, first: int) -> int:
  """Load files until the time is over; return how many were wrong."""
  known = seeds()
  end = time.monotonic() + 60 * minutes
  counts: collections.Counter[str] = collections.Counter()
  folder.mkdir(parents=True, exist_ok=True)
  slowest = 0.0
  loader = Loader()

  def renew() -> None:
    nonlocal loader
    loader.close()
    loader = Loader()

  def attack(blob: bytes) -> None:
    nonlocal slowest
    if time.monotonic() > end:
      return
    path = folder / f'{hashlib.sha256(blob).hexdigest()[:12]}.tsk'
    path.write_bytes(blob)
    if loader.count >= FRESH or loader.process.poll() is not None:
      renew()
    found = loader.load(path)
    if found['wrong'] and loader.count > 1:
      renew()
      print(f'{path}: {found["wrong"]}; once more, alone:', flush=True)
      found = loader.load(path)
      counts['not repeated'] += not found['wrong']
    if found['wrong']:
      counts['wrong'] += 1
      print(f'{path}: {found["wrong"]}', flush=True)
      return
    path.unlink()
    counts[found['outcome']] += 1
    slowest = max(slowest, found['seconds'])

  options = hypothesis.settings(
    max_examples=500,
    database=None,
    deadline=None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=[*hypothesis.HealthCheck],
  )
  while time.monotonic() < end:
    given = hypothesis.given(files(known))(attack)
    hypothesis.seed(first)(options(given))()
    first += 1
  loader.close()
  files_read = sum(counts.values()) - counts['not repeated']
  total = ', '.join(f'{n} {name}' for name, n in sorted(counts.items()))
  print(f'{files_read} files: {total}; {slowest:.1f} s at most')
  return counts['wrong']


def main() -> int:
  """Read the arguments and run."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--minutes', type=float, default=20)
  parser.add_argument('--folder', type=pathlib.Path, default='runs/fuzz')
  parser.add_argument('--seed', type=int, default=time.time_ns() % 10**6)
  args = parser.parse_args()
  print(f'--seed={args.seed}', flush=True)
  return min(1, run(args.minutes, args.folder, args.seed))


if __name__ == '__main__':
  sys.exit(main())
