"""The stages of a study: what trains best, then what compresses that best."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from search import space as spaces
from tsukiji.config import search_space


def recipe_of(config: ConfigDict) -> str:
  """Return the recipe that varies, the first of several; '' if none does."""
  paths = (path.split('.') for path, _ in spaces.varying(config))
  return next((parts[1] for parts in paths if parts[0] == 'recipes'), '')


def of_networks(config: ConfigDict) -> ConfigDict:
  """Return the first stage: a config without its recipe that varies."""
  first = _open(config)
  mixed = recipe_of(config)
  first.recipes = {k: v for k, v in first.recipes.items() if k != mixed}
  return first


def of_recipes(
  config: ConfigDict, chosen: ConfigDict | None = None
) -> ConfigDict:
  """Return the second stage: a config in which only the recipe varies.

  Args:
    config: The study.
    chosen: What the first stage has found; by default the middle of all.

  Returns:
    The config, with the search of recipes as its search.
  """
  name = recipe_of(config)
  chosen = chosen or search_space.examples(of_networks(config))[0]
  second = _open(chosen)
  second.recipes[name] = config.recipes[name].copy_and_resolve_references()
  network = config.search.network
  second.search = config.recipe_search.copy_and_resolve_references()
  second.search.network = second.search.network or network
  return second


def alone(chosen: ConfigDict) -> ConfigDict:
  """Return a config whose networks are trained and not compressed."""
  dense = _open(chosen)
  dense.task = 'train'
  return dense


def with_recipes(
  chosen: ConfigDict, found: Sequence[ConfigDict], name: str
) -> ConfigDict:
  """Return a config with the recipes that a second stage has kept.

  Args:
    chosen: What the first stage has found.
    found: The recipes, in which nothing varies.
    name: Of the recipe that varied: they are NAME_1, NAME_2 and so on.
  """
  last = _open(chosen)
  for i, item in enumerate(found, 1):
    last.recipes[f'{name}_{i}'] = item
  return last


def _open(config: ConfigDict) -> ConfigDict:
  """Return a copy to which items can be added."""
  return config.copy_and_resolve_references().unlock()
