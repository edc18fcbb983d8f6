"""Neurons that resemble one another, against a slow and plain merging."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import method, tree
from compress.channels import neurons, sliced
from compress.method import Ctx, only
from compress.quantize.uniform import uniform
from tests.nets import PLAIN, SPECS
from tests.runs import assert_same_bits, calibrated, run, served, start
from tests.weight_files import pack_weights
from tsukiji.deploy.passes.lower import lower
from tsukiji.deploy.passes.shrink import shrink
from tsukiji.deploy.tsk import pack


def drawn(count: int = 9, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Return weights into and out of some neurons."""
  generator = np.random.default_rng(seed)
  return generator.normal(size=(count, 5)), generator.normal(size=(count, 3))


def slowly(
  into: np.ndarray, out: np.ndarray, count: int
) -> tuple[list[int], np.ndarray]:
  """Merge by the full matrix of saliencies, made anew at each step."""
  left, out = list(range(len(into))), out.copy()
  for _ in range(count):
    _, i, j = min(
      (np.mean(out[j] ** 2) * np.sum((into[i] - into[j]) ** 2), i, j)
      for i in left
      for j in left
      if i != j
    )
    out[i] += out[j]
    left.remove(j)
  return left, out


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('count', [0, 1, 4, 8])
def test_merging_matches_the_reference(seed: int, count: int) -> None:
  into, out = drawn(seed=seed)
  keep, merged = neurons.merge(into, out, count)
  left, want = slowly(into, out, count)
  assert np.flatnonzero(keep).tolist() == left
  np.testing.assert_allclose(merged[keep], want[left])


def test_neurons_without_outputs_are_merged_first() -> None:
  into, out = drawn()
  out[[2, 5, 7]] = 0
  keep, merged = neurons.merge(into, out, 3)
  assert np.flatnonzero(~keep).tolist() == [2, 5, 7]
  np.testing.assert_array_equal(merged, out)
  assert neurons.merge(into, 0 * out, 6)[0].sum() == 3


@pytest.mark.slow
def test_the_automatic_limit_is_the_mode() -> None:
  into, out = drawn(40)
  into[20:30] = into[:10] + 1e-6  # ten twins
  keep, _ = neurons.merge(into, out)
  assert not (keep[:10] & keep[20:30]).any()
  assert 10 <= np.sum(~keep) < 39
  saliency = np.mean(out**2, 1) * np.sum((into[:, None] - into) ** 2, 2)
  finite = saliency[~np.eye(40, dtype=bool)]
  sizes, edges = np.histogram(finite, bins=100)
  limit = edges[np.argmax(sizes)]
  for count in range(40):
    left, grown = slowly(into, out, count)
    rest = np.ix_(left, left)
    apart = np.sum((into[:, None] - into) ** 2, 2)[rest]
    costs = np.mean(grown[left] ** 2, 1) * apart
    np.fill_diagonal(costs, np.inf)
    if costs.min() > limit:
      break
  assert np.flatnonzero(keep).tolist() == left
  assert neurons.merge(*drawn(1))[0].all()


@functools.cache
def merged(share: float | None = 0.5, multiple: int = 1) -> Any:
  """Return the network without norms with fewer neurons."""
  compress = neurons.neurons(share, multiple=multiple)
  return compress.init(start(PLAIN)['params'], calibrated(PLAIN))


def widths(params: Any) -> dict[str, int]:
  """Return how many outputs are left."""
  kernels = {name: params[name]['kernel'] for name in ('one', 'two')}
  return {n: sliced.unsliced(k).shape[-1] for n, k in kernels.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
  ('share', 'multiple', 'want'),
  [
    (0.0, 1, (4, 6)),
    (0.3, 1, (2, 4)),
    (0.5, 1, (2, 3)),
    (0.5, 2, (2, 2)),
    (0.99, 1, (1, 1)),
    (0.99, 5, (4, 5)),
  ],
)
def test_at_least_the_share_is_removed(
  share: float, multiple: int, want: tuple[int, int]
) -> None:
  found = widths(merged(share, multiple))
  assert tuple(found.values()) == want


def test_shares_are_robust_to_rounding() -> None:
  # (1 - 0.7) * 10 is a little above 3, (1 - 0.9) * 10 a little below 1.
  assert (1 - 0.7) * 10 > 3 and (1 - 0.9) * 10 < 1
  assert widths(merged(0.75))['one'] == 1


def test_without_a_share_the_mode_decides() -> None:
  found = widths(merged(None))
  params = start(PLAIN)['params']
  into = np.concatenate(
    [
      np.asarray(params['one']['kernel']).reshape(-1, 4).T,
      np.asarray(params['one']['bias'])[:, None],
    ],
    1,
  )
  out = np.moveaxis(np.asarray(params['two']['kernel']), 2, 0).reshape(4, -1)
  assert found['one'] == neurons.merge(into, out)[0].sum()


@pytest.mark.slow
def test_twins_merge_without_a_change() -> None:
  params = jax.tree.map(np.array, start(PLAIN)['params'])
  for name, pairs in (('one', [(0, 2), (1, 3)]), ('two', [(0, 4), (1, 3)])):
    for i, j in pairs:
      params[name]['kernel'][..., j] = params[name]['kernel'][..., i]
      params[name]['bias'][j] = params[name]['bias'][i]
  before = {**start(PLAIN), 'params': params}
  compress = neurons.neurons(0.5, layers='one')
  after = compress.init(params, calibrated(PLAIN))
  assert widths(after) == {'one': 2, 'two': 6}
  both = neurons.neurons(0.33).init(params, calibrated(PLAIN))
  assert widths(both) == {'one': 2, 'two': 4}
  want, _ = run(PLAIN, before, 8)
  for small in (after, both):
    got, _ = run(PLAIN, {**before, 'params': small}, 8)
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.slow
def test_merged_neurons_keep_the_laws() -> None:
  params, ctx = start(PLAIN)['params'], calibrated(PLAIN)
  compress = method.chain(neurons.neurons(0.5), uniform(8))
  for made in (neurons.neurons(0.5), compress):
    shapes = method.abstract(made, params, ctx)
    for x, dense in zip(
      jax.tree.leaves(shapes), jax.tree.leaves(params), strict=True
    ):
      assert (x.shape, x.dtype) == (dense.shape, dense.dtype)
    variables = {**start(PLAIN), 'params': made.init(params, ctx)}
    again = pack.unpack(pack_weights(variables['params']))
    assert_same_bits(
      tree.decode(again.variables['params']),
      tree.paths(tree.decode(variables['params'])),
    )
    want, _ = run(PLAIN, variables, 8)
    spec, small = shrink(PLAIN, variables)
    assert spec != PLAIN
    np.testing.assert_allclose(run(spec, small, 8)[0], want, atol=1e-5)
    got = served(PLAIN, lower(PLAIN, variables), 8)
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize('share', [-0.1, 1.0, 2])
def test_impossible_shares_are_refused(share: float) -> None:
  with pytest.raises(ValueError, match=rf'share in \[0, 1\), got {share}'):
    neurons.neurons(share)


@pytest.mark.parametrize('multiple', [0, -1, 2.0])
def test_impossible_multiples_are_refused(multiple: Any) -> None:
  with pytest.raises(ValueError, match=f'multiple from 1, got {multiple}'):
    neurons.neurons(0.5, multiple=multiple)


def test_layers_that_cannot_shrink_are_refused() -> None:
  params, ctx = start(PLAIN)['params'], calibrated(PLAIN)
  with pytest.raises(ValueError, match="got 'fc' of one, two. A layer must"):
    neurons.neurons(layers='fc').init(params, ctx)
  with pytest.raises(ValueError, match='calibration data, got none'):
    neurons.neurons().init(params, Ctx())
  coded = uniform(4).init(params, ctx)
  with pytest.raises(ValueError, match='plain arrays.*Put it first'):
    neurons.neurons().init(coded, ctx)
  spec = SPECS['vgg']
  with pytest.raises(ValueError, match='of none'):
    neurons.neurons().init(start(spec)['params'], calibrated(spec))
  # The norms are there, whether `only` shows them or not.
  for shown in ('.*/kernel', 'conv.*/kernel|dense/.*'):
    with pytest.raises(ValueError, match='of none.*leave out `only`'):
      only(shown, neurons.neurons()).init(
        start(spec)['params'], calibrated(spec)
      )


def test_only_may_select_complete_layers() -> None:
  params, ctx = start(PLAIN)['params'], calibrated(PLAIN)
  small = only('(one|two)/.*', neurons.neurons(0.5)).init(params, ctx)
  assert widths(small) == {'one': 2, 'two': 6}
  assert small['fc']['kernel'] is params['fc']['kernel']
  assert jnp.shape(small['two']['bias']) == (6,)
