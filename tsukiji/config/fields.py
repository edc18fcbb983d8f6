"""Parts of a config, which also accept earlier names of their fields."""

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

from ml_collections import ConfigDict

from search import space as spaces
from search.parameter import Leaf

# Designers of short trials, by those whose trials end early.
ENDING = {
  'bohb': 'gp+hyperband',
  'halving': 'random+halving',
  'hyperband': 'random+hyperband',
}
LEAF = {field.name for field in dataclasses.fields(Leaf)}


class Part(ConfigDict):
  """A `ConfigDict` with renamed fields and with parts of known kinds.

  An earlier name is accepted for the current one as an attribute, a key, a
  keyword, in a dict, and in a flag of the command line.

  Attributes:
    RENAMED: The current name by earlier name.
    DROPPED: Names that were of use once; what they are set to is ignored.
    VALUES: The current value by an earlier one, by field.
    PARTS: The kind of part by field.
    EACH: The kind of parts under names that users choose, if any.

  >>> Search({'epochs': 3}).epochs
  3
  """

  RENAMED: ClassVar[Mapping[str, str]] = {}
  DROPPED: ClassVar[tuple[str, ...]] = ()
  VALUES: ClassVar[Mapping[str, Mapping[str, str]]] = {}
  PARTS: ClassVar[Mapping[str, type['Part']]] = {}
  EACH: ClassVar[type['Part'] | None] = None

  def __getitem__(self, key: Any) -> Any:
    return super().__getitem__(self._current(key))

  def __contains__(self, key: Any) -> bool:
    return super().__contains__(self._current(key))

  def __setitem__(self, key: Any, value: Any) -> None:
    key = self._current(key)
    if key in self.DROPPED:
      text = f'config field {key!r} has no use any more'
      warnings.warn(text, FutureWarning, stacklevel=2)
      return
    value = self._current_value(key, value)
    kind = self.PARTS.get(key, self.EACH)
    if isinstance(value, dict | ConfigDict):
      wanted = kind or ConfigDict
      value = value if isinstance(value, wanted) else wanted(value)
    super().__setitem__(key, value)

  def __delitem__(self, key: Any) -> None:
    super().__delitem__(self._current(key))

  def get_type(self, key: Any) -> Any:
    """Return the type of a field."""
    return super().get_type(self._current(key))

  def update(self, *other: Any, **changes: Any) -> None:
    """Update fields, and parts field by field, as `ConfigDict.update`."""
    for given in (*other, changes):
      kept = isinstance(given, ConfigDict)
      items = (
        given.items(preserve_field_references=True) if kept else (given.items())
      )
      super().update({self._current(key): value for key, value in items})

  def _current(self, key: Any) -> Any:
    name = self.RENAMED.get(key, key) if isinstance(key, str) else key
    if name != key:
      text = f'config field {key!r} is now called {name!r}'
      warnings.warn(text, FutureWarning, stacklevel=3)
    return name

  def _current_value(self, key: Any, value: Any) -> Any:
    known = self.VALUES.get(key, {})
    if known and isinstance(value, tuple):
      return tuple(self._current_value(key, x) for x in value)
    if not isinstance(value, str) or value not in known:
      return value
    text = f'{key} {value!r} is now called {known[value]!r}'
    warnings.warn(text, FutureWarning, stacklevel=3)
    return known[value]


class Training(Part):
  """Settings of a training run."""

  RENAMED = {'optimiser': 'optimizer', 'settle': 'freeze_bn_at'}


class Network(Part):
  """Settings of a network."""

  PARTS = {'train': Training}


class Recipe(Part):
  """Settings of a recipe."""

  RENAMED = {
    'fewer': 'drop_layers',
    'helped': 'use_helper',
    'joint': 'train_teacher',
    'labels': 'label_weight',
    'settle': 'freeze_bn_at',
    'without': 'drop_named',
  }
  PARTS = {'train': Training}


class Search(Part):
  """Settings of a search."""

  RENAMED = {
    'beside': 'baselines',
    'least': 'min_epochs',
    'most': 'limits',
    'together': 'batch_size',
  }
  DROPPED = ('lease',)
  VALUES = {'baselines': ENDING, 'designer': ENDING}


class Networks(Part):
  """Networks by name."""

  EACH = Network


class Recipes(Part):
  """Recipes by name."""

  EACH = Recipe


class Experiment(Part):
  """A full config."""

  PARTS = {
    'finetune': Training,
    'networks': Networks,
    'recipe_search': Search,
    'recipes': Recipes,
    'search': Search,
    'train': Training,
  }


Plain: TypeAlias = dict[str, Any]
Names: TypeAlias = Callable[[type[Part]], Mapping[str, str]]


def adopt(config: ConfigDict) -> Experiment:
  """Return a config with parts of the right kinds and current names.

  Args:
    config: A full config, possibly built without `tsukiji.config.settings`.

  Returns:
    The config itself if there is nothing to change.
  """
  config = config if isinstance(config, Experiment) else Experiment(config)
  for path, leaf in spaces.varying(config):
    when = tuple(
      (_path(parent, _current_names), values) for parent, values in leaf.when
    )
    if when != leaf.when:
      _put(config, path, dataclasses.replace(leaf, when=when))
  return config


def current(plain: Plain) -> Plain:
  """Return a config as JSON types with the current names of its fields."""
  return _renamed(plain, Experiment, _current_names)


def earliest(plain: Plain) -> Plain:
  """Return a config as JSON types with the earliest names of its fields."""
  return _renamed(plain, Experiment, _first_names)


def _current_names(kind: type[Part]) -> Mapping[str, str]:
  return kind.RENAMED


def _first_names(kind: type[Part]) -> Mapping[str, str]:
  return {new: old for old, new in kind.RENAMED.items()}


def _renamed(plain: Plain, kind: type[Part] | None, names: Names) -> Plain:
  found = {}
  for name, value in plain.items():
    inner = _inner(kind, name)
    if isinstance(value, dict) and value.keys() == LEAF:
      when = [[_path(path, names), x] for path, x in value['when']]
      value = {**value, 'when': when}
    elif isinstance(value, dict):
      value = _renamed(value, inner, names)
    found[names(kind).get(name, name) if kind else name] = value
  return found


def _inner(kind: type[Part] | None, name: str) -> type[Part] | None:
  """Return the kind of part of a field, by any of its names."""
  if kind is None:
    return None
  return kind.PARTS.get(kind.RENAMED.get(name, name), kind.EACH)


def _path(path: str, names: Names) -> str:
  """Return a dotted path with renamed fields."""
  kind: type[Part] | None = Experiment
  found = []
  for name in path.split('.'):
    found.append(names(kind).get(name, name) if kind else name)
    kind = _inner(kind, name)
  return '.'.join(found)


def _put(config: Experiment, path: str, leaf: Leaf) -> None:
  folder, _, last = path.rpartition('.')
  owner = spaces.at(config, folder) if folder else config
  owner.get_ref(last).set(leaf, False)
