"""Matrices as grids of tiles."""

import numpy as np
import pytest

from compress.structured import tiles


@pytest.mark.parametrize('shape', [(4, 4), (5, 3), (3, 3, 2, 7)])
def test_tiles_hold_the_matrix_and_zeros(shape: tuple[int, ...]) -> None:
  w = np.float32(np.random.default_rng(0).normal(size=shape))
  found = np.asarray(tiles.split(w, 4))
  assert found.shape[:2] == tiles.grid(shape, 4)
  np.testing.assert_array_equal(tiles.join(found, shape), w)
  np.testing.assert_allclose(np.sum(found**2), np.sum(w**2), rtol=1e-6)


def test_each_tap_has_its_own_tiles_where_channels_divide() -> None:
  w = np.arange(3 * 4 * 4.0).reshape(1, 3, 4, 4)
  found = np.asarray(tiles.split(w, 4))
  np.testing.assert_array_equal(found[:, 0], w[0])
