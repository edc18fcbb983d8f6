"""Who may import whom, and what nobody may."""

import ast
import functools
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parent.parent
OURS = {
  *('benchmarks', 'compress', 'configs', 'main', 'search', 'tests', 'tsukiji')
}
MAY_IMPORT = {
  'compress': {'compress'},
  'search': {'search'},
  'tsukiji': {'compress', 'search', 'tsukiji'},
  'configs': {'compress', 'configs', 'search', 'tsukiji'},
  'main.py': OURS - {'benchmarks', 'tests'},
  'benchmarks': OURS - {'main'},
  'tests': OURS,
}
SOURCES = sorted(
  path
  for top in MAY_IMPORT
  for path in [ROOT / top, *(ROOT / top).rglob('*.py')]
  if path.suffix == '.py'
)
LIBRARIES = [p for p in SOURCES if 'tests' not in p.relative_to(ROOT).parts]
UNSAFE = {'cloudpickle', 'dill', 'joblib', 'marshal', 'pickle', 'shelve'}
INTERNAL = ('jax.interpreters', 'jaxlib')
# Documented, in spite of an underscore, and documented to be assigned.
PUBLIC, ASSIGNED = {'os._exit'}, {'warnings.showwarning'}


def named(paths: list[pathlib.Path]) -> pytest.MarkDecorator:
  """Return the test of each file under its name."""
  names = [str(path.relative_to(ROOT)) for path in paths]
  return pytest.mark.parametrize('path', paths, ids=names)


@functools.cache
def nodes(path: pathlib.Path) -> list[ast.AST]:
  """Return everything in a file."""
  return list(ast.walk(ast.parse(path.read_text(), str(path))))


def imported(body: list[ast.AST], package: tuple[str, ...]) -> Iterator[str]:
  """Yield the dotted names that code in a package imports, as absolute."""
  for node in body:
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      base = package[: len(package) - node.level + 1] if node.level else ()
      stem = '.'.join([*base, *([node.module] if node.module else [])])
      yield from (f'{stem}.{alias.name}' for alias in node.names)


def imports(path: pathlib.Path) -> list[str]:
  """Return what a file imports."""
  package = path.relative_to(ROOT).parts[:-1]
  return list(imported(nodes(path), package))


def dotted(node: ast.AST) -> str:
  """Return `a.b.c` of an attribute or a name, else ''."""
  if isinstance(node, ast.Name):
    return node.id
  if isinstance(node, ast.Attribute) and dotted(node.value):
    return f'{dotted(node.value)}.{node.attr}'
  return ''


def modules(path: pathlib.Path) -> set[str]:
  """Return the names under which a file knows modules and what is in them."""
  return {
    (alias.asname or alias.name).partition('.')[0]
    for node in nodes(path)
    if isinstance(node, ast.Import | ast.ImportFrom)
    for alias in node.names
  }


def is_private(name: str) -> bool:
  """Tell whether a dotted name passes through an underscore."""
  return any(
    part.startswith('_') and not part.startswith('__')
    for part in name.split('.')
  )


def test_all_rooms_are_looked_at() -> None:
  found = {path.relative_to(ROOT).parts[0] for path in SOURCES}
  assert found >= {'compress', 'search', 'tsukiji', 'configs', 'main.py'}
  assert len(SOURCES) > 40


@named(SOURCES)
def test_rooms_import_in_one_direction(path: pathlib.Path) -> None:
  allowed = MAY_IMPORT[path.relative_to(ROOT).parts[0]]
  wanted = {name.partition('.')[0] for name in imports(path)} & OURS
  assert wanted <= allowed


@named(LIBRARIES)
def test_nothing_unsafe_or_internal_is_imported(path: pathlib.Path) -> None:
  for name in imports(path):
    assert not set(name.split('.')) & UNSAFE, name
    assert not name.startswith(INTERNAL), name
    assert not is_private(name), name


@named(LIBRARIES)
def test_private_parts_of_modules_stay_private(path: pathlib.Path) -> None:
  known = modules(path)
  for node in nodes(path):
    name = dotted(node) if isinstance(node, ast.Attribute) else ''
    if name.partition('.')[0] in known:
      wrong = is_private(name) or name.startswith(INTERNAL)
      wrong &= name not in PUBLIC
      assert not wrong, f'{path.name}:{node.lineno} {name}'


@named(LIBRARIES)
def test_nothing_is_patched_or_unpickled(path: pathlib.Path) -> None:
  known = modules(path)
  for name in imports(path):
    assert 'mock' not in name.split('.'), name
  for node in nodes(path):
    targets: list[ast.AST] = []
    if isinstance(node, ast.Assign | ast.Delete):
      targets = list(node.targets)
    elif isinstance(node, ast.AnnAssign | ast.AugAssign):
      targets = [node.target]
    for target in targets:
      owner = dotted(target).partition('.')[0]
      patched = isinstance(target, ast.Attribute) and owner in known
      patched &= dotted(target) not in ASSIGNED
      assert not patched, f'{path.name}:{node.lineno} {dotted(target)}'
    if isinstance(node, ast.Call):
      called = dotted(node.func)
      assert called not in {'eval', 'exec', 'setattr', '__import__'}, called
      for keyword in node.keywords:
        assert keyword.arg != 'allow_pickle' or not getattr(
          keyword.value, 'value', True
        ), f'{path.name}:{node.lineno}'


@pytest.mark.parametrize(
  ('text', 'wanted'),
  [
    ('import a.b as c', ['a.b']),
    ('from a import b, c', ['a.b', 'a.c']),
    ('from . import b', ['tests.b']),
    ('from .a import b', ['tests.a.b']),
    ('def f():\n  import jax._src.core', ['jax._src.core']),
  ],
)
def test_imports_are_found(text: str, wanted: list[str]) -> None:
  body = list(ast.walk(ast.parse(text)))
  assert list(imported(body, ('tests',))) == wanted


@pytest.mark.parametrize(
  ('name', 'private'),
  [
    ('jax._src.core', True),
    ('flax.linen._private', True),
    ('jax.numpy', False),
    ('module.__name__', False),
  ],
)
def test_private_names_are_errors(name: str, private: bool) -> None:
  assert is_private(name) == private
