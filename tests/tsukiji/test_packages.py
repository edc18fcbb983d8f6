"""Imports inside tsukiji: packages depend downwards, modules in no circle."""

import graphlib
import pathlib

import pytest

from tests.test_imports import ROOT, imports

# A package may import packages of lower rank, and itself.
RANKS = {
  'data': 0,
  'graph': 0,
  'models': 0,
  'report': 0,
  'deploy': 1,
  'training': 2,
  'measure': 2,
  'config': 3,
  'experiments': 4,
}
MODULES = sorted((ROOT / 'tsukiji').rglob('*.py'))


def module(path: pathlib.Path) -> str:
  """Return the dotted name of a file."""
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def package(name: str) -> str:
  """Return the package of a dotted name inside tsukiji, '' for the top."""
  parts = name.split('.')
  known = len(parts) > 1 and parts[0] == 'tsukiji' and parts[1] in RANKS
  return parts[1] if known else ''


@pytest.mark.parametrize('path', MODULES, ids=module)
def test_packages_import_downwards(path: pathlib.Path) -> None:
  own = package(module(path))
  for name in imports(path) if own else ():
    other = package(name)
    if other and other != own:
      assert RANKS[other] < RANKS[own], f'{module(path)} imports {name}'


def test_every_package_has_a_rank() -> None:
  folders = {p.parent.name for p in (ROOT / 'tsukiji').glob('*/__init__.py')}
  assert folders == set(RANKS)


def test_no_module_imports_itself_through_others() -> None:
  names = {module(path) for path in MODULES}
  graph = {}
  for path in MODULES:
    found = {*imports(path)}
    found |= {name.rpartition('.')[0] for name in found}
    # A package is imported by its modules as a namespace only.
    own = module(path)
    graph[own] = {
      x for x in found & names if x != own and not own.startswith(f'{x}.')
    }
  graphlib.TopologicalSorter(graph).prepare()  # raises CycleError
