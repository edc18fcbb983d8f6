"""Sizes that change nothing on rows and sequences are not searched."""

import numpy as np
import pytest

import search
from configs import budget as study
from search import space as spaces
from tests.tsukiji.config.test_search_space import put
from tsukiji.data.datasets import Data, Split
from tsukiji.experiments.sweep import inert

ABOVE = 'networks.student.sizes.'


def data(*shape: int) -> Data:
  """Return data of a shape, without an example."""
  none = Split(np.zeros((0, *shape), np.float32), np.zeros(0, np.int32))
  return Data('data', none, none, none, ('a', 'b'))


@pytest.mark.parametrize(
  ('shape', 'fixed'),
  [
    ((1, 1, 13), {'head': 'mean', 'kernel': 3, 'stride': 1}),
    ((64, 1, 6), {}),
    ((28, 28, 1), {}),
  ],
  ids=str,
)
def test_what_changes_no_network_is_fixed(
  shape: tuple[int, ...], fixed: dict[str, object]
) -> None:
  config = study.get_config()
  found = inert.pinned(config, data(*shape))
  before, after = dict(spaces.varying(config)), dict(spaces.varying(found))
  assert {*before} - {*after} == {f'{ABOVE}{name}' for name in fixed}
  assert {k: found.networks.student.sizes[k] for k in fixed} == fixed


def test_without_sizes_nothing_is_fixed() -> None:
  config = study.get_config('tiny')
  put(config, f'{ABOVE}width', 4)
  assert inert.pinned(config, data(8, 8, 1)) is config


def test_a_size_that_matters_to_some_networks_is_searched() -> None:
  config = study.get_config('tiny')
  sizes = config.networks.student.sizes
  sizes.hidden = search.choice(0, 8)
  sizes.dropout = search.float(0.0, 0.5, when={f'{ABOVE}hidden': 8})
  found = inert.pinned(config, data(1, 1, 13))
  assert len(spaces.varying(found)) == len(spaces.varying(config))
