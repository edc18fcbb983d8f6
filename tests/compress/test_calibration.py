"""What layers take in: rows against the layers themselves."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import compress
from compress import calibration, dataflow, tree
from compress.dataflow import Observer
from compress.method import Ctx
from tests.nets import probe_with
from tests.runs import TINY, calibrated, images, run, start

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 7, 6, 4)), jnp.float32)
LAYERS: dict[str, nn.Module] = {
  'dense': nn.Dense(3, use_bias=False),
  'same': nn.Conv(3, (3, 2), 2, 'SAME', use_bias=False),
  'valid': nn.Conv(3, (2, 3), (1, 2), 'VALID', use_bias=False),
  'padded': nn.Conv(3, (3, 3), padding=((1, 0), (2, 1)), use_bias=False),
  'one pad': nn.Conv(3, (3, 3), padding=1, use_bias=False),
  'circular': nn.Conv(3, (3, 2), 2, 'CIRCULAR', use_bias=False),
  'reflected': nn.Conv(
    3, (2, 3), padding='REFLECT', kernel_dilation=2, use_bias=False
  ),
  'dilated': nn.Conv(3, (2, 2), kernel_dilation=2, use_bias=False),
  'grouped': nn.Conv(6, (3, 3), feature_group_count=2, use_bias=False),
  'depthwise': nn.Conv(4, (3, 3), feature_group_count=4, use_bias=False),
  'transposed': nn.ConvTranspose(3, (2, 3), (2, 1), use_bias=False),
  'axes': nn.DenseGeneral((2, 3), axis=(-2, -1), use_bias=False),
  'products': nn.Einsum((6, 4, 3), '...hk,hkd->...hd', use_bias=False),
}


def rows_of(module: nn.Module, variables: Any, x: jax.Array) -> jax.Array:
  """Return the rows that a module takes as input."""
  observer = Observer(
    dataflow.rows, lambda before, after: after, lambda x, own: x
  )
  found = dataflow.observed(
    lambda params, x: module.apply({'params': params}, x),
    variables['params'],
    (x,),
    {},
    observer,
  )
  return found.stats['kernel']


@pytest.mark.slow
@pytest.mark.parametrize('name', LAYERS)
def test_rows_times_the_kernel_are_the_outputs(name: str) -> None:
  module = LAYERS[name]
  variables = module.init(jax.random.key(0), X)
  rows = rows_of(module, variables, X)
  site = dataflow.sites(
    lambda params, x: module.apply({'params': params}, x),
    variables['params'],
    X,
  )['kernel']
  kernel = variables['params']['kernel'].transpose(site.order)
  groups, _, n = rows.shape
  parts = kernel.reshape(n, groups, -1)
  found = jnp.einsum('grn,ngo->rgo', rows, parts).reshape(len(rows[0]), -1)
  want = module.apply(variables, X)
  np.testing.assert_allclose(
    found, want.reshape(found.shape), rtol=1e-4, atol=1e-5
  )


class Half(nn.Module):
  """A layer that multiplies by a part of its weight."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return the product."""
    kernel = self.param('kernel', nn.initializers.ones, (4, 3))
    return x[..., :2] @ kernel[:2]


@pytest.mark.parametrize(
  'module', [Half(), nn.ConvTranspose(3, (2, 2), transpose_kernel=True)]
)
def test_parts_and_flipped_weights_have_no_rows(module: nn.Module) -> None:
  variables = module.init(jax.random.key(0), X)
  message = 'rows at kernel: expected a product of the whole weight, got one of'
  with pytest.raises(ValueError, match=message):
    rows_of(module, variables, X)


def test_moments_are_sums_over_all_rows() -> None:
  found = calibration.moments(
    'here', calibrated(TINY), start(TINY)['params'], 32
  )
  assert list(found) == ['conv/kernel', 'fc/kernel']
  x = np.asarray(images(TINY, 32), float)
  patches = np.array(
    [
      x[n, i : i + 3, j : j + 3].ravel()
      for n in range(32)
      for i in range(3)
      for j in range(3)
    ]
  )
  conv = found['conv/kernel']
  assert float(conv.number) == len(patches) == 288
  np.testing.assert_allclose(conv.total[0], patches.sum(0), atol=1e-3)
  np.testing.assert_allclose(conv.square[0], patches.T @ patches, atol=1e-2)
  assert found['fc/kernel'].square.shape == (1, 36, 36)
  assert float(found['fc/kernel'].number) == 32


def test_samples_are_values_of_the_inputs() -> None:
  params = start(TINY)['params']
  found = calibration.sample('here', calibrated(TINY), params, 20)
  np.testing.assert_array_equal(
    found['conv/kernel'], images(TINY, 32)[:20].ravel()
  )
  few = calibration.sample('here', calibrated(TINY), params, 20, limit=7)
  assert all(len(x) <= 7 for x in few.values())
  _, stats = run(TINY, start(TINY), 20)
  for path, x in found.items():
    np.testing.assert_allclose([x.min(), x.max()], stats[path], atol=1e-6)


def test_shared_layers_are_observed_at_every_call() -> None:
  class Twice(nn.Module):
    """One layer, applied twice."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
      """Return the outputs."""
      layer = nn.Dense(4, name='fc', use_bias=False)
      return layer(layer(x))

  variables = Twice().init(jax.random.key(0), X)

  def apply(params: Any, x: jax.Array) -> jax.Array:
    return Twice().apply({'params': params}, x)

  ctx = Ctx(probe=compress.probe(apply, variables['params'], X))
  once = 4 * 7 * 6
  found = calibration.moments('here', ctx, variables['params'], 4)['fc/kernel']
  assert float(found.number) == 2 * once
  values = calibration.sample('here', ctx, variables['params'], 4)['fc/kernel']
  assert values.shape == (2 * once * 4,)


def test_missing_layers_are_those_of_the_network() -> None:
  params = start(TINY)['params']
  part = tree.map_paths(lambda p, x: x if p == 'fc/kernel' else None, params)
  full = calibration.moments('here', calibrated(TINY), params, 8)
  found = calibration.moments('here', calibrated(TINY), part, 8)
  jax.tree.map(np.testing.assert_array_equal, full, found)


def test_no_data_is_an_error() -> None:
  with pytest.raises(ValueError, match='here: expected calibration data'):
    calibration.sample('here', Ctx(), {}, 4)
  ctx = Ctx(probe=probe_with())
  with pytest.raises(
    ValueError, match='here: expected a probe with the inputs'
  ):
    calibration.moments('here', ctx, {}, 4)
