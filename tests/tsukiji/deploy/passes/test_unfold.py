"""Products of factors: the same outputs, fewer multiplications."""

from typing import Any

import jax
import numpy as np
import pytest

from compress import recipe, tree
from compress.lowrank.factors import Factored
from compress.method import Ctx
from compress.quantize.integer_codes import Quantized
from tests.runs import calibrated, one_shot
from tests.tsukiji.deploy.passes.test_lower import (
  assert_same_outputs,
  ops,
  signed,
)
from tests.tsukiji.models.test_spec import network
from tsukiji.deploy import artefact
from tsukiji.deploy.passes.lower import captured, lower
from tsukiji.deploy.passes.unfold import unfolded
from tsukiji.deploy.tsk import pack
from tsukiji.graph.capture import capture
from tsukiji.measure import cost
from tsukiji.models import spec as sp

RECIPES = {
  'lowrank.svd(2)': 2,
  'lowrank.svd(1, fold="spatial")': 2,
  'lowrank.tucker((2, 3))': 3,
  'lowrank.cp(3, sweeps=2)': 4,
}


def factored(spec: sp.Spec, text: str) -> dict[str, Any]:
  """Return signed variables of a network after a recipe that needs no data."""
  found = signed(spec)
  params = jax.tree.map(lambda x: np.float32(x), found['params'])
  return found | {'params': recipe.parse(text).init(params, calibrated(PLAIN))}


def conv(**changes: Any) -> sp.Conv:
  sizes: dict[str, Any] = {'name': 'c1', 'features': 4, 'kernel': (3, 2)}
  return sp.Conv(**(sizes | changes))


def net(*layers: sp.Layer) -> sp.Spec:
  """Return a network whose convolutions have several inputs."""
  return network(sp.Conv(name='c0', features=3, kernel=(1, 1)), *layers)


X = np.float32([[1, 2, 3, 4]])
PLAIN = network(sp.Flatten(), sp.Dense(name='d', features=2))


@pytest.mark.slow
@pytest.mark.parametrize('text', RECIPES)
@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
@pytest.mark.parametrize('strides', [(1, 1), (2, 1), (2, 3)])
def test_windows_strides_and_padding_are_kept(
  text: str, padding: str, strides: tuple[int, int]
) -> None:
  spec = net(conv(padding=padding, strides=strides))
  found = factored(spec, f'only("c1/kernel", {text})')
  graph, weights = captured(spec, found)
  small, parts = unfolded(graph, weights)
  assert ops(small)['conv'] == ops(graph)['conv'] + RECIPES[text] - 1
  assert not tree.find(Factored, parts)
  assert_same_outputs(spec, found, (small, {'params': parts}))


@pytest.mark.slow
def test_dense_layers_norms_and_branches_too() -> None:
  body = conv(name='c2', features=3, kernel=(3, 3), padding='SAME', bias=False)
  spec = net(
    sp.Branch(paths=((body, sp.Norm(name='n2'), sp.Act()), ()), merge='add'),
    sp.Flatten(),
    sp.Dense(name='d1', features=4),
    sp.Norm(name='n1'),
    sp.Act(),
    sp.Dense(name='d2', features=2),
  )
  found = factored(spec, 'only("(c2|d1|d2)/kernel", lowrank.svd(1))')
  small, lowered = lower(spec, found)
  assert {*lowered['params']} == {
    *('c0/kernel', 'c0/bias', 'c2_u/kernel', 'c2_v/kernel', 'c2_v/bias'),
    *('d1_u/kernel', 'd1_v/kernel', 'd1_v/bias'),
    *('d2_u/kernel', 'd2_v/kernel', 'd2/bias'),
  }
  assert cost.macs(small, lowered['params']) < cost.macs(spec)
  assert cost.params(lowered['params']) < cost.params(
    lower(spec, signed(spec))[1]['params']
  )
  assert_same_outputs(spec, found, (small, lowered))


GROUPS = net(conv(features=3, groups=3))


@pytest.mark.parametrize(
  ('spec', 'text'),
  [
    (GROUPS, 'only("c1/kernel", lowrank.svd(1))'),
    (net(conv()), 'prune.weights(0.5)'),
  ],
)
def test_other_products_stay(spec: sp.Spec, text: str) -> None:
  found = factored(spec, text)
  graph, weights = captured(spec, found)
  small, parts = unfolded(graph, weights)
  assert ops(small) == ops(graph)
  assert parts.keys() == weights.keys()
  assert_same_outputs(spec, found, (small, {'params': parts}))


def test_a_weight_that_is_read_twice_is_multiplied_out() -> None:
  params = recipe.parse('lowrank.svd(1)').init(
    {'d': {'kernel': np.eye(4, dtype=np.float32) + 1}}, Ctx()
  )
  graph = capture(
    lambda p, x: x @ p['d']['kernel'] @ p['d']['kernel'], params, X
  )
  small, parts = unfolded(graph, tree.paths(params))
  assert small == graph
  np.testing.assert_allclose(
    artefact.of(small, {'params': parts})(X),
    artefact.of(graph, {'params': tree.paths(params)})(X),
  )


@pytest.mark.slow
def test_codes_of_factors_are_those_of_the_layers() -> None:
  spec = net(conv(), sp.Norm(name='n1'))
  found = factored(
    spec, 'only("c1/kernel", lowrank.svd(2) >> quantize.uniform(4))'
  )
  small, lowered = lower(spec, found)
  node = tree.freeze(found['params'])['c1']['kernel']
  for field in ('u', 'v'):
    kernel = lowered['params'][f'c1_{field}/kernel']
    assert isinstance(kernel, Quantized)
    np.testing.assert_array_equal(kernel.codes, getattr(node, field).codes)
  assert_same_outputs(spec, found, (small, lowered))
  again = pack.unpack(pack.pack(small, lowered))
  assert_same_outputs(spec, found, (again.network, again.variables))


@pytest.mark.slow
def test_removed_channels_go_before_factors() -> None:
  text = 'prune.filters(share=0.5, multiple=1) >> lowrank.svd(1)'
  spec = net(conv(), sp.Act(), sp.Flatten(), sp.Dense(name='d1', features=3))
  found = one_shot(spec, text)
  small, lowered = lower(spec, found)
  assert lowered['params']['c1_v/kernel'].shape == (1, 1, 1, 2)
  assert_same_outputs(spec, found, (small, lowered))
