"""The tree: small folders, small files, arrows that point downwards."""

import ast
import collections
import difflib
import functools
import graphlib
import itertools
import pathlib

import pytest

from tests.test_imports import ROOT, imported

ROOMS = ('compress', 'search', 'tsukiji', 'configs')
MODULES = sorted(
  path
  for room in ROOMS
  for path in (ROOT / room).rglob('*.py')
  if path.name != '__init__.py'
)
PAGE = 150  # lines of README.md
FOLDER, FILE, FUNCTION = 20, 350, 60
Graph = dict[str, set[str]]


def name_of(path: pathlib.Path) -> str:
  """Return the dotted name of a module or package."""
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


@functools.cache
def graph() -> Graph:
  """Return what each module imports of ours when it is loaded."""
  paths = [p for room in ROOMS for p in (ROOT / room).rglob('*.py')]
  names = {name_of(p): p for p in paths}
  found: Graph = {}
  for name, path in names.items():
    body = ast.parse(path.read_text()).body
    package = path.relative_to(ROOT).parts[:-1]
    wanted = imported(list(body), package)
    found[name] = {
      x if x in names else x.rpartition('.')[0] for x in wanted
    } & set(names)
  return found


def circle(arrows: Graph) -> list[str]:
  """Return names that import each other in a circle, or nothing."""
  try:
    graphlib.TopologicalSorter(arrows).prepare()
  except graphlib.CycleError as e:
    return [*e.args[1]]
  return []


def between(arrows: Graph, depth: int) -> Graph:
  """Return the arrows between folders, named by so many parts."""
  found: Graph = collections.defaultdict(set)
  for name, wanted in arrows.items():
    folder = '.'.join(name.split('.')[:-1][:depth])
    for other in wanted:
      target = '.'.join(other.split('.')[:-1][:depth])
      if folder.count('.') == target.count('.') == depth - 1:
        found[folder] |= {target} - {folder}
  return found


def test_modules_import_in_no_circle() -> None:
  assert len(graph()) > 150
  assert circle(graph()) == []


@pytest.mark.parametrize('depth', [1, 2, 3])
def test_folders_import_in_no_circle(depth: int) -> None:
  arrows = between(graph(), depth)
  assert circle(arrows) == []
  assert depth > 2 or len(arrows) >= 3


def test_a_circle_is_found() -> None:
  arrows = {'a.b.x': {'a.c.y'}, 'a.c.y': {'a.c.z'}, 'a.c.z': {'a.b.w'}}
  assert circle(arrows) == []
  assert sorted(set(circle(between(arrows, 2)))) == ['a.b', 'a.c']
  assert between(arrows, 1) == {'a': set()}


def test_folders_hold_few_modules() -> None:
  sizes = collections.Counter(p.parent for p in MODULES)
  assert {p: n for p, n in sizes.items() if n > FOLDER} == {}


def lines(path: pathlib.Path) -> int:
  """Return the lines of a file."""
  return len(path.read_text().splitlines())


def test_modules_are_short() -> None:
  assert {name_of(p): lines(p) for p in MODULES if lines(p) > FILE} == {}
  middle = sorted(map(lines, MODULES))[len(MODULES) // 2]
  assert middle <= FILE / 2


def length(node: ast.FunctionDef) -> int:
  """Return the lines of a function without its docstring."""
  doc = ast.get_docstring(node, clean=False)
  assert node.end_lineno
  return node.end_lineno - node.lineno + 1 - (doc.count('\n') + 1 if doc else 0)


def test_functions_are_short() -> None:
  long = {
    f'{name_of(path)}.{node.name}': length(node)
    for path in MODULES
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.FunctionDef) and length(node) > FUNCTION
  }
  assert long == {}


def test_names_do_not_differ_by_an_ending() -> None:
  rooms = [p for p in MODULES if p.parent.name != 'configs']
  stems = sorted({p.stem for p in rooms})
  for one, other in itertools.combinations(stems, 2):
    if min(len(one), len(other)) > 3:
      twins = difflib.SequenceMatcher(None, one, other).ratio() > 0.9
      assert not twins, (one, other)


def test_every_folder_says_what_it_holds() -> None:
  for folder in {p.parent for p in MODULES}:
    start = folder / '__init__.py'
    assert start.exists(), folder
    if folder.name != 'configs':
      assert ast.get_docstring(ast.parse(start.read_text())), folder


def test_the_readme_is_a_page() -> None:
  assert lines(ROOT / 'README.md') <= PAGE
