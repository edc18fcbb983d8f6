"""Convolution agrees with lax, derivatives included."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import compress
from tests.derivatives import assert_close, distinct, value_and_vjp
from tsukiji.graph.capture import capture
from tsukiji.models import convolution
from tsukiji.models.convolution import conv_general_dilated

NHWC = ('NHWC', 'HWIO', 'NHWC')
FEW = settings(max_examples=3, deadline=None, derandomize=True)


@pytest.fixture(autouse=True)
def strict():
  with warnings.catch_warnings(), jax.numpy_rank_promotion('raise'):
    warnings.simplefilter('error')
    yield


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


def both_convs(shape, kernel, strides=(1, 1), padding='VALID', **others):
  x, w = distinct(shape), distinct(kernel, seed=2) - 0.5
  args = (strides, padding)
  others = {'dimension_numbers': NHWC, **others}
  ours = jax.jit(lambda x, w: conv_general_dilated(x, w, *args, **others))
  theirs = jax.jit(lambda x, w: lax.conv_general_dilated(x, w, *args, **others))
  return ours, theirs, (x, w)


@pytest.mark.slow
@FEW
@given(
  batch=st.sampled_from([1, 17, 35]),
  kernel=pairs,
  extra=st.tuples(st.integers(0, 3), st.integers(0, 30)),
  channels=st.sampled_from([1, 3]),
)
def test_fast_conv_is_lax(batch, kernel, extra, channels):
  shape = (batch, kernel[0] + extra[0], kernel[1] + extra[1], channels)
  ours, theirs, args = both_convs(shape, (*kernel, channels, 4))
  got, want = value_and_vjp(ours, *args), value_and_vjp(theirs, *args)
  assert_close(got[0], want[0])
  for a, b in zip(got[1], want[1], strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * float(abs(b).max()))


@pytest.mark.slow
@FEW
@given(
  kernel=pairs,
  extra=st.tuples(st.integers(0, 3), st.integers(0, 9)),
  strides=pairs,
  padding=st.sampled_from(['SAME', 'VALID', ((1, 0), (2, 3))]),
)
def test_a_filter_a_channel_is_lax(kernel, extra, strides, padding):
  shape = (3, kernel[0] + extra[0], kernel[1] + extra[1], 5)
  ours, theirs, args = both_convs(
    shape, (*kernel, 1, 5), strides, padding, feature_group_count=5
  )
  assert_close(value_and_vjp(ours, *args), value_and_vjp(theirs, *args))


BY_TAPS = [
  ((2, 9, 9, 6), (3, 3, 1, 6), 'SAME', 6),
  ((2, 9, 9, 1), (5, 5, 1, 8), 'VALID', 1),
  ((2, 9, 9, 3), (3, 3, 3, 4), ((1, 0), (0, 2)), 1),
]


@pytest.mark.parametrize('shape, kernel, padding, groups', BY_TAPS)
def test_a_cpu_sums_shifts_where_that_is_faster(shape, kernel, padding, groups):
  ours, theirs, args = both_convs(
    shape, kernel, padding=padding, feature_group_count=groups
  )
  assert_close(value_and_vjp(ours, *args), value_and_vjp(theirs, *args))
  program = ours.lower(*args).compile().as_text()
  assert ' convolution(' not in program
  exported = jax.export.export(ours, platforms=['tpu'])(*args).mlir_module()
  assert 'stablehlo.convolution' in exported


BY_COLUMNS = [
  ((2, 9, 9, 6), (3, 3, 6, 8), 'SAME', 1),
  ((2, 9, 9, 4), (5, 5, 4, 4), 'VALID', 1),
  ((2, 9, 9, 20), (1, 3, 20, 4), ((0, 0), (0, 2)), 1),  # narrow one way
  ((2, 9, 9, 4), (3, 2, 4, 20), ((1, 0), (2, 1)), 1),
  ((2, 3, 3, 20), (5, 5, 20, 24), 'SAME', 1),  # large windows
  ((17, 5, 5, 20), (3, 3, 20, 24), 'SAME', 1),  # chunks alone
]


@pytest.mark.parametrize('shape, kernel, padding, groups', BY_COLUMNS)
def test_a_cpu_shifts_few_filters(shape, kernel, padding, groups):
  ours, theirs, args = both_convs(shape, kernel, padding=padding)
  got, want = value_and_vjp(ours, *args), value_and_vjp(theirs, *args)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * float(abs(b).max()))
  few = kernel[3] <= 16 or kernel[0] * kernel[1] > shape[1] * shape[2]
  wide = f'f32[{shape[0]},{got[0].shape[1]},{shape[2]},{kernel[1] * kernel[3]}]'
  assert (wide in ours.lower(*args).compile().as_text()) == few


@pytest.mark.parametrize('shape, kernel, padding, groups', BY_TAPS + BY_COLUMNS)
def test_programs_are_read_as_convolutions(shape, kernel, padding, groups):
  ours, theirs, (x, w) = both_convs(
    shape, kernel, padding=padding, feature_group_count=groups
  )

  def read(conv):
    def apply(params, x):
      return conv(x, params['w'])

    graph = capture(apply, {'w': w}, x)
    return compress.sites(apply, {'w': w}, x), [
      (node.op, node.inputs, node.attrs) for node in graph.nodes
    ]

  assert read(ours) == read(theirs)


@pytest.mark.slow
@pytest.mark.parametrize(
  'kernel, options',
  [
    ((3, 3, 4, 4), {'padding': 'SAME'}),
    ((3, 3, 4, 4), {'strides': (2, 1)}),
    ((3, 3, 4, 4), {'padding': ((1, 0), (0, 2))}),
    ((2, 2, 4, 4), {'rhs_dilation': (2, 1)}),
    ((2, 2, 4, 4), {'lhs_dilation': (1, 2), 'padding': ((0, 0), (0, 0))}),
    ((3, 3, 1, 4), {'feature_group_count': 4}),
    ((3, 3, 4, 4), {'dimension_numbers': ('HWNC', 'HWIO', 'NHWC')}),
    ((3, 3, 4, 4), {'precision': 'highest'}),
    ((3, 3, 4, 4), {'padding': ((0, 0), (0, 0))}),
  ],
)
def test_other_convs_are_lax(kernel, options):
  ours, theirs, args = both_convs((5, 6, 6, 4), kernel, **options)
  assert_close(value_and_vjp(ours, *args), value_and_vjp(theirs, *args))


@pytest.mark.slow
@pytest.mark.parametrize(
  'kernel, groups', [((3, 3, 4, 2), 1), ((3, 3, 2, 2), 1), ((3, 3, 1, 2), 2)]
)
def test_conv_has_forward_and_second_derivatives_and_vmap(kernel, groups):
  ours, theirs, (x, w) = both_convs(
    (3, 6, 6, kernel[2] * groups), kernel, feature_group_count=groups
  )

  def curvature(conv):
    grad = jax.grad(lambda x, w: (conv(x, w) ** 2).sum(), argnums=(0, 1))
    return jax.jvp(grad, (x, w), (x, w))

  assert_close(
    jax.tree.map(lambda a: a / 100, curvature(ours)),
    jax.tree.map(lambda a: a / 100, curvature(theirs)),
  )
  xs = jnp.stack([x, x[::-1]])
  mapped = jax.vmap(ours, (0, None))(xs, w)
  assert_close(mapped, jnp.stack([theirs(x, w) for x in xs]))


def test_data_gets_no_gradient_convolution():
  ours, _, (x, w) = both_convs((32, 6, 6, 1), (3, 3, 1, 2))
  grad = jax.jit(jax.grad(lambda w: ours(x, w).sum()))
  convs = str(jax.make_jaxpr(grad)(w)).count('conv_general_dilated[')
  assert convs <= 3  # forward, and one weight gradient for each chunk


@pytest.mark.slow
def test_flax_conv_takes_it():
  x = distinct((4, 8, 8, 2))
  ours = nn.Conv(3, (5, 5), conv_general_dilated=conv_general_dilated)
  params = ours.init(jax.random.key(0), x)
  assert_close(ours.apply(params, x), nn.Conv(3, (5, 5)).apply(params, x))


@pytest.mark.parametrize(
  'backend, devices', [('gpu', 1), ('tpu', 4), ('cpu', 2)]
)
def test_other_machines_take_lax(monkeypatch, backend, devices):
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  monkeypatch.setattr(jax, 'device_count', lambda: devices)
  monkeypatch.setattr(convolution, '_conv', None)
  x, w = jnp.ones((2, 4, 4, 1)), jnp.ones((3, 3, 1, 1))
  y = conv_general_dilated(x, w, (1, 1), 'VALID', dimension_numbers=NHWC)
  assert y.shape == (2, 2, 2, 1)
