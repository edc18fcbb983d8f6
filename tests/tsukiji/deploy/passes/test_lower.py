"""Lowering: fewer operations, the same outputs."""

import collections
import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import compress
from compress import dataflow, recipe, tree
from compress.channels.sliced import Sliced
from compress.method import Ctx, Method
from compress.prune.magnitude import Masked
from compress.quantize.integer_codes import Quantized
from tests import runs
from tests.runs import TINY
from tests.tsukiji.models.test_net import images, variables
from tests.tsukiji.models.test_own import NAMES, X, built
from tests.tsukiji.models.test_spec import PATIENT, network, specs
from tsukiji.config import settings as settings_
from tsukiji.data.datasets import Split
from tsukiji.deploy import artefact
from tsukiji.deploy.integer import compile
from tsukiji.deploy.passes import fold
from tsukiji.deploy.passes.lower import captured, lower
from tsukiji.deploy.tsk import pack
from tsukiji.graph.nodes import Graph
from tsukiji.measure import cost, energy
from tsukiji.models import net as net_lib
from tsukiji.models import spec as sp
from tsukiji.models import zoo
from tsukiji.models.spec import Spec
from tsukiji.training import evaluate, optimizer, probe
from tsukiji.training import step as step_lib


def outputs(spec: Spec, found: dict[str, Any], x: np.ndarray) -> np.ndarray:
  """Apply a network to nodes and arrays as it is served."""

  @jax.jit
  def run(found: dict[str, Any], x: Any) -> Any:
    apply = evaluate.applied(spec, found['batch_stats'])
    return dataflow.apply(apply, found['params'], x)

  return np.asarray(run(found, x))


def assert_same_outputs(
  spec: Spec, found: dict[str, Any], lowered: tuple[Graph, dict[str, Any]]
) -> None:
  x = images(spec, 4)
  before, after = outputs(spec, found, x), artefact.of(*lowered)(x)
  np.testing.assert_allclose(
    after, before, rtol=1e-4, atol=1e-5 * np.abs(before).max()
  )


def trained(spec: Spec, start: dict[str, Any], method: Method) -> Any:
  """Return the variables after a few steps on noise."""
  data = Split(
    np.asarray(runs.images(spec, 16)), np.arange(16, dtype=np.int32) % 3
  )
  chosen = settings_.training(optimizer='sgd', lr=0.01)
  plan = step_lib.Plan(spec, method, optimizer.from_settings(chosen, 3), 3)
  state = step_lib.init_state(plan, start, 0, probe.probe(spec, start, data))
  state = jax.tree.map(jnp.array, state)  # the step donates its argument
  state = step_lib.run_steps(plan, state, data, 3, batch_size=8, seed=0)
  return state.variables


def ops(graph: Graph) -> collections.Counter[str]:
  """Return how often each operator is there."""
  return collections.Counter(node.op for node in graph.nodes)


def signed(spec: Spec) -> dict[str, Any]:
  """Draw variables with weights of both signs and gains of both."""
  found = variables(spec)
  found['params'] = jax.tree.map(lambda x: (x - 0.6) / 2, found['params'])
  return found


# A pool stands between weight and norm where signs follow the norm.
APART = {'binary_googlenet', 'binary_tsukijinet'}


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted({*zoo.NETWORKS} - APART))
def test_every_norm_of_the_zoo_folds(name: str) -> None:
  shape = (16, 16, 1) if name == 'lenet5' else (8, 8, 1)
  spec = zoo.build(name, shape, 10, ((128.0,), (70.0,)))
  found = signed(spec)
  small, folded = lower(spec, found)
  ends = {path.rpartition('/')[2] for path in folded['params']}
  assert ends <= {'kernel', 'bias', 'slope', 'before', 'after'}
  layers = [s.layer for s in sp.walk(spec)]
  assert ops(small)['conv'] == sum(isinstance(x, sp.Conv) for x in layers)
  assert_same_outputs(spec, found, (small, folded))


@pytest.mark.slow
@settings(PATIENT, max_examples=15)
@given(specs())
def test_any_network_keeps_its_outputs(spec: Spec) -> None:
  found = variables(spec)
  small, folded = lower(spec, found)
  assert len(small.nodes) <= len(captured(spec, found)[0].nodes)
  assert_same_outputs(spec, found, (small, folded))


NORM = sp.Norm(name='n1')
CONV = sp.Conv(name='c1', features=3, kernel=(3, 3), bias=False)
CONV_2 = sp.Conv(name='c2', features=3, kernel=(3, 3))


@pytest.mark.parametrize(
  ('layers', 'left'),
  [
    ((CONV, NORM), 0),
    ((sp.Flatten(), sp.Dense(name='d1', features=4), NORM), 0),
    ((NORM, CONV), 1),
    ((CONV, sp.Act(fn='tanh'), NORM), 1),
    ((CONV, sp.Pool(), NORM), 1),
    ((CONV, NORM, sp.Norm(name='n2')), 0),
    ((CONV, sp.Branch(paths=((NORM,), ()))), 1),
    ((sp.Branch(paths=((CONV, NORM),)),), 0),
    ((sp.Branch(paths=((CONV,),)), NORM), 0),
    ((sp.Branch(paths=((CONV,), (CONV_2,))), NORM), 1),
  ],
)
def test_norms_fold_into_the_weight_right_before(
  layers: tuple[sp.Layer, ...], left: int
) -> None:
  spec = network(*layers)
  found = signed(spec)
  small, folded = lower(spec, found)
  # A norm that stays is one factor and one term a channel.
  assert ops(small)['mul'] == left
  assert sum(path.endswith('/scale') for path in folded['params']) == left
  assert_same_outputs(spec, found, (small, folded))


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_16_bit_floats_stay_16_bits(dtype: str) -> None:
  found = signed(TINY)
  narrow = found['params'] | {
    'conv': {'kernel': found['params']['conv']['kernel'].astype(dtype)}
  }
  small, folded = lower(TINY, {**found, 'params': narrow})
  assert not ops(small)['mul']
  assert_same_outputs(TINY, {**found, 'params': narrow}, (small, folded))
  # Against a kernel of float32: 2 bytes fewer for each of 9 x 4 weights, and a
  # gain for each of 4 channels.
  wide = lower(TINY, found)[1]
  size = lambda x: sum(y.nbytes for y in jax.tree.leaves(x))  # noqa: E731
  assert size(folded) == size(wide) - 2 * 36 + 4 * 4


def test_folding_is_its_formula() -> None:
  spec = network(CONV, sp.Norm(name='n1', epsilon=0.5))
  found = signed(spec)
  small, folded = lower(spec, found)
  affine, observed = found['params']['n1'], found['batch_stats']['n1']
  gain = affine['scale'] / np.sqrt(observed['var'] + 0.5)
  got = folded['params']
  np.testing.assert_allclose(
    got['c1/kernel'], found['params']['c1']['kernel'] * gain, rtol=1e-6
  )
  np.testing.assert_allclose(
    got['c1/bias'],
    affine['bias'] - observed['mean'] * gain,
    rtol=1e-5,
    atol=1e-6,
  )
  assert ops(small) == {'conv': 1, 'add': 1}


TWO = network(
  sp.Conv(name='c1', features=4, kernel=(3, 3)),
  sp.Norm(name='n1'),
  sp.Act(),
  sp.Flatten(),
  sp.Dense(name='d1', features=5),
  sp.Norm(name='n2'),
)


def compressed(text: str) -> dict[str, Any]:
  """Return signed variables of `TWO` after a recipe."""
  found = jax.tree.map(jnp.asarray, signed(TWO))
  ranges = {'c1/kernel': np.float32([0, 255]), 'd1/kernel': np.float32([0, 9])}
  ctx = Ctx(key=jax.random.key(0), stats=ranges)
  return found | {'params': recipe.parse(text).init(found['params'], ctx)}


@pytest.mark.slow
@pytest.mark.parametrize(
  'text',
  [
    'quantize.int8()',
    'quantize.uniform(3)',
    'prune.weights(0.5) >> quantize.int8()',
  ],
)
def test_codes_stay_as_they_are(text: str) -> None:
  found = compressed(text)
  small, folded = lower(TWO, found)
  frozen = tree.freeze(found['params'])
  assert not ops(small)['mul']
  for name in ('c1', 'd1'):
    before, after = frozen[name]['kernel'], folded['params'][f'{name}/kernel']
    assert isinstance(after, Quantized)
    np.testing.assert_array_equal(after.codes, before.codes, strict=True)
    for bound in ('low', 'high'):
      assert getattr(after.inputs, bound, 0) == getattr(before.inputs, bound, 0)
    assert not np.array_equal(after.scale, before.scale)
  assert_same_outputs(TWO, found, (small, folded))


def test_zeros_stay_zeros_and_masks_are_gone() -> None:
  found = compressed('prune.weights(0.75)')
  small, folded = lower(TWO, found)
  assert not tree.find(Masked, folded['params'])
  for name in ('c1', 'd1'):
    mask = found['params'][name]['kernel'].mask
    np.testing.assert_array_equal(folded['params'][f'{name}/kernel'] != 0, mask)
  assert_same_outputs(TWO, found, (small, folded))


def test_a_node_that_cannot_scale_keeps_its_norm(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  found = compressed('quantize.int8()')
  monkeypatch.setattr(Quantized, 'scale_channels', lambda node, gain: None)
  small, folded = lower(TWO, found)
  assert folded['params'].keys() == {
    f'{name}{i}/{end}'
    for name, ends in (
      ('c', ['kernel']),
      ('d', ['kernel']),
      ('n', ['scale', 'bias']),
    )
    for end in ends
    for i in (1, 2)
    if f'{name}{i}' not in ('c2', 'd2')
  }
  assert_same_outputs(TWO, found, (small, folded))


@pytest.mark.slow
def test_what_is_trained_folded_is_what_is_served() -> None:
  spec, start = fold.folded(TINY, runs.start(TINY))
  step_a_tensor = 'quantize.uniform(8, 8, per="tensor")'
  found = trained(spec, start, recipe.parse(step_a_tensor))
  small, served = lower(spec, found)
  assert served['params']['conv/kernel'].scale.shape == ()
  shipped = pack.unpack(pack.pack(small, served))
  x = np.asarray(runs.images(spec, 16))
  want = outputs(spec, found, x)
  got = artefact.of(shipped.network, shipped.variables)(x)
  np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
  network = compile.compiled(shipped.network, shipped.variables)
  error = np.abs(network(x) * network.scale - want).max(axis=1)
  size = np.abs(want).max()
  # Where no rounding falls on the other side of a tie: see `deploy.integer`.
  assert np.mean(error < 1e-4 * size) > 0.5
  assert error.max() < 0.03 * size


@pytest.mark.parametrize('text', ['', 'prune.weights(0.5) >> quantize.int8()'])
def test_the_input_is_not_changed(text: str) -> None:
  found = compressed(text)
  before = copy.deepcopy(found)
  lower(TWO, found)
  assert jax.tree.structure(found) == jax.tree.structure(before)
  jax.tree.map(np.testing.assert_array_equal, found, before)


def varied(name: str) -> tuple[Any, Any]:
  """Return a network whose statistics are not those of the start."""
  spec = built(name)
  variables = net_lib.init_variables(spec, 0)
  stats = jax.tree.map(
    lambda x: x + jnp.linspace(0.1, 0.5, x.size), variables['batch_stats']
  )
  return spec, {**variables, 'batch_stats': stats}


@pytest.mark.parametrize('name', NAMES)
def test_the_graph_computes_what_the_network_does(name: str) -> None:
  spec, variables = varied(name)
  graph, small = lower(spec, variables)
  assert isinstance(graph, Graph)
  want = evaluate.predictor(spec, variables)(X)
  np.testing.assert_allclose(
    artefact.of(graph, small)(X), want, rtol=1e-5, atol=1e-5
  )
  found = evaluate.predictor(graph, small)(X)
  np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
  assert cost.macs(spec) == cost.macs(graph, small['params'])
  assert energy.model(graph, small['params'], 100).compute > 0


def cut(text: str, name: str = 'plain') -> tuple[Any, Any, Any]:
  """Return a network, its variables, and those with channels removed."""
  spec, variables = varied(name)
  run = evaluate.applied(spec, variables.get('batch_stats', {}))

  def loss(params: Any, x: Any) -> Any:
    return jnp.mean(run(params, x) ** 2)

  probe = compress.probe(run, variables['params'], X, loss=loss, batch=X)
  method = compress.parse(text)
  params = compress.init(method, variables['params'], probe, steps=0)
  return spec, variables, {**variables, 'params': params}


FILTERS = 'prune.filters(macs=0.5, multiple=2)'


@pytest.mark.parametrize('name', ['plain', 'turned'])
@pytest.mark.parametrize('text', [FILTERS, f'{FILTERS} >> quantize.int8()'])
def test_removed_channels_are_gone(text: str, name: str) -> None:
  """By an edit of weights and statistics alone: sizes follow."""
  spec, dense, variables = cut(text, name)
  assert tree.find(Sliced, variables['params'])
  graph, small = lower(spec, variables)
  want = evaluate.predictor(spec, variables)(X)
  np.testing.assert_allclose(
    artefact.of(graph, small)(X), want, rtol=1e-4, atol=1e-5
  )
  whole, full = lower(spec, dense)
  assert cost.macs(graph, small['params']) <= 0.51 * cost.macs(
    whole, full['params']
  )
  if text == FILTERS:  # a grid stays in front of the first layer
    assert graph.nodes[0] == whole.nodes[0]


def test_channels_that_cannot_go_are_said() -> None:
  spec, _, variables = cut(FILTERS)
  head = variables['params']['net']['head']
  head['kernel'] = tree.decode(head['kernel'])  # still of all channels
  with pytest.warns(UserWarning, match='expected channels that can go'):
    graph, small = lower(spec, variables)
  want = evaluate.predictor(spec, variables)(X)
  np.testing.assert_allclose(artefact.of(graph, small)(X), want, atol=1e-5)
