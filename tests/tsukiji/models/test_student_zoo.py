"""Students: their sizes, and the inputs that they take."""

from typing import Any

import pytest

from tests.tsukiji.models.test_zoo import counted, of_kind
from tsukiji.models import spec as sp
from tsukiji.models import student_zoo, zoo

SHAPES = [(28, 28, 1), (8, 8, 1), (128, 1, 6), (128, 3, 1), (1, 1, 13)]


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('head', student_zoo.HEADS)
@pytest.mark.parametrize('block', student_zoo.BLOCKS)
def test_every_block_takes_every_input(
  block: str, head: str, shape: sp.Shape
) -> None:
  sizes = {'blocks': 1, 'stages': 2, 'stride': 2, 'hidden': 8, 'dropout': 0.1}
  net = zoo.build('student', shape, 5, block=block, head=head, **sizes)
  assert sp.output_shape(net) == (5,)
  kinds = {'plain': 4, 'residual': 8, 'depthwise': 7}
  assert len(of_kind(sp.Conv, net)) == kinds[block]


def test_sizes_are_those_of_the_arguments() -> None:
  sizes = {'width': 4, 'growth': 1.5, 'stages': 3, 'kernel': 5}
  net = zoo.build('student', (28, 28, 1), 10, **sizes)
  convs = of_kind(sp.Conv, net)
  assert [c.features for c in convs] == [4, 6, 9]
  assert {c.kernel for c in convs} == {(5, 5)}
  weights = 25 * (4 + 4 * 6 + 6 * 9) + 9 * 10
  assert counted(net) == weights + 2 * (4 + 6 + 9) + 10
  assert len(of_kind(sp.Pool, net)) == 2


def test_a_sequence_is_pooled_along_its_length() -> None:
  net = zoo.build('student', (128, 3, 1), 5)
  assert {p.window for p in of_kind(sp.Pool, net)} == {(2, 1)}


@pytest.mark.parametrize(
  ('sizes', 'said'),
  [
    ({'block': 'residal'}, "Nearest: 'residual'"),
    ({'head': 'men'}, "Nearest: 'mean'"),
    ({'stages': 0}, 'stages: expected at least 1'),
    ({'blocks': -1}, 'blocks: expected at least 0'),
    ({'widht': 8}, "Nearest: 'width'"),
  ],
)
def test_invalid_sizes_are_errors(sizes: dict[str, Any], said: str) -> None:
  with pytest.raises(ValueError, match=said):
    zoo.build('student', (28, 28, 1), 10, **sizes)
