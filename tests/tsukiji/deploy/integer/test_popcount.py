"""Packed products of signs against sums in NumPy and XLA's convolution."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsukiji.deploy.integer import popcount

RNG = np.random.default_rng(0)
WIDTHS = (1, 31, 32, 33, 100)


def drawn(*shape: int) -> np.ndarray:
  """Return signs as bits."""
  return RNG.integers(0, 2, shape).astype(bool)


def ones(signs: np.ndarray) -> np.ndarray:
  """Return signs as numbers."""
  return np.where(signs, 1, -1)


@pytest.mark.parametrize('size', WIDTHS)
def test_words_hold_every_bit(size: int) -> None:
  signs = drawn(3, size)
  packed = np.asarray(popcount.words(signs))
  assert packed.shape == (3, -(-size // 32))
  assert packed.dtype == np.uint32
  for row, bits in zip(packed, signs, strict=True):
    full = sum(int(word) << 32 * i for i, word in enumerate(row))
    assert [full >> i & 1 for i in range(size)] == bits.tolist()
    assert full >> size == 0


@pytest.mark.slow
@pytest.mark.parametrize('size', WIDTHS)
def test_dense_sums(size: int) -> None:
  x, w = drawn(4, 3, size), drawn(size, 7)
  found = popcount.dense(jnp.asarray(x), popcount.packed(jnp.asarray(w)))
  assert found.dtype == jnp.int32
  np.testing.assert_array_equal(found, ones(x) @ ones(w))


@pytest.mark.slow
@pytest.mark.parametrize(
  ('padding', 'strides', 'kernel', 'inputs'),
  [
    *itertools.product(
      ['SAME', 'VALID'], [(1, 1), (2, 1)], [(3, 3), (2, 1)], [3]
    ),
    ('SAME', (1, 1), (5, 5), 33),
  ],
)
def test_convolutions(
  padding: str, strides: tuple[int, int], kernel: tuple[int, int], inputs: int
) -> None:
  x, w = drawn(2, 6, 5, inputs), drawn(*kernel, inputs, 4)
  pads = jax.lax.padtype_to_pads((6, 5), kernel, strides, padding)
  want = jax.lax.conv_general_dilated(
    np.float32(ones(x)),
    np.float32(ones(w)),
    strides,
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  weight = popcount.packed(jnp.asarray(w))
  found = jax.jit(lambda x: popcount.conv(x, weight, strides, pads))(x)
  assert found.dtype == jnp.int32
  np.testing.assert_array_equal(found, want)
