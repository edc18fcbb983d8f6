"""The budget of a study: what its best network may cost."""

from ml_collections import ConfigDict

from tsukiji.config import settings
from tsukiji.errors import expect, expect_name

DROP = 'accuracy_drop'


def limits(config: ConfigDict) -> dict[str, float]:
  """Return the largest costs, of `settings.COSTS`, and `accuracy_drop`.

  Args:
    config: A full config, possibly of an earlier version.

  Returns:
    Those that are given, by name; with any, networks and recipes are searched
    for at once.
  """
  given = config.get('budget') or {}
  return {
    name: given[name]
    for name in (*settings.COSTS, DROP)
    if given.get(name) is not None
  }


def reference_of(config: ConfigDict) -> str:
  """Return the network that accuracy may drop from, '' if there is none."""
  of: str = config.networks[settings.searched(config)].of
  return of


def wants_smallest(config: ConfigDict) -> bool:
  """Return whether the smallest file inside is the best, not the most accurate.

  It is where nothing but the accuracy is limited.
  """
  return {*limits(config)} == {DROP}


def without(config: ConfigDict) -> ConfigDict:
  """Return a copy without a budget."""
  copied = config.copy_and_resolve_references().unlock()
  copied.budget = settings.default().budget
  return copied


def is_of_device(config: ConfigDict) -> bool:
  """Return whether the flash or the memory of a device is limited."""
  return bool({'flash', 'ram'} & {*limits(config)})


def formats(config: ConfigDict) -> tuple[str, ...]:
  """Return what the best network is exported as: C, too, for a device."""
  asked = (*config.export.formats,)
  return (*asked, 'c') if is_of_device(config) and 'c' not in asked else asked


def check(config: ConfigDict) -> None:
  """Check a budget; see `validate.check`."""
  given = limits(config)
  for name, most in given.items():
    where = f'config.budget.{name}'
    if name == DROP:
      what = 'a fraction in [0, 1), as 0.01 for one point'
      expect(where, 0 <= most < 1, what, most)
    else:
      expect(where, most > 0, 'more than 0, or None', most)
  if not given:
    return
  what = "'study', which searches within a budget"
  right = config.task not in ('train', 'compress', 'search')
  expect('config.task', right, what, config.task)
  network = config.search.network or next(iter(config.networks))
  expect_name('config.search.network', network, config.networks)
  if DROP in given:
    where = f'config.networks.{network}.of'
    fix = f'{DROP} is counted from it.'
    expect(where, config.networks[network].of, 'a reference', '', fix)
  one = config.search.batch_size
  expect('config.search.batch_size', one == 1, '1 within a budget', one)
