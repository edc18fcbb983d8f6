"""Softmax, layer norms and GELU are one node; what is like them is not."""

from collections import Counter
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from compress import tree
from tests.tsukiji.deploy.onnx.test_emitters import fed
from tsukiji.deploy.onnx import model as written
from tsukiji.graph.capture import capture

DRAWN = np.random.default_rng(0)
X = jnp.float32(DRAWN.normal(size=(4, 5, 6)) + 0.3)
ALONG = jnp.float32(DRAWN.uniform(0.5, 2, 6))
ACROSS = jnp.float32(DRAWN.uniform(0.5, 2, (5, 1)))
W = {
  'matrix': jnp.float32(DRAWN.normal(size=(6, 7))),
  'heads': jnp.float32(DRAWN.normal(size=(6, 2, 4))),
  'joined': jnp.float32(DRAWN.normal(size=(5, 6, 3))),
}


def ops(fn: Any, params: Any = ()) -> Counter[str]:
  """Return the nodes of a function, if ONNX Runtime computes what it does."""
  made = written.model(
    capture(fn, params, X), {'params': tree.paths(params) if params else {}}
  )
  (found,) = fed(made, (X,))
  np.testing.assert_allclose(found, fn(params, X), rtol=2e-5, atol=2e-5)
  return Counter(node.op_type for node in made.graph.node)


def linen(module: nn.Module) -> Any:
  variables = module.init(jax.random.key(0), X)
  drawn = jax.tree.map(lambda a: a + ALONG, variables)
  return lambda _, x: module.apply(drawn, x)


def of_nnx() -> Any:
  norm = nnx.LayerNorm(6, rngs=nnx.Rngs(0))
  return lambda _, x: norm(x)


def of_equinox() -> Any:
  norm = eqx.nn.LayerNorm(6)
  norm = eqx.tree_at(lambda n: (n.weight, n.bias), norm, (ALONG, ALONG - 1))
  return lambda _, x: jax.vmap(jax.vmap(norm))(x)


def by_hand(x: Any, **more: Any) -> Any:
  """Normalize, in another order than frameworks do."""
  mean = jnp.sum(x, -1, keepdims=True) * (1 / 6)
  spread = jnp.mean((x - mean) * (x - mean), -1, keepdims=True)
  return ALONG * lax.rsqrt(1e-3 + spread) * (x - mean)


NORMS = {
  'linen': linen(nn.LayerNorm()),
  'linen, two passes': linen(nn.LayerNorm(use_fast_variance=False)),
  'linen, no scale': linen(nn.LayerNorm(use_scale=False)),
  'linen, no bias': linen(nn.LayerNorm(use_bias=False, epsilon=0.1)),
  'linen, neither': lambda _, x: nn.LayerNorm(
    use_bias=False, use_scale=False
  ).apply({}, x),
  'nnx': of_nnx(),
  'equinox': of_equinox(),
  'by hand': lambda _, x: by_hand(x),
  'behind a transpose': lambda _, x: by_hand(
    jnp.tanh(x).transpose(1, 0, 2)
  ).transpose(1, 0, 2),
}


@pytest.mark.parametrize('name', NORMS)
def test_layer_norms_are_one_node(name: str) -> None:
  found = ops(NORMS[name])
  assert found['LayerNormalization'] == 1
  assert not found.keys() & {'ReduceMean', 'ReduceSum', 'Sqrt', 'Mul', 'Sub'}


def normal(x: Any, axis: int, count: float, power: int = 2) -> Any:
  mean = x.sum(axis, keepdims=True) / count
  spread = ((x - mean) ** power).sum(axis, keepdims=True) / count
  return (x - mean) * lax.rsqrt(spread + 1e-3)


OTHERS = {
  'another axis': lambda _, x: normal(x, 1, 5),
  'another count': lambda _, x: normal(x, -1, 5),
  'another power': lambda _, x: normal(x, -1, 6, power=4),
  'a variance of something else': lambda _, x: (
    (x - x.mean(-1, keepdims=True))
    * lax.rsqrt(jnp.var(x * ALONG, -1, keepdims=True) + 1e-3)
  ),
  'less the mean of something else': lambda _, x: (
    (x - (x * ALONG).mean(-1, keepdims=True))
    * lax.rsqrt(jnp.var(x, -1, keepdims=True) + 1e-3)
  ),
  'a scale across': lambda _, x: normal(x, -1, 6) * ACROSS,
  'root mean square': lambda _, x: nn.RMSNorm(use_scale=False).apply({}, x),
}


@pytest.mark.parametrize('name', OTHERS)
def test_other_norms_stay(name: str) -> None:
  found = ops(OTHERS[name])
  across = name == 'a scale across'  # what is before it may be one
  assert found['LayerNormalization'] <= across


SOFTMAX = {
  'last axis': lambda _, x: jax.nn.softmax(x),
  'another axis': lambda _, x: jax.nn.softmax(x, axis=1),
  'masked': lambda _, x: jax.nn.softmax(jnp.where(x > 0, x, -1e9), axis=-1),
  'without a shift': lambda _, x: jnp.exp(x) / jnp.exp(x).sum(-1)[..., None],
  'transposed': lambda _, x: jax.nn.softmax(x.transpose(0, 2, 1), axis=1),
}


@pytest.mark.parametrize('name', SOFTMAX)
def test_softmax_is_one_node(name: str) -> None:
  found = ops(SOFTMAX[name])
  assert found['Softmax'] == 1
  assert 'Exp' not in found


UNLIKE = {
  'two axes': lambda _, x: jax.nn.softmax(x, axis=(1, 2)),
  'another sum': lambda _, x: (
    jnp.exp(x) / jnp.exp(2 * x).sum(-1, keepdims=True)
  ),
  'across': lambda _, x: (
    jnp.exp(x[:, :5, :5]) / jnp.exp(x[:, :5, :5]).sum(-1)[:, None]
  ),
  'shifted along': lambda _, x: (
    jnp.exp(x - ALONG) / jnp.exp(x).sum(-1, keepdims=True)
  ),
}


@pytest.mark.parametrize('name', UNLIKE)
def test_other_ratios_stay(name: str) -> None:
  assert 'Softmax' not in ops(UNLIKE[name])


def test_gelu_is_what_engines_know() -> None:
  fn = lambda _, x: jax.nn.gelu(x, approximate=False)  # noqa: E731
  assert ops(fn) == {'Div': 1, 'Erf': 1, 'Add': 1, 'Mul': 2, 'Identity': 1}


PRODUCTS = {
  'one matrix a head': lambda p, x: lax.dot_general(
    x, p['heads'], (((2,), (0,)), ((), ()))
  ),
  'two axes at once': lambda p, x: lax.dot_general(
    x, p['joined'], (((1, 2), (0, 1)), ((), ()))
  ),
  'the other way': lambda p, x: lax.dot_general(
    p['matrix'], x, (((0,), (2,)), ((), ()))
  ).transpose(1, 2, 0),
  'with itself': lambda p, x: lax.dot_general(
    x, x, (((2,), (2,)), ((0,), (0,)))
  ),
  'several free axes': lambda p, x: lax.dot_general(
    x[..., None] * p['heads'][:, 0], x, (((2,), (2,)), ((0,), (0,)))
  ),
  'no free axis': lambda p, x: lax.dot_general(
    x, x * 2, (((1, 2), (1, 2)), ((0,), (0,)))
  ),
}


@pytest.mark.parametrize('name', PRODUCTS)
def test_products_are_of_matrices(name: str) -> None:
  found = ops(PRODUCTS[name], W)
  assert found['MatMul'] == 1
  assert 'Einsum' not in found


def test_a_product_of_examples_with_examples_is_by_letters() -> None:
  fn = lambda p, x: (  # noqa: E731
    lax.dot_general(x, jnp.tanh(x), (((1, 2), (1, 2)), ((), ()))) @ x[:, 0]
  )
  assert ops(fn)['Einsum'] == 2
