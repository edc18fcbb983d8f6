"""Products by tiles are exact, where a system allows them and where not."""

import re

import pytest

from tests.tsukiji.deploy.c.test_products import WIDE, Case, assert_integers
from tests.tsukiji.deploy.c.test_source import COMPILERS
from tsukiji.deploy.c.kernels import tile_kernels

# Channels, rows and columns, outputs: a last tile that is narrow, only that
# one, none; several tiles of a row, that overlap; one block of outputs, more.
SIZES = [
  (36, (9, 11), 33),
  (12, (16, 13), 16),
  (16, (10, 19), 64),
  (33, (8, 35), 40),
]


def case(inputs: int, shape: tuple[int, int], outputs: int) -> Case:
  return Case(
    sides=(3, 4),
    shape=[*shape],
    dilation=(1, 1),
    groups=1,
    inputs=inputs,
    outputs=outputs,
    strides=(1, 1),
    padding=((1, 1), (0, 0)),
    density=1.0,
    pools=True,
    bits=8,
    factor=1e-3,
    many=None,
  )


@pytest.mark.skipif(not COMPILERS, reason='there is no compiler')
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_products_by_tiles_are_exact(
  size: tuple[int, tuple[int, int], int],
) -> None:
  assert_integers(case(*size), f'{COMPILERS[0]} {WIDE}')


@pytest.mark.skipif(not COMPILERS, reason='there is no compiler')
def test_products_are_exact_where_tiles_are_refused() -> None:
  options = f'{WIDE} -Dask_for_tiles()=1L'
  assert_integers(case(*SIZES[1]), f'{COMPILERS[0]} {options}')


@pytest.mark.slow
@pytest.mark.parametrize('compiler', COMPILERS)
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_products_by_tiles_of_this_processor_are_exact(
  size: tuple[int, tuple[int, int], int], compiler: str
) -> None:
  assert_integers(case(*size), f'{compiler} -march=native')


@pytest.mark.parametrize('size', SIZES, ids=str)
def test_tiles_are_chosen_for_all_of_them(
  size: tuple[int, tuple[int, int], int],
) -> None:
  inputs, (rows, columns), _ = size
  assert tile_kernels.pays((rows, columns - 3), 3, inputs)


def test_nothing_that_is_written_is_global() -> None:
  text = tile_kernels.TYPES + tile_kernels.kernel(32)
  assert not re.search(r'\bstatic (?!const )[^()]*[=;]', text)
