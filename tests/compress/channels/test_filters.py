"""Pruning of filters: budgets met, multiples of widths, nothing emptied."""

import contextlib
import itertools
import re
from typing import Any

import jax
import numpy as np
import pytest

from compress import tree
from compress.channels import budget, filters, sliced
from compress.method import Ctx, only
from compress.quantize.uniform import uniform
from compress.unchanged import UnchangedWarning
from tests.nets import SPECS, groups
from tests.runs import NETWORKS, TINY, calibrated, images, start
from tsukiji.data.datasets import Split
from tsukiji.deploy.passes.shrink import shrink
from tsukiji.measure import cost
from tsukiji.training import probe

NET = NETWORKS['tsukijinet2021']


def pruned(spec: Any, **how: Any) -> Any:
  """Return the tree after `prune.filters`."""
  compress = filters.filters(**{'multiple': 1, **how})
  return compress.init(start(spec)['params'], calibrated(spec))


def left(spec: Any, params: Any) -> dict[str, int]:
  """Return the widths of the groups in a tree."""
  found = tree.paths(params)
  makers = {g.name: g.of('produces')[0] for g in groups(spec)}
  shapes = {n: sliced.unsliced(found[s.path]).shape for n, s in makers.items()}
  return {n: shape[-1] for n, shape in shapes.items()}


def macs(spec: Any, params: Any) -> int:
  """Return the multiplications of the shrunk network."""
  small, _ = shrink(spec, {**start(spec), 'params': params})
  return cost.macs(small)


@pytest.mark.slow
@pytest.mark.parametrize('name', SPECS)
def test_the_budget_is_met_by_the_shrunk_network(name: str) -> None:
  spec, part = SPECS[name], 0.6
  params = pruned(spec, macs=part)
  found, kept = list(groups(spec)), left(spec, params)
  probe = calibrated(spec).probe
  assert probe is not None
  assert macs(spec, params) == budget.multiplications(
    found, kept, probe, start(spec)['params']
  )
  assert 0 < macs(spec, params) <= part * cost.macs(spec)
  # The next wider widths of one share would not do.
  parts = sorted(
    {n / g.channels for g in found for n in range(1, g.channels + 1)}
  )

  def at(share: float) -> dict[str, int]:
    return {g.name: max(1, int(share * g.channels + 1e-9)) for g in found}

  chosen = max(p for p in parts if at(p) == kept)
  wider = at(min(p for p in parts if p > chosen))
  work = budget.multiplications(found, wider, probe, start(spec)['params'])
  assert work > part * cost.macs(spec)


@pytest.mark.slow
@pytest.mark.parametrize(('part', 'multiple'), [(0.7, 1), (0.5, 2)])
def test_auto_meets_the_budget_and_empties_nothing(
  part: float, multiple: int
) -> None:
  params = pruned(NET, macs=part, scope='auto', multiple=multiple)
  kept = left(NET, params)
  assert macs(NET, params) <= part * cost.macs(NET)
  assert all(n >= multiple and n % multiple == 0 for n in kept.values())
  # Nothing could be given back.
  for group in groups(NET):
    if kept[group.name] < group.channels:
      wider = {**kept, group.name: kept[group.name] + multiple}
      probe = calibrated(NET).probe
      assert probe is not None
      dense = start(NET)['params']
      work = budget.multiplications(list(groups(NET)), wider, probe, dense)
      assert work > part * cost.macs(NET)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('share', 'multiple', 'want'),
  [
    (0.0, 1, (4, 4, 8)),
    (0.25, 1, (3, 3, 6)),
    (0.3, 1, (2, 2, 5)),
    (0.3, 4, (4, 4, 4)),  # which is said of the first two
    (0.99, 1, (1, 1, 1)),
    (0.99, 3, (3, 3, 3)),
  ],
)
def test_at_least_the_share_is_removed_in_multiples(
  share: float, multiple: int, want: tuple[int, ...]
) -> None:
  said = (
    pytest.warns(UnchangedWarning, match='left conv1, conv2')
    if multiple == 4
    else contextlib.nullcontext()
  )
  with said:
    params = pruned(NET, share=share, multiple=multiple, score='l1')
  assert tuple(left(NET, params).values()) == want
  table = {
    f'{name}/kernel': (dense, n)
    for (name, dense), n in zip(
      (('conv1', 4), ('conv2', 4), ('dense1', 8)), want, strict=True
    )
    if dense != n
  }
  assert filters.widths(params) == table


@pytest.mark.slow
@pytest.mark.parametrize('score', ['l1', 'l2'])
def test_greedy_scores_ignore_removed_inputs(score: str) -> None:
  power = {'l1': 1, 'l2': 2}[score]
  arrays = {p: np.array(x) for p, x in tree.paths(start(NET)['params']).items()}
  # The second filter of conv2 is large only in what conv1 loses.
  conv1, conv2 = arrays['conv1/kernel'], arrays['conv2/kernel']
  conv1[...] = np.array([1, 2, 3, 4])
  conv2[...] = 1 + np.arange(4) / 10
  conv2[:, :, :2, 0] = 9
  params = tree.map_paths(lambda p, _: arrays[p], start(NET)['params'])
  for greedy in (False, True):
    made = filters.filters(share=0.5, score=score, multiple=1, greedy=greedy)
    small = made.init(jax.tree.map(jax.numpy.asarray, params), calibrated(NET))
    kept1 = sliced.kept(small['conv1']['kernel'], 3)
    np.testing.assert_array_equal(kept1, [2, 3])
    observed = conv2[:, :, 2:] if greedy else conv2
    worth = np.sum(np.abs(observed) ** power, axis=(0, 1, 2))
    want = np.sort(np.argsort(-worth)[:2])
    got = sliced.kept(small['conv2']['kernel'], 3)
    np.testing.assert_array_equal(got, want)
    assert want.tolist() == ([2, 3] if greedy else [0, 3])


def test_layers_select_groups() -> None:
  params = pruned(NET, share=0.5, layers='conv.')
  assert left(NET, params) == {'conv1': 2, 'conv2': 2, 'dense1': 8}
  with pytest.raises(ValueError, match="got 'fc' of conv1, conv2, dense1"):
    pruned(NET, share=0.5, layers='fc')


@pytest.mark.slow
@pytest.mark.parametrize('scope', ['uniform', 'auto'])
def test_a_budget_of_weights_is_met(scope: str) -> None:
  params = pruned(NET, size=0.5, scope=scope)
  small, variables = shrink(NET, {**start(NET), 'params': params})
  dense = start(NET)['params']
  sizes = [
    sum(x.size for x in tree.paths(p).values() if tree.is_weight(x))
    for p in (variables['params'], dense)
  ]
  assert 0.3 * sizes[1] < sizes[0] <= 0.5 * sizes[1]
  assert cost.macs(small) < cost.macs(NET)


@pytest.mark.slow
@pytest.mark.parametrize('scope', ['uniform', 'auto'])
def test_a_budget_of_milliseconds_uses_the_clock(scope: str) -> None:
  ctx = calibrated(NET)
  assert ctx.probe is not None

  def clock(params: Any) -> float:
    return macs(NET, params) / cost.macs(NET)

  timed = ctx._replace(probe=ctx.probe._replace(milliseconds=clock))
  compress = filters.filters(ms=0.6, multiple=1, scope=scope)
  small = compress.init(start(NET)['params'], timed)
  want = pruned(NET, macs=0.6, scope=scope)
  assert left(NET, small) == left(NET, want)
  with pytest.raises(ValueError, match='probe that measures time, got none'):
    compress.init(
      start(NET)['params'],
      ctx._replace(probe=ctx.probe._replace(milliseconds=None)),
    )


@pytest.mark.slow
@pytest.mark.parametrize('how', [{'macs': 0.4}, {'size': 0.4}, {'share': 0.5}])
def test_two_stages_reach_the_budget_of_one(how: dict[str, float]) -> None:
  halfway = {k: (x + 1) / 2 if k != 'share' else x / 2 for k, x in how.items()}
  spec, small = shrink(NET, {**start(NET), 'params': pruned(NET, **halfway)})
  requested = probe.probe(
    spec,
    small,
    Split(np.asarray(images(NET, 32)), np.arange(32) % 3),
    dense=NET,
  )
  ctx = calibrated(NET)._replace(probe=requested)
  then = filters.filters(**how, multiple=1).init(small['params'], ctx)
  last, _ = shrink(spec, {**small, 'params': then})
  once, _ = shrink(NET, {**start(NET), 'params': pruned(NET, **how)})
  assert last == once


def test_an_unreachable_budget_names_the_minimum() -> None:
  for scope in ('uniform', 'auto'):
    with pytest.raises(ValueError, match='macs of at least .*, got 0.01') as e:
      pruned(TINY, macs=0.01, scope=scope, multiple=2)
    found = re.search(r'at least ([\d.]+)', str(e.value))
    assert found is not None
    least = float(found[1])
    assert 0.5 <= least < 0.51  # half the filters, half of what takes them
    assert macs(TINY, pruned(TINY, macs=least, multiple=2)) * 2 == cost.macs(
      TINY
    )


@pytest.mark.parametrize(
  ('how', 'said'),
  [
    ({}, 'one of macs, size, ms and share, got'),
    ({'macs': 0.5, 'share': 0.5}, 'one of macs, size, ms and share, got'),
    ({'macs': 0}, r'macs in \(0, 1\], got 0'),
    ({'macs': 1.1}, r'macs in \(0, 1\], got 1.1'),
    ({'share': 1.0}, r'share in \[0, 1\), got 1.0'),
    ({'share': -0.1}, r'share in \[0, 1\), got -0.1'),
    ({'share': 0.5, 'score': 'size'}, "score of bn_scale, .*got 'size'"),
    ({'share': 0.5, 'scope': 'all'}, "scope of uniform, auto, got 'all'"),
    ({'size': 0}, r'size in \(0, 1\], got 0'),
    ({'ms': 0}, 'ms above 0, got 0'),
    ({'share': 0.5, 'scope': 'auto'}, "a budget with scope='auto', got"),
    ({'share': 0.5, 'multiple': 0}, 'multiple from 1, got 0'),
    ({'share': 0.5, 'multiple': 2.0}, 'multiple from 1, got 2.0'),
    *(
      ({'share': 0.5, 'greedy': True, 'score': s}, f"greedy=True, got '{s}'")
      for s in ('taylor', 'bn_scale', 'random')
    ),
  ],
)
def test_impossible_arguments_are_refused(how: Any, said: str) -> None:
  with pytest.raises(ValueError, match=said):
    filters.filters(**how)


def test_nodes_and_single_layers_are_refused() -> None:
  params, ctx = start(NET)['params'], calibrated(NET)
  compress = filters.filters(share=0.5)
  with pytest.raises(ValueError, match='calibration data, got none'):
    compress.init(params, Ctx())
  with pytest.raises(
    ValueError, match='got FakeQuantized at conv1.*Put it first'
  ):
    compress.init(uniform(4).init(params, ctx), ctx)
  with pytest.raises(ValueError, match="'bn_scale' at dense1: expected a norm"):
    pruned(NET, share=0.5, score='bn_scale', layers='dense1')


def test_groups_that_a_multiple_keeps_whole_are_named() -> None:
  with pytest.warns(UnchangedWarning, match='left conv1, conv2 unch.*of 4'):
    params = pruned(NET, share=0.5, multiple=4)
  assert left(NET, params) == {'conv1': 4, 'conv2': 4, 'dense1': 4}
  with pytest.raises(ValueError, match='of more than 16 channels, got conv1'):
    pruned(NET, share=0.5, multiple=16)


def test_groups_without_a_norm_stay_under_scores_of_norms() -> None:
  with pytest.warns(UnchangedWarning, match='prune.filters: left dense1 unch'):
    params = pruned(NET, share=0.5, score='bn_scale')
  assert left(NET, params) == {'conv1': 2, 'conv2': 2, 'dense1': 8}


@pytest.mark.parametrize('shown', ['.*/kernel', 'conv1/.*', '(conv|dense).*'])
def test_a_part_of_a_group_is_refused(shown: str) -> None:
  params, ctx = start(NET)['params'], calibrated(NET)
  compress = only(shown, filters.filters(macs=0.5, multiple=1, layers='conv.'))
  with pytest.raises(ValueError, match='Leave out `only`'):
    compress.init(params, ctx)


def test_only_may_select_a_complete_group() -> None:
  params, ctx = start(NET)['params'], calibrated(NET)
  compress = only('conv[12]/.*|norm1/.*', filters.filters(macs=0.9, multiple=1))
  small = compress.init(params, ctx)
  kept = left(NET, small)
  assert kept['conv1'] < 4 and {kept['conv2'], kept['dense1']} == {4, 8}
  assert macs(NET, small) <= 0.9 * cost.macs(NET)


@pytest.mark.slow
def test_every_score_keeps_its_best() -> None:
  kept = {}
  for score in ('l1', 'l2', 'fpgm', 'bn_scale', 'random', 'taylor'):
    small = pruned(TINY, share=0.5, score=score)
    kept[score] = tuple(sliced.kept(small['norm']['scale'], 0).tolist())
  scale = np.asarray(start(TINY)['params']['norm']['scale'])
  assert kept['bn_scale'] == tuple(
    sorted(np.argsort(-np.abs(scale))[:2].tolist())
  )
  assert set(kept.values()) <= set(itertools.combinations(range(4), 2))
  assert len(set(kept.values())) > 1
