"""Loading of config files, and flags that override their values."""

import ast
import importlib.util
import pathlib
import re
import traceback
import types
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from compress.errors import shorten
from tsukiji.config import fields, kinds, settings
from tsukiji.errors import expect, expect_name


class Place(NamedTuple):
  """A config file, and the argument of its `get_config`."""

  path: pathlib.Path
  arg: str


def load(name: str, changes: Sequence[str] = ()) -> ConfigDict:
  """Read a config file and apply flags such as `--config.train.lr=0.1`.

  Args:
    name: See `find`.
    changes: The flags.

  Returns:
    The config, locked.

  Raises:
    ValueError: If the file fails or a flag is not valid.
  """
  place = find(name)
  config = _returned(place)
  return changed(fields.adopt(config), changes)


def find(name: str) -> Place:
  """Return the config file of a name.

  Args:
    name: A path, or the name of a packaged config, with or without `configs/`
      and `.py`; an argument for `get_config` may follow behind a colon.

  Raises:
    ValueError: If there is no such file.

  >>> find('quickstart:tiny').arg
  'tiny'
  """
  given, _, arg = name.partition(':')
  stem = given.removeprefix('configs/').removesuffix('.py')
  known = packaged()
  for path in (pathlib.Path(given), known.get(stem)):
    if path and path.is_file():
      return Place(path, arg)
  expect_name('--config', stem, known, f'a file, {given}, or one')
  raise AssertionError


def packaged() -> dict[str, pathlib.Path]:
  """Return the configs that are installed with this package, by name."""
  found = importlib.util.find_spec('configs')
  places = list(found.submodule_search_locations or ()) if found else []
  files = [file for x in places for file in pathlib.Path(x).glob('[!_]*.py')]
  return {file.stem: file for file in sorted(files)}


def _returned(place: Place) -> ConfigDict:
  """Return the result of `get_config`, which must accept the argument."""
  try:
    get: Any = getattr(_module(place.path), 'get_config', None)
    expect(f'{place.path}', callable(get), 'a function get_config', get)
    config = get(place.arg) if place.arg else get()
    plain = get() if place.arg and get.__defaults__ else None
  except Exception as e:  # a config file may raise anything
    raise ValueError(f'{_where(place.path, e)}: {_said(e)}') from e
  what, fix = 'a ConfigDict from get_config', 'Return settings.default().'
  right = isinstance(config, ConfigDict)
  expect(f'{place.path}', right, what, type(config).__name__, fix)
  if isinstance(plain, ConfigDict):
    same = settings.plain(plain) == settings.plain(config)
    about = (get.__doc__ or '').strip().partition('\n')[0]
    what = 'an argument that changes the config'
    expect(f'{place.path}', not same, what, place.arg, about)
  return config


def _module(path: pathlib.Path) -> types.ModuleType:
  spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _where(path: pathlib.Path, error: Exception) -> str:
  """Return the file, and the line in it where an error arose."""
  steps = traceback.extract_tb(error.__traceback__)
  found = [(step.filename, step.lineno) for step in steps]
  if isinstance(error, SyntaxError):
    found.append((error.filename or '', error.lineno))
  lines = [
    line for file, line in found if pathlib.Path(file) == path.absolute()
  ]
  return f'{path}:{lines[-1]}' if lines else f'{path}'


def _said(error: Exception) -> str:
  plain = isinstance(error, ValueError | SyntaxError | flags.Error)
  text = getattr(error, 'msg', None) if isinstance(error, SyntaxError) else None
  said = shorten(f'{text or error}', 200)
  return said if plain and said else f'{type(error).__name__}: {said}'


def changed(config: ConfigDict, changes: Sequence[str]) -> ConfigDict:
  """Apply flags to a config.

  Args:
    config: Changed, and locked.
    changes: As `--config.train.lr=0.1`.

  Returns:
    The config.

  Raises:
    ValueError: If a flag names no field, or has no value of its type.
  """
  handled = (_is_option, _is_unlimited, _is_old)
  changes = [x for x in changes if not any(one(config, x) for one in handled)]
  for flag in changes:
    _expect_field(config.lock(), flag)
  values, argv = flags.FlagValues(), ['tsukiji', *changes]
  try:
    config_flags.DEFINE_config_dict(
      'config', config, flag_values=values, sys_argv=argv
    )
    rest = values(argv)[1:]
  except Exception as e:  # absl and ml_collections raise many kinds
    raise ValueError(f'flags: {_said(e)}') from e
  fix = 'Settings are changed with --config.FIELD=VALUE.'
  expect('command line', not rest, 'flags only', ' '.join(rest), fix)
  return config


def _is_option(config: ConfigDict, flag: str) -> bool:
  """Set an option of a batch system, whose names are not ours to know."""
  found = re.match(r'--?config\.cluster\.options\.(\w+)=(.*)', flag)
  if found is None:
    return False
  try:
    value = ast.literal_eval(found[2])
  except (ValueError, SyntaxError):
    value = found[2]
  with config.unlocked():
    config.cluster.options[found[1]] = value
  return True


def _is_unlimited(config: ConfigDict, flag: str) -> bool:
  """Take a limit of the budget away, whose flags take numbers otherwise."""
  found = re.fullmatch(r'--?config\.budget\.(\w+)=None', flag)
  if found is None or found[1] not in config.get('budget', ()):
    return False
  config.budget[found[1]] = None
  return True


def _is_old(_: ConfigDict, flag: str) -> bool:
  """Return whether a flag sets a field that has no use any more."""
  found = re.match(r'--?config\.(?:recipe_)?search\.(\w+)=', flag)
  old = found is not None and found[1] in fields.Search.DROPPED
  if found and old:
    settings.searching(**{found[1]: None})  # warns
  return old


def _expect_field(config: ConfigDict, flag: str) -> None:
  found = re.match(r'--?(?:no)?(\w+)((?:\.\w+)*)(=|$)', flag)
  if found is None or not flag.startswith('-'):
    return
  expect_name(
    'command line', found[1], ('config', 'workdir', 'debug'), 'a flag'
  )
  holder: Any = config
  where, kind = 'config', type(config)
  for name in found[2].split('.')[1:]:
    if not isinstance(holder, ConfigDict):
      return
    if name not in holder:
      expect_name(where, name, holder)
    where, kind, holder = f'{where}.{name}', holder.get_type(name), holder[name]
  if found[3] == '=' and kind in (int, float):
    _expect_number(where, flag.partition('=')[2], kind, holder)


def _expect_number(where: str, text: str, kind: type, known: Any) -> None:
  try:
    kind(text)
  except ValueError:
    what = 'a whole number, or None' if kind is int else 'a number, or None'
    expect(where, known is not None, what, text)
    kinds.expect_alike(where, text, known)
