"""Every method on weights that are zero, constant, tiny or huge."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe, tree
from compress.method import Ctx
from tests.nets import conv, net
from tests.runs import STEPS, TINY, calibrated, start
from tests.samples import SAMPLES
from tsukiji.models import spec as sp

TEXTS = [texts[0] for texts in SAMPLES.values()]
UNSCALED = ('binary.bnn',)  # its weights are +1 and -1
SIZES = {'zero': 0.0, 'subnormal': 1e-38, 'tiny': 1.2e-38, 'one': 1.0}
HUGE = {'float32': 1e30, 'bfloat16': 1e30, 'float16': 1e4}
FILLS = (  # of the convolution and the dense layer
  ('zero', 'huge drawn'),
  ('huge drawn', 'zero'),
  ('tiny drawn', 'one constant'),
  ('huge constant', 'subnormal drawn'),
)


@functools.cache
def decoded_run(text: str) -> Callable[[Any], Any]:
  """Return the function from weights to those of a run that trains nothing."""
  method, ctx = recipe.parse(text), calibrated(TINY)

  def run(params: Any) -> Any:
    nodes = jax.lax.fori_loop(
      1,
      STEPS + 1,
      lambda step, nodes: method.update(nodes, ctx._replace(step=step)),
      method.init(params, ctx),
    )
    return tree.decode(nodes)

  compiled = jax.jit(run)
  try:
    compiled.eval_shape(start(TINY)['params'])
  except jax.errors.TracerArrayConversionError:  # sizes depend on values
    return run
  return compiled


def filled(x: Any, fill: str, dtype: str) -> Any:
  size, _, pattern = fill.partition(' ')
  shape = x.shape
  drawn = np.random.default_rng(0).uniform(-1, 1, shape)
  values = np.ones(shape) if pattern == 'constant' else drawn
  return jnp.asarray((SIZES | {'huge': HUGE[dtype]})[size] * values, dtype)


every_dtype = pytest.mark.parametrize(
  'dtype',
  [
    'float32',
    *(pytest.param(x, marks=pytest.mark.slow) for x in ('bfloat16', 'float16')),
  ],
)


def assert_sane(w: Any, found: Any, zero: bool, where: Any) -> None:
  assert (found.shape, found.dtype) == (w.shape, w.dtype)
  assert np.all(np.isfinite(np.asarray(found, float))), where
  # NumPy tells subnormal numbers from zeros, XLA does not.
  if zero and not np.any(np.asarray(w)):
    assert not np.any(np.asarray(found)), where


@pytest.mark.slow
@every_dtype
@pytest.mark.parametrize('text', TEXTS)
def test_weights_stay_finite_and_zero_stays_zero(text: str, dtype: str) -> None:
  dense = jax.tree.map(lambda x: x.astype(dtype), start(TINY)['params'])
  for fills in FILLS:
    params = dict(dense)
    for layer, fill in zip(('conv', 'fc'), fills, strict=True):
      kernel = filled(dense[layer]['kernel'], fill, dtype)
      params[layer] = dense[layer] | {'kernel': kernel}
    found = tree.paths(decoded_run(text)(params))
    for path, w in tree.paths(params).items():
      zero = not text.startswith(UNSCALED)
      assert_sane(w, found[path], zero, (path, fills))


@pytest.mark.slow
@every_dtype
@pytest.mark.parametrize(
  'text',
  ['structured.butterfly(16, pad=True)', 'structured.fastfood(8, pad=True)'],
)
def test_large_tiles_stay_finite_and_zero_stays_zero(
  text: str, dtype: str
) -> None:
  method = recipe.parse(text)
  run = jax.jit(lambda params: tree.decode(method.init(params, Ctx())))
  for fill in {fill for fills in FILLS for fill in fills}:
    w = filled(jnp.zeros((16, 16)), fill, dtype)
    assert_sane(w, run({'w': w})['w'], True, fill)


@pytest.mark.slow
@pytest.mark.parametrize(
  'text', ['lowrank.svd(1)', 'lowrank.cp(1)', 'lowrank.tucker(1)']
)
@pytest.mark.parametrize('size', [1.0, 1e30])
def test_huge_products_are_found_again(text: str, size: float) -> None:
  """An outer product has rank 1 at any size."""
  parts = [
    np.random.default_rng(i).normal(size=n) for i, n in enumerate((3, 2, 4, 5))
  ]
  w = jnp.float32(np.einsum('a,b,c,d->abcd', *parts) * size)
  found = recipe.parse(text).init({'w': w}, Ctx())['w'].decode()
  np.testing.assert_allclose(found / size, w / size, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('size', [1e-7, 1.0, 1e30])
def test_constant_matrices_are_toeplitz_at_any_size(size: float) -> None:
  w = jnp.full((16, 16), size, jnp.float32)
  method = recipe.parse('structured.toeplitz(1, 4, pad=True)')
  found = tree.decode(method.init({'w': w}, Ctx()))['w']
  np.testing.assert_allclose(found, w, rtol=1e-5)


BLOCK = net(
  'block',
  conv('stem'),
  sp.Act(),
  sp.Branch(paths=((conv('a'), sp.Act(), conv('b')), ())),
  sp.Act(),
)


@functools.cache
def low_and_sparse() -> Callable[[Any], Any]:
  method = recipe.parse('lowrank.plus_sparse(2, 0.8, examples=4, sweeps=2)')
  ctx = calibrated(BLOCK)
  return jax.jit(lambda p: tree.decode(method.init(p, ctx)))


@pytest.mark.slow
@pytest.mark.parametrize('dead', ['b', 'stem', 'everything'])
def test_plus_sparse_is_finite_where_inputs_or_kernels_are_zero(
  dead: str,
) -> None:
  """A last convolution that starts at zero, and units that never fire."""
  params = jax.tree.map(lambda x: x, start(BLOCK)['params'])
  if dead == 'b':
    params['b']['kernel'] *= 0
  else:
    params['stem']['bias'] -= 100  # relu gives 0 in all channels
  if dead == 'everything':
    params['fc']['kernel'] *= 0
  found = tree.paths(low_and_sparse()(params))
  for path, x in found.items():
    assert np.all(np.isfinite(x)), path
    if not np.any(tree.paths(params)[path]):
      assert not np.any(x)
  # Without inputs the kernel itself is approximated.
  if dead == 'stem':
    w = params['a']['kernel']
    assert np.linalg.norm(found['a/kernel'] - w) < np.linalg.norm(w)
