"""Affine functions of constants go into the products that read them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from compress import tree
from compress.quantize.half import stored
from tests.runs import one_shot
from tsukiji.deploy import artefact
from tsukiji.deploy.integer import binary_layers
from tsukiji.deploy.passes.lower import lower
from tsukiji.deploy.passes.push import pushed
from tsukiji.graph.capture import capture
from tsukiji.models import zoo

DRAWN = np.random.default_rng(0)
X = jnp.float32(DRAWN.normal(size=(5, 6, 6, 4)))
GAIN, SHIFT = jnp.float32(DRAWN.uniform(0.5, 2, (2, 4)))
LAST, FIRST = ('NHWC', 'HWIO', 'NHWC'), ('NHWC', 'OIHW', 'NCHW')


def array(*shape: int) -> jax.Array:
  return jnp.float32(DRAWN.normal(size=shape))


PARAMS = {
  'conv': array(3, 3, 4, 2),
  'first': array(2, 4, 3, 3),
  'grouped': array(3, 3, 2, 6),
  'matrix': array(4, 3),
  'turned': array(3, 4),
  'rows': array(6, 3),
  'many': array(6, 4, 3),
}


def conv(x: Any, w: Any, numbers: Any = LAST, **more: Any) -> jax.Array:
  return lax.conv_general_dilated(
    x, w, (1, 1), **{'padding': 'VALID', **more}, dimension_numbers=numbers
  )


def dot(x: Any, w: Any, summed: Any, batch: Any = ((), ())) -> jax.Array:
  return lax.dot_general(x, w, (summed, batch))


Function = Callable[[Any, jax.Array], Any]
# What is left: the operators.
PUSHED: dict[str, tuple[Function, list[str]]] = {
  'by channel': (
    lambda p, x: conv((x - SHIFT) / GAIN, p['conv']) + 1,
    ['conv', 'add', 'add'],
  ),
  'outputs first': (
    lambda p, x: conv(x * GAIN + SHIFT, p['first'], FIRST),
    ['conv', 'add'],
  ),
  'matrix': (lambda p, x: (x * GAIN + SHIFT) @ p['matrix'], ['dot', 'add']),
  'a matrix the other way': (
    lambda p, x: dot(x * GAIN + SHIFT, p['turned'], ((3,), (1,))),
    ['dot', 'add'],
  ),
  'numbers over another axis': (
    lambda p, x: dot(x * 3 + 2, p['rows'], ((1,), (0,))),
    ['dot', 'add'],
  ),
  'groups, numbers': (
    lambda p, x: conv(x * 3 + 2, p['grouped'], feature_group_count=2),
    ['conv', 'add'],
  ),
  'padded, factors alone': (
    lambda p, x: conv(x * GAIN, p['conv'], padding='SAME'),
    ['conv', 'add'],
  ),
  'padded': (
    lambda p, x: conv(x * GAIN + SHIFT, p['conv'], padding='SAME'),
    ['mul', 'add', 'conv'],
  ),
  'spread': (
    lambda p, x: conv(
      x * GAIN + SHIFT, p['conv'], padding=[(0, 0)] * 2, lhs_dilation=(2, 2)
    ),
    ['mul', 'add', 'conv'],
  ),
  'groups by channel': (
    lambda p, x: conv(x * GAIN, p['grouped'], feature_group_count=2),
    ['mul', 'conv'],
  ),
  'by channel over another axis': (
    lambda p, x: dot(x * GAIN, p['rows'], ((1,), (0,))),
    ['mul', 'dot'],
  ),
  'one matrix an example': (
    lambda p, x: dot(x * 3 + 2, p['many'], ((3,), (1,)), ((1,), (0,))),
    ['mul', 'add', 'dot'],
  ),
  'a weight twice': (
    lambda p, x: (x * GAIN) @ p['matrix'] + x @ p['matrix'],
    ['mul', 'dot', 'dot', 'add'],
  ),
  'a mean': (
    lambda p, x: x.mean((1, 2)) @ p['matrix'],
    ['reduce_sum', 'div', 'dot'],
  ),
  'two readers': (
    lambda p, x: (y := x * GAIN) @ p['matrix'] + y[..., :3],
    ['mul', 'dot', 'slice', 'add'],
  ),
  'an output': (
    lambda p, x: ((y := x * GAIN), y @ p['matrix']),
    ['mul', 'dot'],
  ),
}


@pytest.mark.parametrize('name', PUSHED)
def test_weights_take_what_they_read(name: str) -> None:
  fn, left = PUSHED[name]
  small, weights = pushed(capture(fn, PARAMS, X), tree.paths(PARAMS))
  assert [node.op for node in small.nodes] == left
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
    artefact.forward(small, {'params': weights})(X),
    fn(PARAMS, X),
  )


def test_weights_that_are_no_arrays_stay() -> None:
  fn = lambda p, x: (x * GAIN) @ tree.decode(p)['matrix']  # noqa: E731
  params = {'matrix': stored(PARAMS['matrix'].astype(jnp.bfloat16))}
  graph = capture(fn, params, X)
  small, weights = pushed(graph, tree.paths(params))
  assert [node.op for node in small.nodes] == [x.op for x in graph.nodes]
  assert weights['matrix'] is params['matrix']


def test_pixels_may_be_integers() -> None:
  fn, _ = PUSHED['by channel']
  small, weights = pushed(capture(fn, PARAMS, X), tree.paths(PARAMS))
  pixels = jnp.asarray(DRAWN.integers(0, 256, X.shape), jnp.uint8)
  np.testing.assert_allclose(
    artefact.forward(small, {'params': weights})(pixels),
    fn(PARAMS, pixels),
    rtol=1e-4,
  )


def test_pixels_may_be_integers_beside_popcounts() -> None:
  sizes: dict[str, Any] = {'conv': (8, 16), 'hidden': (16,)}
  spec = zoo.build('binary_tsukijinet', (8, 8, 1), 10, **sizes)
  graph, variables = lower(spec, one_shot(spec, 'binary.bnn(ends=False)'))
  assert graph.nodes[0].op == 'conv'
  counted = binary_layers.layers(graph, variables)
  pixels = DRAWN.integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)
  np.testing.assert_allclose(
    artefact.forward(graph, variables, counted)(pixels),
    artefact.forward(graph, variables)(pixels),
    rtol=1e-5,
    atol=1e-5,
  )
