"""Numbers drawn along one axis are the numbers of any shape."""

import jax
import numpy as np
import pytest

from compress.random import draw
from tests.runs import assert_same_bits

KEY = jax.random.key(7)


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(), (5,), (3, 3, 2, 4), (7, 0), (6, 5)])
@pytest.mark.parametrize('name', ['uniform', 'normal', 'logistic'])
def test_the_shape_does_not_change_the_numbers(
  name: str, shape: tuple[int, ...]
) -> None:
  sampler = getattr(jax.random, name)
  assert_same_bits(draw(sampler, KEY, shape), sampler(KEY, shape))


def test_arguments_are_passed_on() -> None:
  got = draw(jax.random.uniform, KEY, (2, 3), np.float32, -1)
  assert_same_bits(got, jax.random.uniform(KEY, (2, 3), np.float32, -1))
