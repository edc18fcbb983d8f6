"""Squashed weights against the equation of their paper."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress.method import Ctx
from compress.quantize.dorefa import DorefaWeight, dorefa

W = np.random.default_rng(0).normal(size=(3, 3, 2, 5)).astype(np.float32)


@pytest.mark.parametrize('bits', [2, 3, 8])
def test_dorefa_is_its_equation(bits: int) -> None:
  top = 2**bits - 1
  x = np.tanh(W.astype(float))
  unit = x / (2 * np.abs(x).max()) + 0.5
  sure = np.abs(top * unit % 1 - 0.5) > 1e-3
  want = 2 * np.round(top * unit) / top - 1
  node = dorefa(bits, scaled=False).init({'w': jnp.asarray(W)}, Ctx())
  found = node['w'].decode()
  np.testing.assert_allclose(found[sure], want[sure], atol=1e-6)
  assert not np.any(found == 0)
  scaled = dorefa(bits).init({'w': jnp.asarray(W)}, Ctx())['w']
  np.testing.assert_allclose(
    scaled.decode(), np.abs(W).max() * found, rtol=1e-5
  )


def test_dorefa_passes_the_gradient_of_the_tangent() -> None:
  node = DorefaWeight(jnp.asarray(W), jnp.float32(4.0 / 7), None, 3)

  def plain(w: Any) -> Any:
    x = jnp.tanh(w)
    return jnp.sum(W**2 * 2.0 * x / jnp.max(jnp.abs(x)))

  found = jax.grad(lambda w: jnp.sum(W**2 * node.replace(w=w).decode()))
  np.testing.assert_allclose(
    found(node.w), jax.grad(plain)(node.w), rtol=1e-4, atol=1e-5
  )
  zeros = node.replace(w=jnp.zeros_like(node.w))
  assert np.all(np.isfinite(zeros.decode()))


def test_impossible_widths_are_refused() -> None:
  with pytest.raises(ValueError, match='dorefa: expected weight_bits from 2'):
    dorefa(0)
