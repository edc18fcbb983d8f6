"""Blocks: shortcuts where shapes change, and how many weights they have."""

import pytest

from tests.tsukiji.models.test_zoo import counted
from tsukiji.models import blocks
from tsukiji.models import spec as sp


def net(layers: list[sp.Layer]) -> sp.Spec:
  return sp.Spec(name='net', input_shape=(8, 8, 4), layers=tuple(layers))


@pytest.mark.parametrize(
  ('features', 'stride', 'skip'), [(4, 1, 0), (6, 1, 24), (4, 2, 16)]
)
def test_a_shortcut_is_there_where_shapes_change(
  features: int, stride: int, skip: int
) -> None:
  one = net(blocks.residual('a', 4, features, stride))
  norms = 2 * features * (3 if skip else 2)
  assert counted(one) == 9 * (4 + features) * features + skip + norms
  assert sp.output_shape(one) == (8 // stride, 8 // stride, features)


def test_a_separable_block_has_a_filter_a_channel() -> None:
  one = net(blocks.separable('a', 4, 6, 2, kernel=5))
  assert counted(one) == 25 * 4 + 2 * 4 + 4 * 6 + 2 * 6
  assert sp.output_shape(one) == (4, 4, 6)
