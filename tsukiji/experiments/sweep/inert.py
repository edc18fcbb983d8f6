"""Sizes of networks that change nothing on some data, which need no search.

A row of a table has no neighbors: on it, kernels, strides and pools of any size
are the same network.
"""

import jax
import numpy as np
from ml_collections import ConfigDict

from search import designer
from search import space as spaces
from search.parameter import value
from search.space import Space
from tsukiji.config import search_space, settings
from tsukiji.data.datasets import Data
from tsukiji.experiments import jobs
from tsukiji.models.spec import Spec

PLACES = 6  # random networks around which each size is varied
SPOTS = (0.1, 0.5, 0.9)  # of a range without options
MOMENTS = ((0.0,), (1.0,))


def pinned(config: ConfigDict, data: Data) -> ConfigDict:
  """Return a config in which sizes that change nothing do not vary.

  Args:
    config: A search.
    data: What its networks are for.

  Returns:
    The config, with the first value of each such size.
  """
  above = f'networks.{settings.searched(config)}.sizes.'
  if not any(name.startswith(above) for name, _ in spaces.varying(config)):
    return config
  space = spaces.of(config)
  rng = designer.generator(jax.random.key(0))
  places = rng.random((PLACES, len(space.names)))
  fixed = config.copy_and_resolve_references().unlock()
  for i, (name, leaf) in enumerate(zip(space.names, space.leaves, strict=True)):
    count = len(leaf.options)
    spots = (np.arange(count) + 0.5) / count if count else np.array(SPOTS)
    if name.startswith(above) and not _matters(space, data, i, spots, places):
      owner = spaces.at(fixed, name.rpartition('.')[0])
      with fixed.ignore_type():
        owner[name.rpartition('.')[2]] = value(leaf, 0.0)
  return fixed


def _matters(
  space: Space, data: Data, i: int, spots: np.ndarray, places: np.ndarray
) -> bool:
  """Return whether a parameter changes the network at any of some places."""
  for place in places:
    points = np.tile(place, (len(spots), 1))
    points[:, i] = spots
    found = {_spec(space, data, x) for x in spaces.snap(space, points)}
    if len(found) > 1:
      return True
  return False


def _spec(space: Space, data: Data, point: np.ndarray) -> Spec | None:
  """Return the network at a point, None where sizes do not make one."""
  config = search_space.with_defaults(space, spaces.to_config(space, point))
  name = settings.searched(config)
  only = ConfigDict({'networks': {name: config.networks[name]}})
  try:
    return jobs.specs_of(only, data, MOMENTS)[name]
  except ValueError:
    return None
