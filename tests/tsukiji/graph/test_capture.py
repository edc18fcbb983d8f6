"""Graphs of networks of every framework compute what the networks do."""

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from compress import tree
from tests import frameworks
from tests.runs import assert_same_bits
from tsukiji.graph import evaluate, json_form
from tsukiji.graph.capture import capture
from tsukiji.graph.operators import OPERATORS


@pytest.mark.parametrize('name', frameworks.MODELS)
def test_networks_of_any_framework_are_captured(name: str) -> None:
  """For any number of examples, and after a trip through JSON."""
  model = frameworks.MODELS[name]()
  graph = capture(model.apply, model.params, *model.inputs)
  params = tree.paths(model.params)
  assert {*graph.parameters} <= {*params}
  named, constants = json_form.without_constants(graph)
  text = json.dumps(json_form.to_json(named), allow_nan=False)
  again = json_form.from_json(json.loads(text))
  run = jax.jit(lambda p, *xs: evaluate.run(graph, p, *xs))
  for count in (1, 3, frameworks.EXAMPLES):
    inputs = tuple(x[:count] for x in model.inputs)
    want = jax.jit(model.apply)(model.params, *inputs)
    got = run(params, *inputs)
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    tolerance = 2e-2 if want.dtype == jnp.bfloat16 else 1e-6
    np.testing.assert_allclose(
      np.float32(got), np.float32(want), atol=tolerance
    )
    assert_same_bits(run(params, *inputs), got)
    assert_same_bits(
      evaluate.run(again, params | constants, *inputs),
      evaluate.run(graph, params, *inputs),
    )


X = jnp.float32(np.random.default_rng(0).normal(size=(4, 5, 6)))
PLACES = jnp.array([[3, 1], [0, 2], [5, 5], [4, 0]])
FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
  'argmax': lambda p, x: (jnp.argmax(x, 1), jnp.argmin(x, -1)),
  'average pool': lambda p, x: lax.reduce_window(
    x, 0.0, lax.add, (1, 2, 2), (1, 1, 2), 'SAME'
  ),
  'bitwise': lambda p, x: ((x > 0) & (x < 1) | ~(x > -1)) ^ (x == 0),
  'bits': lambda p, x: (
    jnp.ldexp(*jnp.frexp(x))
    + lax.bitcast_convert_type(
      lax.shift_right_arithmetic(x.view(jnp.int32), 2)
      | lax.shift_left(lax.shift_right_logical(x.view(jnp.int32), 30), 3),
      jnp.float32,
    )
  ),
  'broadcast': lambda p, x: jnp.broadcast_to(
    x.mean((1, 2), keepdims=True), x.shape
  ).reshape(-1, 30),
  'clip': lambda p, x: jnp.clip(x, -0.5, p['w'][0]),
  'comparisons': lambda p, x: (x >= 1) | (x <= 0.5) | (x != x),
  'conv 1d': lambda p, x: lax.conv_general_dilated(
    x, p['k'], (2,), 'SAME', dimension_numbers=('NWC', 'WIO', 'NWC')
  ),
  'cumsum': lambda p, x: jnp.cumsum(x, 1) * jnp.cumprod(x, 2),
  'dynamic slice': lambda p, x: lax.dynamic_slice(
    x, (0, 1, p['at']), (len(x), 2, 3)
  ),
  'einsum': lambda p, x: jnp.einsum('bij,bkj,jl->bkil', x, x, p['w'][:, None]),
  'extremes': lambda p, x: (x.max(1), x.min(2), x.prod((1, 2))),
  'flip': lambda p, x: x[:, ::-1, 1:5:2],
  'integers': lambda p, x: (x > 0).sum((1, 2)) % 3,
  'logic': lambda p, x: (jnp.any(x > 1, 1), jnp.all(jnp.isfinite(x), 2)),
  'mask of places': lambda p, x: jnp.where(
    jnp.arange(5)[:, None] <= jnp.arange(6), x, -jnp.inf
  ),
  'max pool': lambda p, x: lax.reduce_window(
    x, -jnp.inf, lax.max, (1, 3, 3), (1, 2, 1), 'VALID'
  ),
  'merge with the batch': lambda p, x: (x.reshape(-1, 6) @ p['w']).reshape(
    x.shape[0], 5
  ),
  'min pool': lambda p, x: lax.reduce_window(
    x, jnp.inf, lax.min, (1, 2, 2), (1, 2, 2), 'SAME'
  ),
  'pad': lambda p, x: jnp.pad(x, ((0, 0), (1, 2), (0, 3)), constant_values=2),
  'powers': lambda p, x: x**2 + jnp.abs(x) ** 0.5 + jnp.exp2(x) + x**-3,
  'round': lambda p, x: jnp.round(x) + jnp.floor(2 * x) - jnp.ceil(x / 3),
  'scan': lambda p, x: lax.scan(
    lambda c, row: (jnp.tanh(c + row * p['w']), c.sum(-1)),
    jnp.zeros((len(x), 6)),
    x.swapaxes(0, 1),
    reverse=True,
  ),
  'softmax': lambda p, x: jax.nn.log_softmax(x) + jax.nn.softmax(x, 1),
  'special': lambda p, x: lax.erf(x) - lax.erfc(x) + jnp.log1p(jnp.exp(x)),
  'split': lambda p, x: [a * 2 for a in jnp.split(x, [2, 3], 2)],
  'stack': lambda p, x: jnp.stack([x, jnp.sin(x), jnp.cos(x)], 1),
  'take': lambda p, x: jnp.take(
    p['table'], (jnp.abs(x[..., 0])).astype(int), 1
  ),
  'tile': lambda p, x: jnp.tile(x, (1, 2, 1)) + jnp.repeat(x, 2, 1),
  'top': lambda p, x: x[:, -1] - x[:, 0, :],
  'variance': lambda p, x: x.var(2) + x.std((1, 2), keepdims=True)[..., 0],
}


def weights() -> dict[str, jax.Array]:
  """Return the parameters of these functions."""
  drawn = np.random.default_rng(1)
  return {
    'at': jnp.array(2),
    'k': jnp.float32(drawn.normal(size=(3, 6, 4))),
    'table': jnp.float32(drawn.normal(size=(2, 7, 3))),
    'w': jnp.float32(drawn.normal(size=6)),
  }


@pytest.mark.parametrize('name', FUNCTIONS)
def test_operations_are_captured(name: str) -> None:
  params, fn = weights(), FUNCTIONS[name]
  graph = capture(fn, params, X)
  for count in (1, 4):
    want = jax.tree.leaves(fn(params, X[:count]))
    got = jax.tree.leaves(evaluate.run(graph, params, X[:count]))
    for a, b in zip(got, want, strict=True):
      assert (a.shape, a.dtype) == (b.shape, b.dtype)
      np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


UNARY = {
  *('atan', 'cosh', 'expm1', 'is_finite', 'logistic', 'neg', 'rsqrt', 'sign'),
  *('sinh', 'sqrt', 'tan', 'tanh'),
}


@pytest.mark.parametrize('name', sorted(UNARY))
def test_functions_of_one_number_are_captured(name: str) -> None:
  fn = getattr(lax, name)
  graph = capture(lambda p, x: fn(x), {}, X)
  assert [node.op for node in graph.nodes] == [name]
  assert_same_bits(evaluate.run(graph, {}, jnp.abs(X)), fn(jnp.abs(X)))


def test_every_operator_is_captured_somewhere() -> None:
  graphs = [capture(fn, weights(), X) for fn in FUNCTIONS.values()]
  found = {node.op for graph in graphs for node in graph.nodes}
  assert {*OPERATORS} - found - UNARY <= {'iota'}  # always a constant


def test_constants_are_computed_once() -> None:
  def apply(params: Any, x: Any) -> Any:
    scale = jnp.sqrt(jnp.arange(3.0) + 1) * 2
    return x * scale + jnp.tanh(0.5), jnp.zeros((len(x), 2)) + x[:, :1]

  graph = capture(apply, {}, jnp.ones((2, 3)))
  assert {node.op for node in graph.nodes} <= {
    'add',
    'broadcast',
    'mul',
    'slice',
  }
  want = apply({}, X[:, 0, :3])
  for a, b in zip(evaluate.run(graph, {}, X[:, 0, :3]), want, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_sizes_follow_from_the_weights() -> None:
  """So that channels are removed by an edit of the weights alone."""

  def apply(params: Any, x: Any) -> Any:
    x = jax.nn.relu(x @ params['a'] + params['b'])
    x = x.reshape(len(x), 5, 2, -1).mean(1)
    return x.reshape(len(x), -1) @ params['c']

  drawn = np.random.default_rng(0)
  full = {'a': drawn.normal(size=(6, 8)), 'b': drawn.normal(size=8)}
  full |= {'c': drawn.normal(size=(8, 3))}
  graph = capture(apply, full, X)
  few = {'a': full['a'][:, ::2], 'b': full['b'][::2], 'c': full['c'][::2]}
  np.testing.assert_allclose(
    evaluate.run(graph, few, X), apply(few, X), rtol=1e-5
  )


def drops(params: Any, x: Any) -> Any:
  """Return what a network in training mode would."""
  return x * jax.random.bernoulli(jax.random.key(0), 0.5, x.shape)


def waits(params: Any, x: Any) -> Any:
  """Return what a loop of unknown length does."""
  return lax.while_loop(lambda y: jnp.sum(y) < 9, lambda y: y + 1, x)


@pytest.mark.parametrize(
  ('fn', 'message'),
  [
    (drops, r'random.* at .*test_capture.py:\d+ \(drops\)\. Capture'),
    (waits, r"'while' at .*test_capture.py:\d+ \(waits\)\. Write it with jax"),
    (lambda p, x: x.reshape(11, 5, -1), 'any number of examples'),
    (lambda p, x: x * jnp.arange(len(x) * 30.0).reshape(x.shape), 'examples'),
    (lambda p, x: jnp.sort(x), "'sort' at .*test_capture.py"),
  ],
)
def test_what_cannot_be_captured_is_named(fn: Any, message: str) -> None:
  with pytest.raises((ValueError, TypeError), match=message):
    capture(fn, {}, X)
