"""Integers come back from as few bytes as they need."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tsukiji.deploy.tsk.varint import put_varint, take_varint


@given(st.integers(0, 2**63 - 1), st.binary(max_size=3))
def test_varints_survive(n: int, rest: bytes) -> None:
  assert take_varint(memoryview(put_varint(n) + rest)) == (
    n,
    rest,
  )


@pytest.mark.parametrize('data', [b'', b'\x80', b'\xff' * 12])
def test_endless_varints_are_refused(data: bytes) -> None:
  with pytest.raises(ValueError, match='at most 9 bytes'):
    take_varint(memoryview(data))
