"""Affine functions of constants go into weights, of any function."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import compress
from compress import tree
from compress.quantize.integer_codes import Quantized
from compress.quantize.uniform import uniform
from tsukiji.deploy import artefact
from tsukiji.deploy.passes.absorb import absorbed
from tsukiji.graph.capture import capture

DRAWN = np.random.default_rng(0)
X = jnp.float32(DRAWN.normal(size=(5, 6, 6, 3)))


def array(*shape: int) -> jax.Array:
  return jnp.float32(
    DRAWN.uniform(0.5, 2, shape) * DRAWN.choice([-1, 1], shape)
  )


def conv(
  x: jax.Array, w: jax.Array, numbers: tuple[str, str, str]
) -> jax.Array:
  return lax.conv_general_dilated(
    x, w, (1, 1), 'SAME', dimension_numbers=numbers
  )


LAST, FIRST = ('NHWC', 'HWIO', 'NHWC'), ('NHWC', 'OIHW', 'NCHW')
PARAMS = {
  'a': array(4),
  'b': array(4),
  'first': {'kernel': array(4, 3, 3, 3)},
  'last': {'kernel': array(3, 3, 3, 4), 'bias': array(4)},
  'm': {'kernel': array(3, 4)},
  'row': array(1, 1, 1, 4),
  't': array(4, 3),
}
Function = Callable[[Any, jax.Array], Any]
# What is left: the operators.
ABSORBED: dict[str, tuple[Function, list[str]]] = {
  'bias and norm': (
    lambda p, x: (
      (conv(x, p['last']['kernel'], LAST) + p['last']['bias'] - 0.3)
      * (p['a'] / jnp.sqrt(2.0))
      + p['b']
    ),
    ['conv', 'add'],
  ),
  'channels first': (
    lambda p, x: (
      p['b'][:, None, None]
      - conv(x, p['first']['kernel'], FIRST) / p['a'][:, None, None]
    ),
    ['conv', 'add'],
  ),
  'matrix': (
    lambda p, x: -(p['a'] * (x @ p['m']['kernel'])) - p['b'],
    ['dot', 'add'],
  ),
  'outputs first': (
    lambda p, x: lax.dot_general(x, p['t'], (((3,), (1,)), ((), ()))) * p['a'],
    ['dot', 'add'],
  ),
  'input': (
    lambda p, x: ((x - 2) / 3 * 4 + p['row'][..., :3]) * 2 @ p['m']['kernel'],
    ['mul', 'add', 'dot'],
  ),
  'two readers': (
    lambda p, x: (y := conv(x, p['last']['kernel'], LAST)) * p['a'] + y,
    ['conv', 'mul', 'add'],
  ),
  'behind an activation': (
    lambda p, x: (jnp.tanh(x @ p['m']['kernel']) - 1) * p['a'] * 3 + p['b'],
    ['dot', 'tanh', 'mul', 'add'],
  ),
  'a weight twice': (
    lambda p, x: (x @ p['m']['kernel'] - 1) * p['a'] * 3 + x @ p['m']['kernel'],
    ['dot', 'mul', 'add', 'add'],
  ),
  'not by channel': (
    lambda p, x: (x @ p['m']['kernel']) * jnp.arange(6.0)[:, None],
    ['dot', 'mul'],
  ),
  'an output': (
    lambda p, x: ((y := x @ p['m']['kernel']), y * p['a']),
    ['dot', 'mul'],
  ),
}


@pytest.mark.parametrize('name', ABSORBED)
def test_affine_functions_are_absorbed(name: str) -> None:
  fn, left = ABSORBED[name]
  graph = capture(fn, PARAMS, X)
  small, weights = absorbed(graph, tree.paths(PARAMS))
  ops = [node.op for node in small.nodes]
  assert ops == left
  run = artefact.forward(small, {'params': weights})
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
    run(X),
    fn(PARAMS, X),
  )


STEPS = st.lists(
  st.tuples(
    st.sampled_from(['+', '-', '*', '/', 'n', 'r']), st.floats(0.5, 2.0)
  ),
  max_size=8,
)


def applied(steps: Any, x: Any) -> Any:
  """Apply steps to a value: sums, products, and differences from both sides."""
  for op, by in steps:
    x = {
      '+': lambda x, by: x + by,
      '-': lambda x, by: x - by,
      '*': lambda x, by: x * -by,
      '/': lambda x, by: x / by,
      'n': lambda x, by: -x,
      'r': lambda x, by: by - x,
    }[op](x, by)
  return x


@given(STEPS)
@settings(deadline=None, max_examples=25)
def test_any_chain_keeps_its_function(steps: Any) -> None:
  weights = {'m': {'kernel': PARAMS['m']['kernel']}}
  fn = lambda p, x: applied(steps, x @ p['m']['kernel'])  # noqa: E731
  small, found = absorbed(capture(fn, weights, X), tree.paths(weights))
  assert len(small.nodes) <= 2
  got = artefact.forward(small, {'params': found})(X)
  exact = np.float64(X) @ np.float64(weights['m']['kernel'])
  want = applied(steps, exact)
  scale = 1 + np.abs(want).max()
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * scale)


LAYOUTS: dict[str, Any] = {
  'inputs first': (array(3, 4), lambda w, x: x @ w),
  'outputs first': (
    array(4, 3),
    lambda w, x: lax.dot_general(x, w, (((3,), (1,)), ((), ()))),
  ),
}


@pytest.mark.parametrize('name', LAYOUTS)
def test_codes_stay(name: str) -> None:
  w, multiply = LAYOUTS[name]
  fn = lambda p, x: multiply(p['m']['kernel'], x) * PARAMS['a'] - 1  # noqa: E731
  params = {'m': {'kernel': w}}
  probe = compress.probe(fn, params, X)
  nodes = tree.freeze(compress.init(uniform(4), params, probe, steps=0))
  graph = capture(fn, nodes, X)
  small, found = absorbed(graph, tree.paths(nodes))
  assert [node.op for node in small.nodes] == ['dot', 'add']
  before, after = (
    getattr(x, 'w', x) for x in (nodes['m']['kernel'], found['m/kernel'])
  )
  assert isinstance(after, Quantized)
  np.testing.assert_array_equal(after.codes, before.codes)
  np.testing.assert_allclose(after.scale, PARAMS['a'] * before.scale)
  np.testing.assert_allclose(
    artefact.forward(small, {'params': found})(X),
    fn(tree.decode(nodes), X),
    rtol=1e-5,
    atol=1e-5,
  )
