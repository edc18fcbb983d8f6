"""Networks rewritten to compact filters."""

import jax.numpy as jnp
import numpy as np
import pytest

from compress import tree
from tests.runs import images, run, start
from tsukiji.measure import cost
from tsukiji.models import compact_filters
from tsukiji.models import net as net_lib
from tsukiji.models import spec as sp
from tsukiji.models.net import Net


def net(padding: str = 'SAME', features: int = 8) -> sp.Spec:
  """Return two convolutions, one in a branch, and a dense layer."""
  first = sp.Conv(name='one', features=6, kernel=(3, 3), padding=padding)
  second = sp.Conv(
    name='two', features=features, kernel=(3, 3), padding=padding, bias=False
  )
  branch = sp.Branch(paths=((second, sp.Norm(name='norm')),), merge='concat')
  end = (sp.Act(), sp.GlobalMean(), sp.Dense(name='fc', features=3))
  layers = (first, sp.Act(), branch, *end)
  return sp.Spec(name='net', input_shape=(7, 7, 1), layers=layers)


@pytest.mark.slow
@pytest.mark.parametrize('kind', compact_filters.KINDS)
def test_rewritten_networks_run_and_cost_less(kind: str) -> None:
  spec = net()
  small, variables = compact_filters.compact(spec, start(spec), kind, seed=0)
  assert small == compact_filters.rewritten(spec, kind)
  assert cost.macs(small) < cost.macs(spec)
  assert cost.params(variables['params']) < cost.params(start(spec)['params'])
  logits = run(small, variables, 4)[0]
  assert logits.shape == (4, 3)
  assert np.all(np.isfinite(logits))
  kept = variables['params']
  assert kept['norm'] is start(spec)['params']['norm']
  want, have = (
    tree.paths(x) for x in (net_lib.variable_shapes(small)['params'], kept)
  )
  assert {k: v.shape for k, v in want.items()} == {
    k: v.shape for k, v in have.items()
  }


def test_a_separable_kernel_is_split_without_loss() -> None:
  spec, drawn = net('VALID'), np.random.default_rng(0)
  depth, point = drawn.normal(size=(3, 3, 6, 1)), drawn.normal(size=(6, 8))
  variables = start(spec)
  kernel = jnp.float32(depth * point)
  params = {**variables['params'], 'two': {'kernel': kernel}}
  variables = {**variables, 'params': params}
  small, after = compact_filters.compact(spec, variables, 'separable', 0)
  assert after['params']['two_depth']['kernel'].shape == (3, 3, 1, 6)
  x = images(spec, 4)
  np.testing.assert_allclose(
    Net(small).apply(after, x), Net(spec).apply(variables, x), atol=1e-4
  )


def test_splits_are_the_nearest_of_their_rank() -> None:
  kernel = np.random.default_rng(1).normal(size=(3, 3, 5, 8))
  parts = compact_filters.split_separable(kernel)
  near = parts['_depth'][:, :, 0, :, None] * parts[''][0, 0]
  for c in range(5):
    s = np.linalg.svd(kernel[:, :, c].reshape(9, 8), compute_uv=False)
    gap = np.sum((kernel - near)[:, :, c] ** 2)
    assert gap == pytest.approx(np.sum(s[1:] ** 2))
  # A kernel within two inputs and two outputs is its own Tucker form.
  drawn = np.random.default_rng(2)
  bases = (drawn.normal(size=(5, 2)), drawn.normal(size=(8, 2)))
  low = np.einsum('hwab,ia,ob->hwio', kernel[..., :2, :2], *bases)
  parts = compact_filters.split_bottleneck(low)
  again = np.einsum(
    'hwab,ia,bo->hwio',
    parts['_core'],
    parts['_reduce'][0, 0],
    parts[''][0, 0],
  )
  np.testing.assert_allclose(again, low, atol=1e-9)


@pytest.mark.parametrize(
  ('spec', 'kind', 'why'),
  [
    (net('VALID'), 'fire', 'two: expected SAME'),
    (net(), 'wide', 'separable'),
    (
      compact_filters.rewritten(net(), 'separable'),
      'separable',
      'behind the first',
    ),
  ],
)
def test_what_cannot_be_is_refused(spec: sp.Spec, kind: str, why: str) -> None:
  with pytest.raises(ValueError, match=why):
    compact_filters.rewritten(spec, kind)


def test_an_empty_kind_changes_nothing() -> None:
  assert compact_filters.rewritten(net(), '') == net()
