"""Ranks from one budget, against the budget and against brute force."""

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from compress import allocation, recipe, tree
from compress.lowrank import budget as budget_lib
from compress.lowrank.budget import How
from compress.lowrank.factors import LowRank
from compress.method import Ctx
from tests.nets import conv, net
from tests.runs import calibrated, start
from tsukiji.deploy.passes.lower import lower
from tsukiji.measure import cost
from tsukiji.models import spec as sp

SPEC = net(
  'plain',
  conv('one', 6),
  sp.Act(),
  conv('two', 8, strides=(2, 1), kernel=(3, 2), padding='VALID'),
  sp.Act(),
)


def lowered(text: str) -> tuple[sp.Spec, dict[str, Any]]:
  """Return the deployed network after a recipe that does not train."""
  params = recipe.parse(text).init(start(SPEC)['params'], calibrated(SPEC))
  return lower(SPEC, {'params': params, 'batch_stats': {}})


@pytest.mark.parametrize('fold', ['channel', 'spatial', 'best'])
def test_the_lowered_network_meets_its_budget(fold: str) -> None:
  text = f'lowrank.auto(macs=0.6, damage="energy", fold="{fold}")'
  small, _ = lowered(text)
  assert 0.3 * cost.macs(SPEC) < cost.macs(small) <= 0.6 * cost.macs(SPEC)


def test_a_budget_of_numbers_is_met_too() -> None:
  _, after = lowered('lowrank.auto(size=0.7, damage="operator", goal="max")')
  count = sum(
    x.size for x in tree.paths(after['params']).values() if x.ndim > 1
  )
  whole = tree.paths(start(SPEC)['params']).values()
  assert count <= 0.7 * sum(x.size for x in whole if x.ndim > 1)


def test_the_whole_budget_leaves_the_network_alone() -> None:
  assert lowered('lowrank.auto(macs=1.0, damage="energy")')[0] == SPEC


def test_the_worst_layer_is_hurt_least() -> None:
  """Brute force over all choices, ALDS' error by NumPy."""
  params = start(SPEC)['params']
  how = How('operator', 'max', ('channel',), 3)
  found = budget_lib.gathered('x', params, calibrated(SPEC), 'size', how)
  for path, row in found.choices.items():
    w = np.asarray(tree.paths(params)[path])
    values = np.linalg.svd(w.reshape(-1, w.shape[-1]), compute_uv=False)
    values = np.append(values, 0) / values[0]
    want = [values[choice.rank] if choice.rank else 0 for choice in row]
    np.testing.assert_allclose(found.harm[path], want, atol=1e-5)
  harms = [np.asarray(x) for x in found.harm.values()]
  costs = list(found.cost.values())
  budget = 0.6 * sum(row[0] for row in costs)
  best = min(
    max(h[i] for h, i in zip(harms, pick, strict=True))
    for pick in itertools.product(*(range(len(h)) for h in harms))
    if sum(c[i] for c, i in zip(costs, pick, strict=True)) <= budget
  )
  chosen = allocation.minimax(harms, costs, budget)
  assert max(h[i] for h, i in zip(harms, chosen, strict=True)) == best


def test_time_is_halved_for() -> None:
  """A clock that counts stored numbers stands in for one of seconds."""
  params, ctx = start(SPEC)['params'], calibrated(SPEC)
  assert ctx.probe is not None

  def clock(params: Any) -> float:
    return float(
      sum(
        x.size
        for x in tree.paths(tree.freeze(params)).values()
        if not isinstance(x, LowRank)
      )
      + sum(x.u.size + x.v.size for x in tree.find(LowRank, params).values())
    )

  timed = ctx._replace(probe=ctx.probe._replace(milliseconds=clock))
  limit = 0.7 * clock(params)
  method = recipe.parse(f'lowrank.auto(ms={limit}, damage="energy")')
  assert 0.4 * clock(params) < clock(method.init(params, timed)) <= limit
  with pytest.raises(ValueError, match='what rank 1 takes'):
    recipe.parse('lowrank.auto(ms=1.0, damage="energy")').init(params, timed)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('lowrank.auto()', 'expected one budget'),
    ('lowrank.auto(macs=0.5, size=0.5)', 'expected one budget'),
    ('lowrank.auto(macs=0.0)', r'macs in \(0, 1\]'),
    ('lowrank.auto(ms=0.0)', 'ms above 0'),
    ('lowrank.auto(size=0.5, damage="x")', 'damage of'),
    ('lowrank.auto(size=0.5, goal="min")', 'goal of max, sum'),
    ('lowrank.auto(size=0.5, fold="row")', 'fold of'),
    ('lowrank.auto(size=0.5, candidates=1)', 'candidates from 2'),
  ],
)
def test_impossible_arguments_are_refused(text: str, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    recipe.parse(text)


def test_too_small_a_budget_is_refused() -> None:
  params = start(SPEC)['params']
  for goal in ('sum', 'max'):
    method = recipe.parse(
      f'lowrank.auto(size=0.01, damage="energy", goal="{goal}")'
    )
    with pytest.raises(ValueError, match='a share of at least 0.*rank 1'):
      method.init(params, Ctx())
  with pytest.raises(ValueError, match='allocate: expected a budget'):
    allocation.minimax([jnp.ones(2)], [[3.0, 2.0]], 1.0)
