"""Scores of channels against naive loops."""

import itertools

import jax
import numpy as np
import pytest

from compress import tree
from compress.channels import importance
from compress.channels.dependency import Group
from compress.method import Ctx
from tests.nets import groups
from tests.runs import NETWORKS, TINY, calibrated, single_gradients, start

RESNET = NETWORKS['resnet']


def filters_of(spec, group: Group) -> np.ndarray:
  """Return the weights that make each channel, one at a time."""
  arrays = tree.paths(start(spec)['params'])
  kernels = [
    np.asarray(arrays[s.path])
    for s in group.of('produces')
    if s.path.endswith('kernel')
  ]
  return np.array(
    [
      np.concatenate([k[..., c].ravel() for k in kernels])
      for c in range(group.channels)
    ]
  )


@pytest.mark.parametrize('spec', [RESNET, NETWORKS['tsukijinet2021']])
def test_filter_scores_match_numpy(spec) -> None:
  params = start(spec)['params']
  for group in groups(spec):
    rows = filters_of(spec, group)
    apart = np.zeros(len(rows))
    for i, j in itertools.permutations(range(len(rows)), 2):
      apart[i] += np.sqrt(np.sum((rows[i] - rows[j]) ** 2))
    for score, want in (
      (importance.l1, [sum(map(abs, row)) for row in rows]),
      (importance.l2, [np.sqrt(sum(row * row)) for row in rows]),
      (importance.fpgm, apart),
    ):
      got = score(group, params, Ctx())
      np.testing.assert_allclose(got, want, rtol=1e-4)


def test_bn_scale_is_the_scale_of_the_norm() -> None:
  params = start(RESNET)['params']
  stage, inner = groups(RESNET)[:2]
  scales = {
    name: np.abs(x['scale']) for name, x in params.items() if 'scale' in x
  }
  np.testing.assert_allclose(
    importance.bn_scale(stage, params, Ctx()),
    scales['conv0_norm'] + scales['block1_1_conv2_norm'],
  )
  np.testing.assert_allclose(
    importance.bn_scale(inner, params, Ctx()), scales['block1_1_conv1_norm']
  )
  dense = groups(NETWORKS['tsukijinet2021'])[2]
  params = start(NETWORKS['tsukijinet2021'])['params']
  with pytest.raises(ValueError, match="'bn_scale' at dense1: expected a norm"):
    importance.bn_scale(dense, params, Ctx())


def test_taylor_is_the_mean_square_over_examples() -> None:
  params, ctx = start(TINY)['params'], calibrated(TINY)
  assert ctx.probe is not None
  (group,) = groups(TINY)
  each = tree.paths(single_gradients(TINY, 32))
  arrays = tree.paths(params)
  want = np.zeros(4)
  for c in range(4):
    for n in range(32):
      total = 0.0
      for path in ('conv/kernel', 'norm/bias', 'norm/scale'):
        g, w = np.asarray(each[path])[n], np.asarray(arrays[path])
        total += float(np.sum(g[..., c] * w[..., c]))
      want[c] += total**2 / 32
  found = importance.taylor([group], params, ctx)
  np.testing.assert_allclose(found[group.name], want, rtol=1e-4)
  with pytest.raises(ValueError, match='taylor.*calibration data, got none'):
    importance.taylor([group], params, Ctx())


def test_random_scores_depend_on_key_and_name() -> None:
  one, other = groups(RESNET)[:2]
  first, second = (Ctx(key=jax.random.key(i)) for i in range(2))
  drawn = importance.random(one, {}, first)
  np.testing.assert_array_equal(drawn, importance.random(one, {}, first))
  assert not np.array_equal(drawn, importance.random(one, {}, second))
  assert not np.array_equal(drawn, importance.random(other, {}, first))
  with pytest.raises(ValueError, match='a key in the context, got None'):
    importance.random(one, {}, Ctx())


def test_rows_follow_the_entries() -> None:
  takes = groups(NETWORKS['tsukijinet2021'])[1].of('consumes')[0]
  w = np.arange(16 * 8).reshape(16, 8)
  rows = importance.rows(w, takes)
  assert rows.shape == (4, 32)
  np.testing.assert_array_equal(rows[1], w[[1, 5, 9, 13]].ravel())
