"""Integers compute what the network in floats does, to a last bit."""

import functools
from typing import Any

import numpy as np
import pytest

from compress import dataflow, tree
from compress.dataflow import Observer
from compress.quantize import affine
from tests.runs import NETWORKS, TINY, images, one_shot, turned
from tsukiji.deploy.integer import compile, reference
from tsukiji.deploy.integer.reference import RESCALED, ROUNDED, Integer
from tsukiji.deploy.passes.lower import lower
from tsukiji.graph import evaluate
from tsukiji.graph.nodes import Graph, Node
from tsukiji.models import spec as sp
from tsukiji.models.outside import spec_of

TWO = sp.Spec(
  name='two',
  input_shape=(6, 6, 2),
  layers=(
    sp.Standardise(mean=(0.1, 0.2), std=(0.9, 1.1)),
    sp.Conv(name='conv', features=4, kernel=(3, 3), padding='SAME', groups=2),
    sp.Norm(name='norm'),
    sp.Act(),
    sp.Pool(kind='mean'),
    sp.Branch(
      paths=(
        (sp.Conv(name='left', features=3, kernel=(1, 1)), sp.Act()),
        (sp.Conv(name='right', features=5, kernel=(1, 1)), sp.Act()),
        (),
      ),
      merge='concat',
    ),
    sp.Flatten(),
    sp.Dropout(rate=0.5),
    sp.Dense(name='fc', features=3),
  ),
)
SPECS = {'resnet': NETWORKS['resnet'], 'tiny': TINY, 'two': TWO}


@functools.cache
def both(name: str, text: str = 'quantize.int8()') -> tuple[Any, ...]:
  """Return a lowered network, and the same in integers."""
  graph, variables = lower(SPECS[name], one_shot(SPECS[name], text))
  return graph, variables, compile.compiled(graph, variables)


def floats(graph: Graph, variables: Any, x: Any) -> dataflow.Observed:
  """Return the outputs of a network in floats, and the inputs of products."""
  params = variables['params']
  return dataflow.observed(
    lambda dense, x: evaluate.run(graph, dense, x),
    tree.decode(params),
    (x,),
    dataflow.transforming(params),
    Observer(lambda product, x: x, lambda before, x: x, lambda x, own: x),
  )


def assert_close(
  network: Integer, want: Any, x: Any, most: float = 0.03
) -> None:
  """Compare outputs in integers with those in floats."""
  codes = network(np.asarray(x))
  assert codes.dtype == np.int32
  error = np.abs(codes * network.scale - want).max(axis=1)
  size = np.abs(want).max()
  # One code of an inner layer moves a logit by a part of its own grid.
  assert np.mean(error < 1e-4 * size) > 0.5
  assert error.max() < most * size


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(SPECS))
def test_logits_are_those_of_the_network(name: str) -> None:
  graph, variables, network = both(name)
  x = images(SPECS[name], 32)
  assert_close(network, floats(graph, variables, x).outputs, x)


def inputs_of(
  name: str, layer: str, text: str = 'quantize.int8()'
) -> tuple[np.ndarray, np.ndarray]:
  """Return the codes that a layer takes in: in floats, and in integers."""
  graph, variables, network = both(name, text)
  x, path = images(SPECS[name], 32), f'{layer}/kernel'
  met = floats(graph, variables, x).stats[path]
  inputs = variables['params'][path].inputs
  step, zero = affine.asymmetric_scale(inputs.low, inputs.high, inputs.bits)
  want = np.clip(np.round(met / step) + zero, 0, 2**inputs.bits - 1) - zero
  product = network.graph.nodes[network.products[path]]
  return want, reference.run(network.graph, x)[product.inputs[0]]


def test_codes_differ_by_one_at_most() -> None:
  want, got = inputs_of('tiny', 'conv')
  np.testing.assert_array_equal(got, want)
  want, got = inputs_of('tiny', 'fc')
  assert np.abs(got - want).max() <= 1
  assert np.mean(got == want) > 0.999


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(SPECS))
def test_behind_the_images_there_are_no_floats(name: str) -> None:
  graph = both(name)[2].graph
  values = reference.run(graph, images(SPECS[name], 4))
  first = next(i for i, x in enumerate(graph.nodes) if x.op == ROUNDED)
  for node, value in zip(graph.nodes[first:], values[first:], strict=True):
    assert value.dtype == np.int32
    for part in node.inputs if node.op != ROUNDED else ():
      assert not isinstance(part, np.ndarray) or part.dtype == np.int32


@pytest.mark.parametrize(
  'text',
  [
    'prune.weights(0.5) >> quantize.uniform(3, 4)',
    'quantize.uniform(4, 6, per="tensor", symmetric=False)',
    'quantize.dorefa(4, 4)',
  ],
)
def test_pruned_and_narrow_networks_are_integers_too(text: str) -> None:
  graph, variables, network = both('tiny', text)
  x = images(TINY, 32)
  assert_close(network, floats(graph, variables, x).outputs, x, most=1.0)


def test_channels_may_be_negated_or_be_a_bias_only() -> None:
  graph, small = turned()
  x = images(TINY, 32)
  network = compile.compiled(graph, small)
  assert_close(network, floats(graph, small, x).outputs, x)


def refused(graph: Graph, variables: Any, message: str) -> None:
  """Expect an error."""
  with pytest.raises(ValueError, match=f'integer at {message}'):
    compile.compiled(graph, variables)


def test_kernels_without_codes_are_refused() -> None:
  for text, message in (
    ('', 'conv: expected a quantized kernel, got .Array'),
    ('quantize.uniform(8)', 'conv: expected an input grid, got None'),
    ('quantize.uniform(8, 8, per=4)', 'conv: expected a step a channel'),
  ):
    refused(*lower(TINY, one_shot(TINY, text)), message)
  graph, variables, _ = both('tiny', 'quantize.dorefa(4, 4)')
  node = variables['params']['conv/kernel']
  odd = {'conv/kernel': node.replace(zero=node.zero + 0.25)}
  message = 'conv: expected a zero point of whole or half codes, got'
  refused(graph, {'params': {**variables['params'], **odd}}, message)


def test_operators_that_integers_cannot_do_are_refused() -> None:
  graph, given, _ = both('tiny')

  def edited(old: str, new: str, *inputs: Any) -> Graph:
    nodes = (
      Node(new, (*x.inputs[:1], *inputs)) if x.op == old else x
      for x in graph.nodes
    )
    return graph._replace(nodes=tuple(nodes))

  refused(edited('max', 'tanh'), given, 'tanh behind conv: expected maxima')
  early = Node('max', ('@0', np.zeros((), np.float32)))
  first = Graph((early,), (0,), graph.inputs)
  message = 'the input: expected a layer with weights, got .max'
  refused(first, {'params': {}}, message)
  none = Graph((Node('neg', ('@0',)),), ('@0',), graph.inputs)
  refused(none, {'params': {}}, 'the output: expected a layer with weights')
  twice = graph._replace(outputs=(*graph.outputs, *graph.outputs))
  refused(twice, given, 'the ends: expected an input and an output')


def test_accumulators_that_could_overflow_are_refused() -> None:
  found = lower(TINY, one_shot(TINY, 'quantize.uniform(16, 16)'))
  refused(*found, 'conv: expected sums of at most 31 bits')


def test_operations_are_few_and_in_order() -> None:
  network = both('tiny')[2]
  assert isinstance(network, Integer)
  kinds = [x.op for x in network.graph.nodes]
  layer = ('mul', 'add')  # a shift and a bias
  assert kinds == [
    *(ROUNDED, 'conv', *layer, 'max', 'reshape'),
    *(RESCALED, 'dot', *layer, RESCALED),
  ]


def own(function: str) -> sp.Spec:
  """Return a network from outside."""
  moments = ((0.1,), (0.9,))
  return spec_of(f'tests.outside:{function}', (10, 10, 1), 3, moments)


@pytest.mark.slow
def test_own_networks_are_integers_too() -> None:
  spec = own('plain')
  graph, variables = lower(spec, one_shot(spec, 'quantize.int8()'))
  network, x = compile.compiled(graph, variables), images(spec, 32)
  assert_close(network, floats(graph, variables, x).outputs, x)
  paths = ('conv0', 'conv1', 'head')
  assert [*network.products] == [f'net/{path}/kernel' for path in paths]


@pytest.mark.slow
def test_own_operators_are_named_where_they_are_refused() -> None:
  for function, message in (
    ('residual', 'ipow behind net/stem: expected maxima, sums and layers'),
    ('recurrent', 'the input: expected a layer with weights, got .broadcast'),
  ):
    spec = own(function)
    refused(*lower(spec, one_shot(spec, 'quantize.int8()')), message)
