"""The gate on other interpreters and on the lowest versions of requirements.

`python -m tests.matrix [--only=REGEX] [--folder=FOLDER] [PYTEST ARGUMENT ...]`
runs types and quick tests, or the tests named, in each cell; types in those of
the newest versions alone, since they are the annotations of those:

- `3.11` and `3.13`: the interpreter, from PATH or pyenv, with the newest
  versions that requirements.txt allows;
- `lowest`: Python 3.11 with the lowest versions that it names;
- `debian`: Python 3.13 of Debian trixie in a folder, built with debootstrap if
  it does not exist; on Linux, as root. It runs where there is no Python 3.13
  otherwise, or if `--folder` is given.

Environments are kept under `.venv-matrix`, and are made anew if deleted.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent
PLACE = ROOT / '.venv-matrix'
FILES = ('-r', 'requirements.txt', '-r', 'requirements-test.txt')
INSIDE = '/root/tsukiji'  # the checkout in the folder
RELEASE, MIRROR = 'trixie', 'http://deb.debian.org/debian'
PACKAGES = 'ca-certificates,gcc,git,python3-dev,python3-venv'
CERTIFICATES = 'etc/ssl/certs/ca-certificates.crt'


class Cell(NamedTuple):
  """A place to run the gate in.

  Attributes:
    name: Of the cell.
    prefix: What precedes a command so that it runs there.
    python: The interpreter to make the environment with.
    venv: Path of the environment, as the command sees it.
    options: Of `uv pip install`; none for the newest versions.
  """

  name: str
  prefix: tuple[str, ...]
  python: str
  venv: str
  options: tuple[str, ...] = ()

  def run(self, *command: str) -> bool:
    """Run a command in the root of the checkout; return whether it passed."""
    print(f'[{self.name}] {" ".join(command)}', flush=True)
    line = [*self.prefix, *command]
    return subprocess.run(line, cwd=ROOT, check=False).returncode == 0

  def check(self, tests: Sequence[str]) -> bool:
    """Make the environment and run the gate; return whether it passed."""
    bin_, uv = f'{self.venv}/bin', f'{self.venv}/uv'
    install = (f'{uv}/bin/python', '-m', 'uv', 'pip', 'install', '--quiet')
    target = ('--python', f'{bin_}/python', *self.options, *FILES)
    workers = ('-n', '2', '--dist', 'loadfile', '--no-loadscope-reorder')
    return (
      self.run(self.python, '-m', 'venv', self.venv)
      and self.run(self.python, '-m', 'venv', uv)
      and self.run(f'{uv}/bin/python', '-m', 'pip', 'install', '-q', 'uv')
      and self.run(*install, *target)
      and (bool(self.options) or self.run(f'{bin_}/python', '-m', 'mypy'))
      and self.run(
        f'{bin_}/python', '-m', 'pytest', *workers, '-m', 'not slow', *tests
      )
    )


def interpreter(version: str) -> str | None:
  """Return a Python of a version that starts, of PATH or of pyenv."""
  pyenv = pathlib.Path.home() / '.pyenv' / 'versions'
  name = f'python{version}'
  found = [shutil.which(name), *pyenv.glob(f'{version}.*/bin/{name}')]
  for path in filter(None, found):
    done = subprocess.run([path, '--version'], capture_output=True, check=False)
    if done.returncode == 0:
      return str(path)
  return None


def installed(name: str, version: str, *options: str) -> Cell | None:
  """Return the cell of an interpreter of this machine, None without one."""
  python = interpreter(version)
  if python is None:
    return None
  return Cell(name, (), python, str(PLACE / name), options)


def debian(folder: pathlib.Path) -> Cell | None:
  """Return the cell of a folder with Debian, None where it cannot be built."""
  if os.geteuid() or not shutil.which('debootstrap'):
    return None
  if not (folder / 'usr/bin/python3').exists():
    include = f'--include={PACKAGES}'
    subprocess.run(
      ['debootstrap', '--variant=minbase', include, RELEASE, folder, MIRROR],
      check=True,
    )
  checkout = folder / INSIDE[1:]
  checkout.mkdir(parents=True, exist_ok=True)
  files = subprocess.run(
    ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  )
  for name in filter(None, files.stdout.split('\0')):
    source, target = ROOT / name, checkout / name
    if source.is_file():
      target.parent.mkdir(parents=True, exist_ok=True)
      shutil.copy2(source, target)
  for name in ('etc/resolv.conf', CERTIFICATES):  # of this machine's network
    shutil.copyfile(pathlib.Path('/') / name, folder / name)
  enter = f'cd {INSIDE} && exec "$@"'
  prefix = ('chroot', str(folder), 'sh', '-c', enter, 'sh')
  return Cell('debian', prefix, '/usr/bin/python3', f'{INSIDE}/.venv-matrix')


def cells(only: str, folder: str) -> list[Cell]:
  """Return the cells that there are, and name those that there are not."""
  found = {
    '3.11': installed('3.11', '3.11'),
    '3.13': installed('3.13', '3.13'),
    'lowest': installed('lowest', '3.11', '--resolution', 'lowest-direct'),
  }
  if folder or not found['3.13']:
    build = pathlib.Path(folder or PLACE / RELEASE).resolve()
    wanted = re.search(only, 'debian')
    found['debian'] = debian(build) if wanted else None
  chosen = {name: x for name, x in found.items() if re.search(only, name)}
  for name, cell in chosen.items():
    if cell is None:
      print(f'[{name}] left out: this machine has no such Python')
  return [cell for cell in chosen.values() if cell]


def main(argv: Sequence[str]) -> int:
  """Run the gate in every cell, and say in which it passed."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--only', default='', help='which cells')
  parser.add_argument('--folder', default='', help='with Debian, or to be')
  given, tests = parser.parse_known_args(argv)
  passed = {cell.name: cell.check(tests) for cell in cells(**vars(given))}
  for name, right in passed.items():
    print(f'[{name}] {"passed" if right else "FAILED"}')
  return 0 if passed and all(passed.values()) else 1


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
