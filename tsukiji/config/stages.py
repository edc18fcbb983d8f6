"""The stages of a study: a search for networks, then one for recipes."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from search import space as spaces
from tsukiji.config import search_space


def recipe_of(config: ConfigDict) -> str:
  """Return the first recipe that varies, '' if none does."""
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
    chosen: The result of the first stage; by default the middle of all ranges.

  Returns:
    The config, with the settings of the search for recipes.
  """
  name = recipe_of(config)
  chosen = chosen or search_space.examples(of_networks(config))[0]
  second = _open(chosen)
  second.recipes[name] = config.recipes[name].copy_and_resolve_references()
  network = config.search.network
  second.search = config.recipe_search.copy_and_resolve_references()
  second.search.network = second.search.network or network
  return second


def dense_only(chosen: ConfigDict) -> ConfigDict:
  """Return a config whose networks are trained, but not compressed."""
  dense = _open(chosen)
  dense.task = 'train'
  return dense


def with_recipes(
  chosen: ConfigDict, found: Sequence[ConfigDict], name: str
) -> ConfigDict:
  """Return a config with the recipes that a second stage has found.

  Args:
    chosen: The result of the first stage.
    found: The recipes, without ranges.
    name: Name of the recipe that varied; they are NAME_1, NAME_2, ...
  """
  last = _open(chosen)
  for i, item in enumerate(found, 1):
    last.recipes[f'{name}_{i}'] = item
  return last


def _open(config: ConfigDict) -> ConfigDict:
  """Return a copy to which items can be added."""
  return config.copy_and_resolve_references().unlock()
