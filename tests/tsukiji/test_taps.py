"""Convolutions by taps agree with lax, alone and inside a graph."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsukiji import taps
from tsukiji.graph.capture import capture
from tsukiji.graph.evaluate import run
from tsukiji.graph.operators import THIN

FEW = settings(max_examples=8, deadline=None, derandomize=True)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
pads = st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2)


def arrays(shape: tuple, kernel: tuple) -> tuple[jax.Array, jax.Array]:
  rng = np.random.default_rng(0)
  x, w = rng.normal(size=shape), rng.normal(size=kernel)
  return jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32)


@FEW
@given(kernel=pairs, strides=pairs, padding=pads, depthwise=st.booleans())
def test_taps_are_lax(kernel, strides, padding, depthwise):
  groups = 3 if depthwise else 1
  form = taps.Form(strides, padding, groups)
  x, w = arrays((2, 7, 6, 3), (*kernel, 3 // groups, 3 if depthwise else 4))
  for fn in (taps.by_taps, taps.convolved):
    got = jax.jit(fn, static_argnums=2)(x, w, form)
    np.testing.assert_allclose(got, taps.plain(x, w, form), atol=1e-5)


@FEW
@given(kernel=pairs, padding=pads)
def test_columns_are_lax(kernel, padding):
  form = taps.Form((1, 1), padding)
  x, w = arrays((2, 7, 6, 5), (*kernel, 5, 4))
  got = jax.jit(taps.by_columns, static_argnums=2)(x, w, form)
  np.testing.assert_allclose(got, taps.plain(x, w, form), atol=1e-5)


@pytest.mark.parametrize(
  ('kernel', 'strides', 'groups', 'wanted'),
  [
    ((3, 3, 1, 8), (1, 1), 8, True),  # a filter a channel
    ((3, 3, 1, 8), (2, 2), 8, True),
    ((3, 3, 4, 8), (1, 1), 2, False),  # other groups
    ((3, 3, 8, 17), (1, 1), 1, False),  # many channels and filters
    ((5, 5, 1, THIN[0]), (1, 1), 1, True),  # few channels and filters
    ((5, 5, 1, THIN[0] + 1), (1, 1), 1, False),
    ((3, 3, 8, 16), (1, 1), 1, True),  # few filters
    ((3, 3, 8, 16), (2, 2), 1, False),
    ((3, 1, 8, 16), (1, 1), 1, False),  # one column
    ((10, 9, 4, 20), (1, 1), 1, True),  # a large window
  ],
)
@pytest.mark.parametrize('batch', [1, 3])
def test_graphs_take_them_on_a_cpu(kernel, strides, groups, wanted, batch):
  form = taps.Form(strides, ((1, 1), (1, 1)), groups)
  x, w = arrays((batch, 9, 9, kernel[2] * groups), kernel)
  graph = capture(lambda p, x: taps.plain(x, p['w'], form), {'w': w}, x)
  fn = jax.jit(lambda x: run(graph, {'w': w}, x))
  np.testing.assert_allclose(fn(x), taps.plain(x, w, form), atol=1e-4)
  assert ('platform_index' in str(jax.make_jaxpr(fn)(x))) is wanted


@pytest.mark.parametrize('groups', [1, 4])
def test_graphs_with_them_are_exported_for_any_number_of_examples(groups):
  form = taps.Form((1, 1), ((1, 1), (1, 1)), groups)
  x, w = arrays((3, 5, 5, 4), (3, 3, 4 // groups, 4))
  graph = capture(lambda p, x: taps.plain(x, p['w'], form), {'w': w}, x)
  (batch,) = jax.export.symbolic_shape('batch')
  like = jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype)
  for platforms in (['cpu'], ['cpu', 'cuda']):
    made = jax.export.export(
      jax.jit(lambda x: run(graph, {'w': w}, x)), platforms=platforms
    )(like)
    want = taps.plain(x, w, form)
    np.testing.assert_allclose(made.call(x), want, atol=1e-5)
