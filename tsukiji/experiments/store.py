"""The folder of an experiment: its identity, its rows, written atomically."""

import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from typing import Any, TypeAlias

from ml_collections import ConfigDict

from tsukiji import atomic
from tsukiji.config import settings
from tsukiji.errors import expect
from tsukiji.experiments import identity

Row: TypeAlias = dict[str, Any]  # a row of results.json; keys in the README
# What each row has.
KEYS = {'name', 'recipe', 'network', 'seed', 'artefact', 'bytes'}
LIBRARIES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy')


def expect_place(folder: pathlib.Path) -> None:
  """Check that a folder can be created."""
  there = next(path for path in (folder, *folder.parents) if path.exists())
  right = there.is_dir() and os.access(there, os.W_OK)
  got = 'Permission denied' if there.is_dir() else 'Not a directory'
  if not right:
    raise _unwritable(folder, got)


def _unwritable(folder: pathlib.Path, reason: str | None) -> ValueError:
  return ValueError(
    f'workdir {folder}: expected a folder that can be written, got {reason}. '
    'Use another --workdir.'
  )


def claim(folder: pathlib.Path, config: ConfigDict) -> None:
  """Claim a folder for an experiment.

  Args:
    folder: The workdir; made if it is missing.
    config: The resolved config.

  Raises:
    ValueError: If the folder cannot be written or holds another experiment.
  """
  path = folder / 'config.json'
  if path.exists():
    _expect_same(folder, settings.plain(config), _read(path).get('config'))
  try:
    for name in ('artefacts', 'cells', 'checkpoints', 'figures'):
      (folder / name).mkdir(parents=True, exist_ok=True)
    if not path.exists():
      write_json(path, _provenance(config))
  except OSError as e:
    raise _unwritable(folder, e.strerror) from e


def _expect_same(
  folder: pathlib.Path, here: dict[str, Any], there: Any
) -> None:
  here, there = identity.of(here), identity.of(_dictionary(there))
  changed = sorted(
    k for k in here.keys() | there.keys() if here.get(k) != there.get(k)
  )
  if changed:
    raise ValueError(
      f'workdir {folder}: expected a folder of this config, got one that '
      f'differs in {", ".join(changed)}. Use another --workdir.'
    )


def _dictionary(x: Any) -> dict[str, Any]:
  """Return `x` if it is a config at all, else an empty one."""
  parts = ('networks', 'recipes')
  right = isinstance(x, dict) and all(
    isinstance(item, dict)
    for part in parts
    for item in (x.get(part), *_values(x.get(part)))
  )
  return x if right else {}


def _values(x: Any) -> list[Any]:
  return list(x.values()) if isinstance(x, dict) else []


def _provenance(config: ConfigDict) -> dict[str, Any]:
  return {
    'config': settings.plain(config),
    'command': shlex.join(['python', *sys.argv]),
    'commit': commit(),
    'versions': {
      'python': platform.python_version(),
      **{name: importlib.metadata.version(name) for name in LIBRARIES},
    },
    'machine': machine(),
  }


def provenance_of(folder: pathlib.Path) -> dict[str, Any]:
  """Return the command, commit, versions and machine of an experiment."""
  return _read(folder / 'config.json')


def commit() -> str:
  """Return the commit of the sources, '' outside a checkout."""
  found = subprocess.run(
    ['git', 'rev-parse', '--short', 'HEAD'],
    cwd=pathlib.Path(__file__).parent,
    capture_output=True,
    text=True,
    check=False,
  )
  return found.stdout.strip()


def machine() -> str:
  """Return the processor and the number of cores."""
  name = platform.processor() or platform.machine()
  cpuinfo = pathlib.Path('/proc/cpuinfo')
  if cpuinfo.exists():
    for line in cpuinfo.read_text().splitlines():
      if line.startswith('model name'):
        name = line.partition(':')[2].strip()
        break
  return f'{name}, {os.cpu_count()} cores, {platform.system()}'


def write_json(path: pathlib.Path, value: Any) -> None:
  """Write a JSON file atomically."""
  with atomic.replacing(path) as file:
    file.write(json.dumps(value, indent=1).encode())


def _read(path: pathlib.Path) -> dict[str, Any]:
  try:
    return dict(json.loads(path.read_text()))
  except (TypeError, ValueError, RecursionError) as e:
    raise ValueError(
      f'{path}: expected a JSON object, got a damaged file. Use another '
      '--workdir.'
    ) from e


def rows(folder: pathlib.Path) -> list[Row]:
  """Return the rows of a finished experiment, none if it is unfinished.

  Raises:
    ValueError: If results.json is damaged.
  """
  path = folder / 'results.json'
  if not path.exists():
    return []
  found = _read(path).get('rows')
  right = isinstance(found, list) and all(map(_is_row, found))
  fix = 'Remove it and run the command again.'
  expect(f'{path}', right, 'an object with rows', 'a damaged file', fix)
  return list(found or ())


def finished_rows(folder: pathlib.Path) -> list[Row]:
  """Return the rows of an experiment that is finished.

  Raises:
    ValueError: If it is not.
  """
  found = rows(folder)
  fix = 'Run it with --config.task=compress first.'
  what = 'a finished experiment'
  expect(f'workdir {folder}', found, what, 'no results.json', fix)
  return found


def _is_row(x: Any) -> bool:
  return isinstance(x, dict) and x.keys() >= KEYS


def cell(folder: pathlib.Path, name: str) -> Row | None:
  """Return the row of a run, or None if it is not finished."""
  path = folder / 'cells' / f'{name}.json'
  if not path.exists():
    return None
  found = _read(path)
  fix = 'Remove it and run the command again.'
  expect(f'{path}', _is_row(found), 'a row', 'a damaged file', fix)
  return found


def write_cell(folder: pathlib.Path, row: Row) -> None:
  """Write the row of a finished run."""
  write_json(folder / 'cells' / f'{row["name"]}.json', row)


def write_rows(folder: pathlib.Path, found: list[Row]) -> None:
  """Write results.json."""
  write_json(folder / 'results.json', {'rows': found})
