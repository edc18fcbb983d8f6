"""The stages of a study: a search for networks, then one for recipes.

Within a budget there is one stage: which network is best depends on its recipe.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from compress import recipe
from search import space as spaces
from tsukiji.config import budget, search_space, settings


def recipe_of(config: ConfigDict) -> str:
  """Return the first recipe that varies, '' if none does."""
  paths = (path.split('.') for path, _ in spaces.varying(config))
  return next((parts[1] for parts in paths if parts[0] == 'recipes'), '')


def first(config: ConfigDict) -> ConfigDict:
  """Return the first stage, which within a budget is all that varies."""
  if not budget.limits(config):
    return of_networks(config)
  joint = _open(config)
  if budget.wants_smallest(config):
    joint.search.objectives = ('val_accuracy', 'bytes')
  return joint


def of(config: ConfigDict) -> list[ConfigDict]:
  """Return every stage in which something varies."""
  one = first(config)
  found = [one] if search_space.varies(one) else []
  if recipe_of(config) and not budget.limits(config):
    found.append(of_recipes(config))
  return found


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


def beside(config: ConfigDict) -> ConfigDict:
  """Return the networks that are not searched: references and teachers."""
  dense = dense_only(budget.without(config))
  searched = settings.searched(config)
  dense.networks = {k: v for k, v in dense.networks.items() if k != searched}
  dense.recipes, dense.search = {}, settings.searching()
  return dense


def within(config: ConfigDict, found: Sequence[ConfigDict]) -> ConfigDict:
  """Return a config that trains what a search within a budget has found.

  Args:
    config: The study.
    found: Configs without ranges; their networks become NETWORK_1, NETWORK_2,
      ..., each with a recipe of the same number.

  Returns:
    The config, without a search.
  """
  network, mixed = settings.searched(config), recipe_of(config)
  last = _open(found[0])
  last.search = settings.searching()
  del last.networks[network], last.recipes[mixed]
  fixed = tuple(last.recipes)
  for item in last.networks.values():
    item.recipes = fixed if '*' in item.recipes else item.recipes
  for i, one in enumerate(found, 1):
    item = one.networks[network].copy_and_resolve_references()
    own = one.recipes[mixed].copy_and_resolve_references()
    own.method, own.parts = recipe.filled(own.method, own.parts), {}
    taught = recipe.parse(own.method).requires
    own.teacher = own.teacher if taught else ()
    item.recipes = (f'{mixed}_{i}',)
    last.networks[f'{network}_{i}'] = item
    last.recipes[f'{mixed}_{i}'] = own
  return last


def _open(config: ConfigDict) -> ConfigDict:
  """Return a copy to which items can be added."""
  return config.copy_and_resolve_references().unlock()
