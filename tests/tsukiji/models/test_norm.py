"""Norms by the formulas of the papers, and against Flax's own."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.runs import images, start
from tests.tsukiji.training.test_step import NET, begin, examples, sgd
from tsukiji.deploy import artefact
from tsukiji.deploy.passes.lower import lower
from tsukiji.models import norm
from tsukiji.models import spec as sp
from tsukiji.models.binary_zoo import binary_vgg, shifted
from tsukiji.models.net import Net
from tsukiji.training import step as step_lib

RNG = np.random.default_rng(0)
X = RNG.normal(1, 2, (6, 3, 3, 4)).astype(np.float32)
FOUND: dict[str, Any] = {
  'params': {
    'scale': np.float32([0.7, -1.3, 0.2, 0.0]),
    'bias': np.float32([0.1, 0.2, -0.3, 0.4]),
  },
  'batch_stats': {
    'mean': np.float32([0.9, 1.1, 1.3, 0.5]),
    'var': np.float32([4.1, 3.2, 0.6, 5.0]),
  },
}
PLAIN = sp.Norm(name='n', momentum=0.75, epsilon=0.5)
SHIFT = sp.ShiftNorm(name='n', momentum=0.75, epsilon=0.5)


def ap2(x: np.ndarray) -> np.ndarray:
  """Return the powers of two in doubles."""
  x = np.asarray(x, float)
  with np.errstate(divide='ignore'):
    return np.sign(x) * 2.0 ** np.round(np.log2(np.abs(x)))


def trained(layer: sp.Norm, frozen: bool | None = None) -> tuple[Any, Any]:
  """Return the outputs and the running statistics of a step."""
  held = None if frozen is None else jnp.asarray(frozen)
  run = jax.jit(
    lambda x: norm.Norm(layer, True).apply(
      FOUND, x, held, mutable=['batch_stats']
    )
  )
  y, mutated = run(X)
  return y, mutated['batch_stats']


def test_products_become_shifts() -> None:
  x = np.append(RNG.normal(size=99) * 2.0 ** RNG.integers(-20, 20, 99), 0)
  x = x.astype(np.float32)
  np.testing.assert_array_equal(norm.power_of_two(jnp.asarray(x)), ap2(x))
  slopes = jax.vmap(jax.grad(norm.power_of_two))(jnp.asarray(x))
  np.testing.assert_array_equal(slopes, np.ones(100))


def test_shifts_follow_the_algorithm() -> None:
  y, after = trained(SHIFT)
  mean = X.astype(float).mean((0, 1, 2))
  centerd = X - mean
  var = (centerd * ap2(centerd)).mean((0, 1, 2))
  params, observed = FOUND['params'], FOUND['batch_stats']
  unit = centerd * ap2(1 / np.sqrt(var + 0.5))
  want = ap2(params['scale']) * unit + params['bias']
  np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)
  for name, new in (('mean', mean), ('var', var)):
    kept = 0.75 * observed[name] + 0.25 * new
    np.testing.assert_allclose(after[name], kept, rtol=1e-5)
  used = norm.Norm(SHIFT, False).apply(FOUND, X)
  unit = (X - observed['mean']) * ap2(1 / np.sqrt(observed['var'] + 0.5))
  want = ap2(params['scale']) * unit + params['bias']
  np.testing.assert_allclose(used, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('train', [True, False])
def test_other_norms_are_those_of_flax(train: bool) -> None:
  flax = nn.BatchNorm(not train, momentum=0.75, epsilon=0.5)
  want, after = flax.apply(FOUND, X, mutable=['batch_stats'])
  found = norm.Norm(PLAIN, train).apply(FOUND, X, mutable=['batch_stats'])
  np.testing.assert_allclose(found[0], want, rtol=1e-4, atol=1e-5)
  for name, value in after.get('batch_stats', FOUND['batch_stats']).items():
    kept = found[1].get('batch_stats', FOUND['batch_stats'])[name]
    np.testing.assert_allclose(kept, value, rtol=1e-5)


@pytest.mark.parametrize('layer', [PLAIN, SHIFT])
def test_frozen_norms_are_those_of_inference(layer: sp.Norm) -> None:
  y, after = trained(layer, frozen=True)
  want = norm.Norm(layer, False).apply(FOUND, X)
  np.testing.assert_allclose(y, want, rtol=1e-6, atol=1e-6)
  for name, value in FOUND['batch_stats'].items():
    np.testing.assert_array_equal(after[name], value)
  live, moved = trained(layer, frozen=False)
  plain, same = trained(layer)
  np.testing.assert_array_equal(live, plain)
  np.testing.assert_array_equal(moved['var'], same['var'])


def test_shifts_are_folded_as_they_were_trained() -> None:
  layers = (sp.Conv(name='c', features=4, kernel=(3, 3)), SHIFT)
  spec = sp.Spec(name='s', input_shape=(5, 5, 1), layers=layers)
  assert sp.loads(sp.dumps(spec)) == spec
  found = start(spec)
  small = lower(spec, found)
  assert [node.op for node in small[0].nodes] == ['conv', 'add']
  x = images(spec, 4)
  want = Net(spec).apply(found, x)
  plain = sp.Spec(name='p', input_shape=(5, 5, 1), layers=(layers[0], PLAIN))
  np.testing.assert_allclose(
    artefact.forward(*small)(x), want, rtol=1e-4, atol=1e-4
  )
  assert np.abs(want - Net(plain).apply(found, x)).max() > 0.01


def test_the_zoo_has_them() -> None:
  sizes: dict[str, Any] = {'widths': (2, 4), 'shortcuts': True}
  spec = binary_vgg((8, 8, 1), 3, **sizes)
  moved = binary_vgg((8, 8, 1), 3, shift=True, **sizes)
  assert moved == shifted(spec) != spec
  kinds = [type(step.layer) for step in sp.walk(moved)]
  assert kinds.count(sp.ShiftNorm) == 5
  assert sp.Norm not in kinds


def test_statistics_of_norms_freeze() -> None:
  plan, state = begin(NET, sgd(), 6)
  split = examples(48)
  halves = []
  for settle in (1.0, 0.5):
    one, observed = plan._replace(freeze_bn_at=settle), []
    here = jax.tree.map(jnp.array, state)  # the step donates its argument
    for _ in range(2):
      here = step_lib.run_steps(one, here, split, 3, batch_size=8, seed=0)
      observed.append(jax.tree.map(np.array, here.batch_stats['n1']))
    halves.append(observed)
  (early, moved), (same, held) = halves
  assert early
  for name, value in held.items():
    np.testing.assert_array_equal(value, same[name])
    np.testing.assert_allclose(value, early[name], rtol=1e-4, atol=1e-5)
    assert np.any(value != moved[name])
