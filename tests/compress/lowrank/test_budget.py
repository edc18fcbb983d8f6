"""Ranks from one budget, against the budget and against brute force."""

import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import compress
from compress import allocation, recipe, tree
from compress.lowrank import budget as budget_lib
from compress.lowrank.budget import Options
from compress.lowrank.factors import LowRank
from compress.method import Ctx
from tests.nets import conv, net
from tests.runs import calibrated, start
from tsukiji.deploy.passes.lower import lower
from tsukiji.graph.nodes import Graph
from tsukiji.measure import cost
from tsukiji.models import spec as sp

OPTIONS = Options('operator', 'sum', ('channel',), 3)
SPEC = net(
  'plain',
  conv('one', 6),
  sp.Act(),
  conv('two', 8, strides=(2, 1), kernel=(3, 2), padding='VALID'),
  sp.Act(),
)
MLP = sp.Spec(
  name='mlp',
  input_shape=(4, 4, 1),
  layers=(
    sp.Flatten(),
    sp.Dense(name='hidden', features=16),
    sp.Act(),
    sp.Dense(name='head', features=8),
  ),
)


def lowered(text: str, spec: sp.Spec = SPEC) -> tuple[Graph, dict[str, Any]]:
  """Return the deployed network after a recipe that does not train."""
  params = recipe.parse(text).init(start(spec)['params'], calibrated(spec))
  return lower(spec, {'params': params, 'batch_stats': {}})


@pytest.mark.slow
@pytest.mark.parametrize('fold', ['channel', 'spatial', 'best'])
def test_the_lowered_network_meets_its_budget(fold: str) -> None:
  text = f'lowrank.auto(macs=0.6, sensitivity="energy", fold="{fold}")'
  graph, small = lowered(text)
  macs = cost.macs(graph, small['params'])
  assert 0.3 * cost.macs(SPEC) < macs <= 0.6 * cost.macs(SPEC)


@pytest.mark.slow
def test_dense_layers_are_factored_for_multiplications_too() -> None:
  """Rank r costs 32 r of 256 in the first layer, 24 r of 128 in the last."""
  ctx, params = calibrated(MLP), start(MLP)['params']
  found = budget_lib.gathered('x', params, ctx, 'macs', OPTIONS)
  assert {path: x.tolist() for path, x in found.cost.items()} == {
    'hidden/kernel': [256, 7 * 32, 3 * 32, 32],
    'head/kernel': [128, 5 * 24, 2 * 24, 24],
  }
  graph, small = lowered('lowrank.auto(macs=0.5, sensitivity="energy")', MLP)
  assert 56 <= cost.macs(graph, small['params']) <= (256 + 128) / 2


@pytest.mark.slow
@pytest.mark.parametrize(
  ('shape', 'sizes', 'first', 'last'),
  [
    ((8, 8), {'padding': 1}, 8 * 8, 8 * 8),
    ((8, 8), {'padding': 'VALID'}, 6 * 8, 6 * 6),
    ((8, 8), {'padding': 'SAME', 'strides': 2}, 4 * 8, 4 * 4),
    # What Flax pads itself is an input as any other.
    ((8, 8), {'padding': 'CIRCULAR', 'strides': (2, 1)}, 4 * 10, 4 * 8),
    ((9, 7), {'padding': ((2, 1), (0, 0)), 'strides': (2, 1)}, 5 * 7, 5 * 5),
    ((9, 7), {'padding': (1, 2), 'kernel_dilation': 2}, 7 * 7, 7 * 7),
    ((7, 6), {'padding': 0, 'kernel_size': (3, 1), 'strides': 2}, 9, 9),
  ],
)
def test_positions_of_both_factors_are_counted(
  shape: tuple[int, int], sizes: dict[str, Any], first: int, last: int
) -> None:
  sizes = {'features': 4, 'kernel_size': (3, 3), 'use_bias': False} | sizes
  layer, x = nn.Conv(**sizes), jnp.ones((1, *shape, 5))
  variables = layer.init(jax.random.key(0), x)
  y: Any = layer.apply(variables, x)
  assert y.shape[1] * y.shape[2] == last

  def apply(params: Any, x: jax.Array) -> jax.Array:
    return layer.apply({'params': params}, x)

  probe = compress.probe(apply, variables['params'], x)
  assert probe.uses == {'kernel': last}
  options = OPTIONS._replace(folds=('spatial',))
  found = budget_lib.gathered(
    'x', variables['params'], Ctx(probe=probe), 'macs', options
  )
  assert found.choices['kernel'][-1].rank == 1
  height, width = layer.kernel_size
  full, *_, least = found.cost['kernel'].tolist()
  assert full == height * width * 5 * 4 * last
  assert least == height * 5 * first + width * 4 * last


@pytest.mark.slow
def test_a_budget_of_numbers_is_met_too() -> None:
  _, after = lowered(
    'lowrank.auto(size=0.7, sensitivity="operator", goal="max")'
  )
  count = sum(
    x.size for x in tree.paths(after['params']).values() if x.ndim > 1
  )
  full = tree.paths(start(SPEC)['params']).values()
  assert count <= 0.7 * sum(x.size for x in full if x.ndim > 1)


def test_the_full_budget_leaves_the_network_unchanged() -> None:
  graph, small = lowered('lowrank.auto(macs=1.0, sensitivity="energy")')
  assert cost.macs(graph, small['params']) == cost.macs(SPEC)
  assert {*small['params']} == {*tree.paths(start(SPEC)['params'])}


def test_the_worst_sensitivity_is_least() -> None:
  """Brute force over all choices, ALDS' error by NumPy."""
  params = start(SPEC)['params']
  options = Options('operator', 'max', ('channel',), 3)
  found = budget_lib.gathered('x', params, calibrated(SPEC), 'size', options)
  for path, row in found.choices.items():
    w = np.asarray(tree.paths(params)[path])
    values = np.linalg.svd(w.reshape(-1, w.shape[-1]), compute_uv=False)
    values = np.append(values, 0) / values[0]
    want = [values[choice.rank] if choice.rank else 0 for choice in row]
    np.testing.assert_allclose(found.sensitivity[path], want, atol=1e-5)
  losses = [np.asarray(x) for x in found.sensitivity.values()]
  costs = list(found.cost.values())
  budget = 0.6 * sum(row[0] for row in costs)
  best = min(
    max(x[i] for x, i in zip(losses, pick, strict=True))
    for pick in itertools.product(*(range(len(x)) for x in losses))
    if sum(c[i] for c, i in zip(costs, pick, strict=True)) <= budget
  )
  chosen = allocation.minimax(losses, costs, budget)
  assert max(x[i] for x, i in zip(losses, chosen, strict=True)) == best


@pytest.mark.slow
def test_a_time_is_met_by_bisection() -> None:
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
  method = recipe.parse(f'lowrank.auto(ms={limit}, sensitivity="energy")')
  assert 0.4 * clock(params) < clock(method.init(params, timed)) <= limit
  with pytest.raises(ValueError, match='the time of rank 1'):
    recipe.parse('lowrank.auto(ms=1.0, sensitivity="energy")').init(
      params, timed
    )


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('lowrank.auto()', 'expected one budget'),
    ('lowrank.auto(macs=0.5, size=0.5)', 'expected one budget'),
    ('lowrank.auto(macs=0.0)', r'macs in \(0, 1\]'),
    ('lowrank.auto(ms=0.0)', 'ms above 0'),
    ('lowrank.auto(size=0.5, sensitivity="x")', 'sensitivity of'),
    ('lowrank.auto(size=0.5, goal="min")', 'goal of max, sum'),
    ('lowrank.auto(size=0.5, fold="row")', 'fold of'),
    ('lowrank.auto(size=0.5, candidates=1)', 'at least 2 candidates'),
  ],
)
def test_impossible_arguments_are_refused(text: str, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    recipe.parse(text)


def test_too_small_a_budget_is_refused() -> None:
  params = start(SPEC)['params']
  for goal in ('sum', 'max'):
    method = recipe.parse(
      f'lowrank.auto(size=0.01, sensitivity="energy", goal="{goal}")'
    )
    with pytest.raises(ValueError, match='a share of at least 0.*rank 1'):
      method.init(params, Ctx())
  with pytest.raises(ValueError, match='allocation: expected a budget'):
    allocation.minimax([jnp.ones(2)], [[3.0, 2.0]], 1.0)
