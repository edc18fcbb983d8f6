"""Networks whose channels are gone, and statistics taken anew."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe, tree
from compress.channels import sliced
from tests.nets import PLAIN
from tests.runs import NETWORKS, TINY, calibrated, images, run, start
from tsukiji.data.datasets import Split
from tsukiji.deploy.passes.shrink import shrink
from tsukiji.training import evaluate

PRUNE = 'prune.filters(share=0.5, multiple=1)'


@functools.cache
def pruned(name: str, then: str = '') -> dict[str, Any]:
  """Return the variables of a network with half the channels."""
  spec = NETWORKS[name]
  compress = recipe.parse(PRUNE + then)
  params = compress.init(start(spec)['params'], calibrated(spec))
  return {**start(spec), 'params': params}


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'then'),
  [
    *((name, '') for name in NETWORKS),
    ('resnet', ' >> quantize.int8()'),
    ('tsukijinet2021', ' >> prune.weights(0.5)'),
  ],
)
def test_the_small_network_says_the_same(name: str, then: str) -> None:
  spec, variables = NETWORKS[name], pruned(name, then)
  small_spec, small = shrink(spec, variables)
  assert small_spec != spec
  assert not tree.find(sliced.Sliced, small['params'])
  want, _ = run(spec, variables, 8)
  got, _ = run(small_spec, small, 8)
  np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_statistics_are_cut_with_their_scales() -> None:
  variables = pruned('vgg')
  _, small = shrink(NETWORKS['vgg'], variables)
  for name, stats in variables['batch_stats'].items():
    scale = variables['params'][name]['scale']
    keep = np.asarray(scale.keep)
    assert len(keep) == 2
    np.testing.assert_array_equal(small['params'][name]['scale'], scale.w)
    for field in ('mean', 'var'):
      np.testing.assert_array_equal(
        small['batch_stats'][name][field], stats[field][keep]
      )


def test_nothing_sliced_is_the_same_network() -> None:
  spec, variables = shrink(TINY, start(TINY))
  assert spec is TINY
  assert variables is start(TINY)


def test_slices_that_do_not_fit_stay() -> None:
  params = start(TINY)['params']
  left = jnp.array([0, 2])
  kernel = sliced.Sliced(params['conv']['kernel'][..., left], left, 3, 4)
  half = {**start(TINY), 'params': {**params, 'conv': {'kernel': kernel}}}
  spec, variables = shrink(TINY, half)
  assert spec is TINY
  assert variables is half


def test_recalibration_is_the_mean_of_batches() -> None:
  x = np.asarray(images(TINY, 20))
  split = Split(x, np.zeros(20, int))
  after = evaluate.recalibrate(TINY, start(TINY), split, 8, 17)
  kernel = np.asarray(start(TINY)['params']['conv']['kernel'])
  windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
  # [examples, 3, 3, 1, 3, 3] with the window last
  y = np.einsum('nabcij,ijcf->nabf', windows, kernel).astype(float)
  batches = [y[:8], y[8:16]]  # what is left of 17 makes no batch
  stats = after['batch_stats']['norm']
  for field, of in (('mean', np.mean), ('var', np.var)):
    want = np.mean([of(b, axis=(0, 1, 2)) for b in batches], 0)
    np.testing.assert_allclose(stats[field], want, rtol=1e-4, atol=1e-6)
  assert after['params'] is start(TINY)['params']
  few = evaluate.recalibrate(TINY, start(TINY), Split(x[:5], split.y[:5]))
  want = np.mean(y[:5], axis=(0, 1, 2))
  np.testing.assert_allclose(
    few['batch_stats']['norm']['mean'], want, rtol=1e-4, atol=1e-6
  )


def test_a_network_without_norms_needs_no_statistics() -> None:
  x = np.asarray(images(PLAIN, 4))
  split = Split(x, np.zeros(4, int))
  assert evaluate.recalibrate(PLAIN, start(PLAIN), split) is start(PLAIN)
