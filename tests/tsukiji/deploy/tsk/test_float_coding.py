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


@given(st.integers(0, 10), st.sampled_from([1, -1]), hnp.arrays(np.uint16, 9))
def test_what_floats_have_in_common_takes_no_bytes(
  kept: int, sign: int, drawn: np.ndarray
) -> None:
  rest = drawn % (1 << kept)
  x = np.float32(sign * (1 + rest / (1 << kept)))  # of exponent 0
  assert len(float_coding.encode(x)) <= 2 + -(-9 * kept // 8) + 4


def test_exponents_take_their_entropy_and_signs_a_bit() -> None:
  drawn = np.random.default_rng(0)
  scale = drawn.choice(np.float32([0.25, 0.5, 1, 2]), 4000)
  x = scale * drawn.choice(np.float32([1.25, 1.75, -1.25, -1.75]), 4000)
  assert len(float_coding.encode(x)) <= 4000 * (2 + 1 + 2) / 8 + 24


def test_a_head_of_other_floats_is_refused() -> None:
  x = np.float32([0.5, 3.0])
  data = bytearray(float_coding.encode(x))
  data[1] = 255  # with a range of exponents behind it
  with pytest.raises(ValueError, match='expected exponents of float32'):
    float_coding.decode(bytes(data), x.dtype, x.shape)
  with pytest.raises(ValueError, match='expected at most 10 bits'):
    float_coding.decode(b'\x17\x00', np.dtype('f2'), (1,))
  with pytest.raises(ValueError, match='expected 3 bytes'):
    float_coding.decode(bytes(data[:2]), x.dtype, x.shape)


@pytest.mark.parametrize('dtype, rest', [('f2', 11), ('f4', 24)])
def test_size_is_that_of_the_exponents_and_the_rest(dtype, rest) -> None:
  x = np.random.default_rng(5).normal(0, 0.05, (80, 64)).astype(dtype)
  counts = np.unique(np.frexp(x.astype('f8'))[1], return_counts=True)[1]
  bits = (counts * np.log2(x.size / counts)).sum() + x.size * rest
  assert len(float_coding.encode(x)) <= 1.005 * bits / 8 + 64 < 0.93 * x.nbytes


def test_brain_floats_are_as_short_in_float32() -> None:
  x = np.random.default_rng(5).normal(0, 0.05, 999).astype('bfloat16')
  narrow, wide = (float_coding.encode(x.astype(t)) for t in (x.dtype, 'f4'))
  assert len(wide) == len(narrow)
  again = float_coding.decode(narrow, x.dtype, x.shape)
  assert again.tobytes() == x.tobytes()


@pytest.mark.parametrize('dtype', ['f8', 'i4', 'b1'])
def test_other_dtypes_are_not_known(dtype: str) -> None:
  assert not float_coding.known(np.dtype(dtype))


def test_what_is_left_over_is_refused() -> None:
  data = float_coding.encode(np.linspace(-1, 1, 40, dtype=np.float32))
  with pytest.raises(ValueError, match='expected the end of a stream'):
    float_coding.decode(data, np.dtype('f4'), (8,))
