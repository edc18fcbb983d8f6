"""Operators on integers against floats, whatever the network is."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compress
from compress import recipe, tree
from compress.quantize.integer_codes import Inputs, Quantized
from tests.tsukiji.deploy.integer.test_reference import assert_close, floats
from tsukiji.deploy.integer import compile
from tsukiji.graph.capture import capture
from tsukiji.graph.nodes import Graph

RNG = np.random.default_rng(0)
SHAPE = (6, 6, 2)
Net = Callable[[Any, jax.Array], jax.Array]


def drawn(*shape: int) -> np.ndarray:
  """Return normal numbers."""
  return np.float32(RNG.normal(size=shape))


WEIGHTS = {
  'conv': {'kernel': drawn(3, 3, 2, 4) / 4, 'bias': drawn(4)},
  'head': {'kernel': drawn(4, 3) / 2},
  'turn': np.float32([1.5, -0.5, 0.0, 2.0]),
}


def conv(x: jax.Array, w: Any, padding: Any = 'VALID', **how: Any) -> jax.Array:
  """Convolve images."""
  names = ('NHWC', 'HWIO', 'NHWC')
  how = {'dimension_numbers': names, 'window_strides': (1, 1), **how}
  return jax.lax.conv_general_dilated(x, w, padding=padding, **how)


def first(p: Any, x: jax.Array, **how: Any) -> jax.Array:
  """Return a convolution and its bias."""
  return conv(x, p['conv']['kernel'], **how) + p['conv']['bias']


def head(p: Any, x: jax.Array) -> jax.Array:
  """Return the outputs of what is left."""
  return x @ p['head']['kernel']


def pooled(x: jax.Array, kind: Any, start: float) -> jax.Array:
  """Return an extreme or a sum over windows that overlap."""
  return jax.lax.reduce_window(
    x, np.float32(start), kind, (1, 2, 2, 1), (1, 1, 1, 1), 'SAME'
  )


NETWORKS: dict[str, Net] = {
  'a norm': lambda p, x: head(
    p, ((first(p, x) - 0.3) * p['turn'] + 0.2).mean((1, 2))
  ),
  'a clip': lambda p, x: head(p, jnp.clip(first(p, x), 0, 2).max((1, 2))),
  'windows': lambda p, x: head(
    p,
    pooled(pooled(first(p, x), jax.lax.max, -np.inf), jax.lax.add, 0)[:, 1, 2],
  ),
  'moves': lambda p, x: head(
    p, jnp.transpose(-first(p, x)[:, ::2, ::-1], (0, 3, 2, 1)).sum((2, 3)) / 4
  ),
  'dilation and zeros': lambda p, x: head(
    p,
    first(
      p, jnp.pad(x, ((0, 0), (1, 1), (2, 0), (0, 0))), rhs_dilation=(2, 1)
    ).min((1, 2)),
  ),
  'zeros between': lambda p, x: head(
    p,
    jnp.abs(jnp.pad(first(p, x), ((0, 0), (2, 0), (0, 1), (0, 0)))).mean(
      (1, 2)
    ),
  ),
  'a difference': lambda p, x: head(
    p, (1 - first(p, x)[:, :2] - first(p, x)[:, 2:]).mean((1, 2))
  ),
  'extremes of two': lambda p, x: head(
    p,
    jnp.maximum(first(p, x)[:, :2] * p['turn'], first(p, x)[:, 2:]).sum((1, 2)),
  ),
  'parts': lambda p, x: head(
    p,
    jnp.concatenate(
      [first(p, x)[..., :2] / 3, jax.nn.relu(first(p, x))[..., 2:]], -1
    ).mean((1, 2)),
  ),
  'rows': lambda p, x: head(p, first(p, x).reshape(len(x), -1, 4)).mean(1),
}


def prepared(
  fn: Net, weights: Any = WEIGHTS, shape: Any = SHAPE
) -> tuple[Graph, dict[str, Any], jax.Array]:
  """Return a network at 8 bits, and images."""
  x = jnp.asarray(drawn(32, *shape))
  method = recipe.parse('quantize.int8()')
  params = compress.init(method, weights, compress.probe(fn, weights, x))
  graph = capture(fn, weights, x)
  return graph, {'params': tree.paths(tree.freeze(params))}, x


@pytest.mark.parametrize('name', sorted(NETWORKS))
def test_any_network_of_known_operators_is_integers(name: str) -> None:
  graph, variables, x = prepared(NETWORKS[name])
  network = compile.compiled(graph, variables)
  assert_close(network, floats(graph, variables, x).outputs, x)


@st.composite
def perceptrons(draw: st.DrawFn) -> tuple[list[Quantized], list[np.ndarray]]:
  """Draw the weights and biases of two dense layers."""
  bits, seed = draw(st.integers(2, 8)), draw(st.integers(0, 2**16))
  low = draw(st.sampled_from([-2.0, -0.5, 0.0]))
  random = np.random.default_rng(seed)
  most = 2 ** (bits - 1) - 1
  weights, biases = [], []
  for n, m in ((5, 4), (4, 3)):
    weights.append(
      Quantized(
        jnp.int8(random.integers(-most, most + 1, (n, m))),
        jnp.float32(random.uniform(0.1, 2.0, m)) / most,
        Inputs(jnp.float32(low), jnp.float32(3), bits),
        bits,
      )
    )
    biases.append(np.float32(random.normal(size=m)))
  return weights, biases


def exact(
  weights: list[Quantized], biases: list[np.ndarray], x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Return the outputs of a perceptron with integer sums, in 64 bits.

  Also which examples are not so near a tie that a bias, which is rounded to
  units of the sums, may change a code.
  """
  unit, clear = np.zeros(1), np.ones(len(x), bool)
  for i, (w, bias) in enumerate(zip(weights, biases, strict=True)):
    grid = w.inputs
    assert grid is not None
    low, high = min(float(grid.low), 0.0), max(float(grid.high), 0.0)
    top = 2**grid.bits - 1
    step = np.float32((high - low) / top)
    zero = np.round(-low / step)
    tie = np.abs(x / step % 1 - 0.5)
    clear &= (tie > unit / step + 1e-3).all(1)
    codes = np.clip(np.round(x / step) + zero, 0, top) - zero
    sums = codes.astype(np.int64) @ np.asarray(w.codes, np.int64)
    unit = np.float64(step) * np.asarray(w.scale, np.float64)
    x = sums * unit + bias
    x = np.maximum(x, 0) if i == 0 else x
  return x, clear


@given(perceptrons())
@settings(max_examples=20, deadline=None)
def test_sums_are_those_of_whole_numbers(
  net: tuple[list[Quantized], list[np.ndarray]],
) -> None:
  weights, biases = net
  params = {'a': weights[0], 'b': weights[1], 'c': biases[0], 'd': biases[1]}
  x = drawn(64, 5)
  graph = capture(
    lambda p, x: jax.nn.relu(x @ p['a'] + p['c']) @ p['b'] + p['d'],
    tree.decode(params),
    x,
  )
  network = compile.compiled(graph, {'params': params})
  want, clear = exact(weights, biases, x)
  error = np.abs(network(x) * network.scale - want).max(1)
  assert (error[clear] < 1e-3 * np.abs(want).max()).all()


REFUSED: dict[str, tuple[Net, str]] = {
  'a curve': (lambda p, x: head(p, jnp.tanh(first(p, x)).mean((1, 2))), 'tanh'),
  'a product': (lambda p, x: head(p, (first(p, x) ** 2).mean((1, 2))), 'ipow'),
  'two': (
    lambda p, x: head(p, (first(p, x) * first(p, 2 * x)).mean((1, 2))),
    'mul behind conv: expected a product with a constant',
  ),
  'a divisor': (
    lambda p, x: head(p, (1 / first(p, x)).mean((1, 2))),
    'div behind conv: expected a product with a constant',
  ),
  'channels': (
    lambda p, x: head(p, first(p, x) + first(p, x).sum(-1, keepdims=True))[
      :, 0, 0
    ],
    'reduce_sum behind conv: expected one step along the axes',
  ),
  'constants': (
    lambda p, x: head(
      p,
      jnp.pad(first(p, x), ((0, 0), (1, 1), (0, 0), (0, 0)), constant_values=1),
    ).mean((1, 2)),
    'pad behind conv: expected zeros around a value',
  ),
  'a large constant': (
    lambda p, x: head(p, (first(p, x) * 2 + 1e4 * p['turn']).mean((1, 2))),
    'add behind conv: expected sums of at most 31 bits',
  ),
  'the images': (
    lambda p, x: head(p, (first(p, x) + x[:, :4, :4, :1]).mean((1, 2))),
    'add behind conv: expected maxima, sums and layers',
  ),
  'a product of two': (
    lambda p, x: head(p, jnp.einsum('bhwc,bhwc->bc', first(p, x), first(p, x))),
    'dot behind conv: expected a product of a value with a weight',
  ),
  'a transposed kernel': (
    lambda p, x: first(p, x).mean((1, 2)) @ p['head']['kernel'].T.T[:, ::-1],
    'head: expected a weight of products alone',
  ),
}


@pytest.mark.parametrize('name', sorted(REFUSED))
def test_what_integers_cannot_do_is_refused(name: str) -> None:
  fn, message = REFUSED[name]
  graph, variables, _ = prepared(fn)
  with pytest.raises(ValueError, match=f'integer at {message}'):
    compile.compiled(graph, variables)


def test_a_quotient_by_nothing_is_refused() -> None:
  weights = {**WEIGHTS, 'turn': np.ones(4, np.float32)}
  graph, variables, _ = prepared(
    lambda p, x: head(p, (first(p, x) / p['turn']).mean((1, 2))), weights
  )
  variables['params']['turn'] = np.zeros(4, np.float32)
  with pytest.raises(ValueError, match='expected a divisor that is not 0'):
    compile.compiled(graph, variables)
