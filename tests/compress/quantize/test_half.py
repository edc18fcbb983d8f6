"""Half floats against NumPy's and the bits of bfloat16."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import tree
from compress.method import Ctx
from compress.quantize.half import Half, half
from compress.quantize.uniform import uniform

W = np.random.default_rng(0).normal(size=(3, 3, 2, 5)).astype(np.float32)
GAIN = jnp.array([1.0, 2.0, -4.0, 0.5, 0.0])  # exact in binary


def frozen(dtype: str) -> Any:
  """Return the weight as it is stored."""
  return tree.freeze(half(dtype).init({'w': jnp.asarray(W)}, Ctx()))['w']


def test_half_floats_are_those_of_numpy() -> None:
  node = frozen('float16')
  assert node.bits == 16
  assert node.halves.dtype == jnp.float16
  want = W.astype(np.float16).astype(np.float32)
  np.testing.assert_array_equal(node.decode(), want)
  # bfloat16 is the upper half of float32, rounded to even.
  raw = W.view(np.uint32)
  upper = (raw + 0x7FFF + (raw >> 16 & 1)) >> 16
  node = frozen('bfloat16')
  np.testing.assert_array_equal(node.halves, upper.astype(np.uint16))
  want = (upper.astype(np.uint32) << 16).view(np.float32)
  np.testing.assert_array_equal(node.decode(), want)


def test_gains_of_half_floats_multiply() -> None:
  node = (
    Half(jnp.ones((2, 5), jnp.float16))
    .scale_channels(GAIN)
    .scale_channels(GAIN)
  )
  np.testing.assert_array_equal(node.decode()[0], GAIN**2)


def test_halves_round_and_pass_gradients() -> None:
  wide = jnp.asarray(W).at[0, 0, 0, 0].set(1e6)
  node = half().init({'w': wide}, Ctx())['w']
  assert float(node.decode()[0, 0, 0, 0]) == 65504.0
  slope = jax.grad(lambda w: jnp.sum(node.replace(w=w).decode()))(wide)
  assert np.all(slope == 1.0)
  with pytest.raises(ValueError, match='not quantized yet, got .* at w'):
    uniform(8).init({'w': node}, Ctx())


def test_other_types_are_refused() -> None:
  with pytest.raises(ValueError, match="expected 'float16' or 'bfloat16', got"):
    half('float8')
