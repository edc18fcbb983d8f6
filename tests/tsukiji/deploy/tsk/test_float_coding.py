"""Floats come back bit for bit, in their exponents' entropy and the rest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tsukiji.deploy.tsk import float_coding


@given(
  st.sampled_from(['f2', 'f4']).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(max_dims=3))
  )
)
def test_any_floats_survive(x: np.ndarray) -> None:
  again = float_coding.decode(float_coding.encode(x), x.dtype, x.shape)
  assert (again.dtype, again.shape) == (x.dtype, x.shape)
  assert again.tobytes() == x.tobytes()


@pytest.mark.parametrize('dtype, rest', [('f2', 11), ('f4', 24)])
def test_size_is_that_of_the_exponents_and_the_rest(dtype, rest) -> None:
  x = np.random.default_rng(5).normal(0, 0.05, (80, 64)).astype(dtype)
  counts = np.unique(np.frexp(x.astype('f8'))[1], return_counts=True)[1]
  bits = (counts * np.log2(x.size / counts)).sum() + x.size * rest
  assert len(float_coding.encode(x)) <= 1.005 * bits / 8 + 64 < 0.93 * x.nbytes


def test_brain_floats_save_the_lower_half_of_floats() -> None:
  x = np.random.default_rng(5).normal(0, 0.05, 999).astype('bfloat16')
  narrow, wide = (float_coding.encode(x.astype(t)) for t in (x.dtype, 'f4'))
  assert abs(len(wide) - len(narrow) - 2 * 999) <= 2
  again = float_coding.decode(narrow, x.dtype, x.shape)
  assert again.tobytes() == x.tobytes()


@pytest.mark.parametrize('dtype', ['f8', 'i4', 'b1'])
def test_other_dtypes_are_not_known(dtype: str) -> None:
  assert not float_coding.known(np.dtype(dtype))


def test_what_is_left_over_is_refused() -> None:
  data = float_coding.encode(np.linspace(-1, 1, 40, dtype=np.float32))
  with pytest.raises(ValueError, match='floats: expected the end'):
    float_coding.decode(data, np.dtype('f4'), (8,))
