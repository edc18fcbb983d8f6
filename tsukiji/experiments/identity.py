"""The identity of an experiment: its settings that are not the defaults."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from compress import recipe
from tsukiji.config import fields, settings

# What does not change the results.
INCIDENTAL = (
  *('task', 'workers', 'cluster', 'distributed', 'export', 'figures'),
)
ALSO = ('workers', 'lease')  # of the settings of a search
EARLIER_METHODS = {new: old for old, new in recipe.RENAMED.items()}


def of(plain: dict[str, Any]) -> dict[str, Any]:
  """Return the settings that identify an experiment.

  Args:
    plain: A config as JSON types (`settings.plain`), of this release or an
      older one that had fewer fields, or other names for them.

  Returns:
    The settings that differ from the defaults, by field.
  """
  items = {
    'networks': settings.network(''),
    'recipes': settings.compression('', ''),
  }
  plain = _with_methods(fields.current(plain), recipe.RENAMED)
  beyond = _beyond(plain, settings.plain(settings.default()))
  for name, known in items.items():
    beyond[name] = {
      key: _beyond(item, settings.plain(known))
      for key, item in plain.get(name, {}).items()
    }
  search = beyond.pop('search', {})
  if search := {k: v for k, v in search.items() if k not in ALSO}:
    beyond['search'] = search
  return {k: v for k, v in beyond.items() if k not in INCIDENTAL}


def _beyond(plain: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
  """Return the fields that differ from known values."""
  found = {}
  for name, value in plain.items():
    default = known.get(name)
    if isinstance(value, dict) and isinstance(default, dict):
      value, default = _beyond(value, default), {}
    if value != default:
      found[name] = value
  return found


def digest(config: ConfigDict) -> str:
  """Return ten hex digits that name the experiment.

  It is the same in every release: renamed fields count by their earliest name.
  """
  found = _with_methods(of(settings.plain(config)), EARLIER_METHODS)
  text = json.dumps(fields.earliest(found), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:10]


def _with_methods(
  plain: dict[str, Any], names: Mapping[str, str]
) -> dict[str, Any]:
  """Return a config with renamed methods in the texts of recipes."""
  pattern = re.compile(r'(?<![\w.])[A-Za-z_][\w.]*(?=\()')

  def put(value: Any) -> Any:
    if isinstance(value, str):
      return pattern.sub(lambda found: names.get(found[0], found[0]), value)
    if isinstance(value, dict):
      return {name: put(inner) for name, inner in value.items()}
    if isinstance(value, list):
      return [put(inner) for inner in value]
    return value

  changed = {name: put(plain[name]) for name in ('helper',) if name in plain}
  if 'recipes' in plain:
    changed['recipes'] = {
      key: {
        name: put(value) if name in ('method', 'parts') else value
        for name, value in item.items()
      }
      for key, item in plain['recipes'].items()
    }
  return plain | changed
