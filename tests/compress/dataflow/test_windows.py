"""Convolutions as products of patches: the same numbers, in another order."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import compress
from compress import dataflow
from compress.dataflow import windows
from tests.runs import assert_same_bits

# Shapes of the input and of the kernel, strides, padding, dilation, layout.
LARGE: dict[str, tuple[Any, ...]] = {
  'input': ((4, 2, 2, 5), (3, 3, 5, 6), (1, 1), 'SAME', (1, 1)),
  'output': ((4, 4, 4, 5), (3, 3, 5, 6), (2, 2), 'SAME', (1, 1)),
  'one side': ((4, 9, 2, 5), (1, 3, 5, 6), (2, 1), 'SAME', (1, 1)),
  'dilated': ((4, 4, 4, 5), (3, 3, 5, 6), (1, 1), 'SAME', (2, 2)),
  'padding': ((4, 2, 3, 5), (3, 2, 5, 6), (1, 2), [(2, 0), (-1, 3)], (1, 1)),
  'line': ((4, 3, 5), (5, 5, 6), (1,), 'SAME', (1,)),
  'channels first': ((4, 5, 2, 2), (6, 5, 3, 3), (1, 1), 'SAME', (1, 1)),
}
LAYOUTS = {'channels first': ('NCHW', 'OIHW', 'NCHW')}
WIDE = ((4, 8, 8, 5), (3, 3, 5, 6), (2, 1), 'SAME', (1, 1))


def case(name: str) -> tuple[Any, Any, jax.Array]:
  """Return a convolution, its parameters and an input."""
  shape, kernel, strides, padding, dilation = LARGE.get(name, WIDE)
  usual = ('NHWC', 'HWIO', 'NHWC') if len(shape) == 4 else ('NHC', 'HIO', 'NHC')

  def fn(params: Any, x: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
      x,
      params['w'],
      strides,
      padding,
      rhs_dilation=dilation,
      dimension_numbers=LAYOUTS.get(name, usual),
    )

  drawn = np.random.default_rng(0)
  params = {'w': jnp.float32(drawn.normal(size=kernel))}
  return fn, params, jnp.float32(drawn.normal(size=shape))


def computed(fn: Any, compute: Any) -> Any:
  """Return a function whose products are computed in some way."""
  return lambda params, *x: (
    dataflow.observed(fn, params, x, {}, None, compute=compute).outputs
  )


def primitives(fn: Any, *args: Any) -> str:
  return str(jax.make_jaxpr(fn)(*args))


def assert_near(fn: Any, other: Any, *args: Any) -> None:
  """Check outputs and gradients."""

  def loss(fn: Any) -> Any:
    return jax.value_and_grad(lambda *x: jnp.sum(jnp.sin(fn(*x))), (0, 1))

  found, expected = (jax.jit(loss(f))(*args) for f in (fn, other))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
    found,
    expected,
  )
  np.testing.assert_allclose(fn(*args), other(*args), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', LARGE)
def test_large_windows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
  fn, *args = case(name)
  as_is = computed(fn, windows.multiplied)
  assert_same_bits(as_is(*args), fn(*args))  # too few multiplications
  monkeypatch.setattr(windows, 'MACS', 1)
  changed = computed(fn, windows.multiplied)
  assert 'conv_general_dilated' in primitives(fn, *args)
  assert 'conv_general_dilated' not in primitives(changed, *args)
  assert_near(changed, fn, *args)


def test_other_windows_only_in_loops(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(windows, 'MACS', 1)
  fn, *args = case('wide')
  usual = computed(fn, windows.multiplied)
  assert primitives(usual, *args) == primitives(fn, *args)
  inside = computed(fn, windows.in_loop)
  assert 'conv_general_dilated' not in primitives(inside, *args)
  assert_near(inside, fn, *args)


def test_groups_and_very_large_windows_stay(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  monkeypatch.setattr(windows, 'MACS', 1)
  x = jnp.ones((1, 2, 2, 4))
  for kernel, groups in (((3, 3, 1, 4), 4), ((9, 9, 4, 2), 1)):

    def fn(params: Any, x: jax.Array, groups: int = groups) -> jax.Array:
      return jax.lax.conv_general_dilated(
        x,
        params['w'],
        (1, 1),
        'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        feature_group_count=groups,
      )

    found = computed(fn, windows.in_loop)
    assert 'conv_general_dilated' in primitives(
      found, {'w': jnp.ones(kernel)}, x
    )


def test_probes_take_patches(monkeypatch: pytest.MonkeyPatch) -> None:
  """The loss and its gradients, single gradients, and inputs of layers."""
  fn, params, x = case('input')

  def loss(params: Any, batch: jax.Array) -> jax.Array:
    return jnp.mean(fn(params, batch) ** 2)

  def found() -> list[Any]:
    probe = compress.probe(fn, params, x, loss, x)
    squares = probe.reduce(
      params, ('w',), lambda w, g: jnp.sum(g['w'] ** 2, 0), 4
    )
    assert probe.ranges is not None
    loss_and_grad = probe.loss(params), probe.grad(params)
    return [*loss_and_grad, squares, probe.ranges(params)]

  plain = found()
  monkeypatch.setattr(windows, 'MACS', 1)
  probe = compress.probe(fn, params, x, loss, x)
  for ask in (probe.loss, probe.grad):
    assert 'conv_general_dilated' not in primitives(ask, params)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), found(), plain
  )
