"""Configs with varying fields: examples, and defaults of inactive fields.

Fields that vary have values of `search.log`, `choice`, `integer` or `float`.
"""

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from search import space as spaces
from search.parameter import unit_of
from search.space import Space
from tsukiji.config import settings

ITEMS = {
  'networks': settings.network(''),
  'recipes': settings.compression('', ''),
}


def varies(config: ConfigDict) -> bool:
  """Return whether any field of a config varies."""
  return bool(spaces.varying(config))


def examples(config: ConfigDict) -> list[ConfigDict]:
  """Return configs that cover each option and each end of a range.

  Args:
    config: Values, with leaves for those that vary.

  Returns:
    Configs without leaves, the one in the middle of all ranges first; only
    the config itself if nothing varies.
  """
  if not varies(config):
    return [config]
  space = spaces.of(config)
  points = [np.full(len(space.names), spaces.MIDDLE)]
  for i, leaf in enumerate(space.leaves):
    count = len(leaf.options)
    spots = (np.arange(count) + 0.5) / count if count else (0.0, 1.0)
    points += [_with(space, i, float(spot)) for spot in spots]
  return [
    with_defaults(space, spaces.to_config(space, point))
    for point in spaces.snap(space, np.array(points))
  ]


def _with(space: Space, i: int, spot: float) -> np.ndarray:
  """Return a point with a parameter active and at a given position."""
  point = np.full(len(space.names), spaces.MIDDLE)
  for parent, values in space.leaves[i].when:
    if parent in space.names:
      p = space.names.index(parent)
      active = _with(space, p, unit_of(space.leaves[p], values[0]))
      point = np.where(active != spaces.MIDDLE, active, point)
  point[i] = spot
  return point


def with_defaults(space: Space, config: ConfigDict) -> ConfigDict:
  """Set the inactive fields of a config to their defaults.

  Args:
    space: The space.
    config: The result of `search.space.to_config`; it is modified.

  Returns:
    The config. Sizes of a network that are not active are those of the zoo.
  """
  with config.unlocked(), config.ignore_type():
    for name in space.names:
      if spaces.at(config, name) is None:
        folder, _, last = name.rpartition('.')
        owner = spaces.at(config, folder) if folder else config
        default = _default(name)
        if default is None:
          del owner[last]
        else:
          owner[last] = default
  return config


def flat(fields: ConfigDict, above: str = '') -> dict[str, Any]:
  """Return the values of nested fields by dotted path.

  >>> flat(ConfigDict({'train': {'lr': 0.1}}))
  {'train.lr': 0.1}
  """
  found: dict[str, Any] = {}
  for name, value in fields.items():
    if isinstance(value, ConfigDict):
      found |= flat(value, f'{above}{name}.')
    else:
      found[above + name] = value
  return found


def _default(path: str) -> Any:
  """Return the default of a field, None if it has none."""
  parts = path.split('.')
  known: Any = settings.default()
  if parts[0] in ITEMS:
    known, parts = ITEMS[parts[0]], parts[2:]
  if parts[0] == 'parts':  # of a method: it does without them
    return ''
  for part in parts:
    if part not in known:
      return None
    known = known[part]
  return known
