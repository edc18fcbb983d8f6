"""Weights of few bits take few bits of flash."""

import hypothesis as hp
import hypothesis.strategies as st
import numpy as np
import pytest

from tests.tsukiji.deploy.c.test_products import WIDE, Case, assert_integers
from tests.tsukiji.deploy.c.test_source import COMPILERS
from tsukiji.deploy.c.kernels import packed_weights


@hp.given(width=st.sampled_from(packed_weights.WIDTHS), seed=st.integers(0, 9))
def test_packed_weights_are_the_weights(width: int, seed: int) -> None:
  half = 2 ** (width - 1)
  weights = np.random.default_rng(seed).integers(-half, half, (5, 4))
  found = packed_weights.packed(weights, width).astype(int)
  whole = (found << (8 * np.arange(width // 2))).sum(axis=1)
  fields = (whole[:, None] >> (width * np.arange(4))) & (2**width - 1)
  np.testing.assert_array_equal(fields - half, weights)


@pytest.mark.skipif(not COMPILERS, reason='there is no compiler')
@pytest.mark.parametrize('bits', [2, 4])
@pytest.mark.parametrize(
  ('options', 'outputs'), [('-Dnet_SMALL', 17), (WIDE, 40)]
)
def test_packed_products_are_exact(
  options: str, outputs: int, bits: int
) -> None:
  case = Case(
    sides=(3, 2),
    shape=[7, 9],
    dilation=(1, 1),
    groups=1,
    inputs=3,
    outputs=outputs,
    strides=(1, 1),
    padding=((1, 1), (2, 0)),
    density=1.0,
    pools=True,
    bits=bits,
    factor=0.1,
    many=None,
  )
  assert_integers(case, f'{COMPILERS[0]} {options}')
