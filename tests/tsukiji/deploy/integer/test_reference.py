"""Integers compute what the network in floats does, to a last bit."""

import functools
from typing import Any

import numpy as np
import pytest

from compress import dataflow, tree
from compress.quantize import affine
from tests.runs import NETWORKS, TINY, images, one_shot, run, start, turned
from tsukiji.deploy.integer import compile, reference
from tsukiji.deploy.integer.reference import (
  Integer,
  Rescaled,
  Rounded,
  Weighted,
)
from tsukiji.deploy.passes.lower import lower
from tsukiji.models import spec as sp
from tsukiji.models.net import Net

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
  spec, variables = lower(SPECS[name], one_shot(SPECS[name], text))
  return spec, variables, compile.compiled(spec, variables)


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(SPECS))
def test_logits_are_those_of_the_network(name: str) -> None:
  spec, variables, network = both(name)
  want = np.asarray(run(spec, variables)[0])
  codes = network(np.asarray(images(spec, 32)))
  assert codes.dtype == np.int32
  error = np.abs(codes * network.scale - want).max(axis=1)
  size = np.abs(want).max()
  # One code of an inner layer moves a logit by a part of its own grid.
  assert np.mean(error < 1e-4 * size) > 0.5
  assert error.max() < 0.03 * size


def inputs_of(
  name: str, layer: str, text: str = 'quantize.int8()'
) -> tuple[np.ndarray, np.ndarray]:
  """Return the codes that a layer takes in: in floats, and in integers."""
  spec, variables, network = both(name, text)
  dense = {**variables, 'params': tree.decode(variables['params'])}
  _, met = dataflow.apply(
    lambda: Net(spec).apply(dense, images(spec, 32)),
    variables['params'],
    lambda before, module, x: x,
  )
  inputs = variables['params'][layer]['kernel'].inputs
  step, zero = affine.asymmetric_scale(inputs.low, inputs.high, inputs.bits)
  code = np.round(met[f'{layer}/kernel'] / step) + zero
  want = np.clip(code, 0, 2**inputs.bits - 1) - zero
  at = next(
    i
    for i, x in enumerate(network.operations)
    if isinstance(x, Weighted) and x.layer.name == layer
  )
  return want, reference.run(network.operations[:at], images(spec, 32))


def test_codes_differ_by_one_at_most() -> None:
  want, got = inputs_of('tiny', 'conv')
  np.testing.assert_array_equal(got, want)
  want, got = inputs_of('tiny', 'fc')
  assert np.abs(got - want).max() <= 1
  assert np.mean(got == want) > 0.999


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(SPECS))
def test_behind_the_images_there_are_no_floats(name: str) -> None:
  spec, _, network = both(name)

  def follow(operations: Any, x: np.ndarray) -> None:
    for operation in operations:
      x = reference.run((operation,), x)
      assert x.dtype == np.int32
      for part in operation if isinstance(operation, tuple) else ():
        if isinstance(part, np.ndarray):
          assert part.dtype == np.int32

  start_ = next(
    i for i, x in enumerate(network.operations) if isinstance(x, Rounded)
  )
  x = reference.run(network.operations[: start_ + 1], images(spec, 4))
  follow(network.operations[start_ + 1 :], np.asarray(x))


def test_pruned_and_narrow_networks_are_integers_too() -> None:
  for text in (
    'prune.weights(0.5) >> quantize.uniform(3, 4)',
    'quantize.uniform(4, 6, per="tensor", symmetric=False)',
    'quantize.dorefa(4, 4)',
  ):
    spec, variables = lower(TINY, one_shot(TINY, text))
    network = compile.compiled(spec, variables)
    want = np.asarray(run(spec, variables)[0])
    found = network(np.asarray(images(spec, 32))) * network.scale
    assert np.mean(np.abs(found - want) < 1e-4 * np.abs(want).max()) > 0.5


def test_channels_may_be_negated_or_be_a_bias_only() -> None:
  spec, small = turned()
  network = compile.compiled(spec, small)
  want = np.asarray(run(spec, small)[0])
  found = network(np.asarray(images(spec, 32))) * network.scale
  assert np.abs(found - want).max() < 0.03 * np.abs(want).max()


def refused(spec: sp.Spec, variables: Any, message: str) -> None:
  with pytest.raises(ValueError, match=f'integer at {message}'):
    compile.compiled(spec, variables)


def test_what_integers_cannot_do_is_refused() -> None:
  refused(TINY, start(TINY), 'conv: expected a quantized kernel, got .Array')
  for text, message in (
    ('quantize.uniform(8)', 'conv: expected an input grid, got None'),
    ('quantize.uniform(8, 8, per=4)', 'conv: expected a step a channel'),
  ):
    refused(TINY, one_shot(TINY, text), message)
  odd = one_shot(TINY, 'quantize.dorefa(4, 4)')
  params = tree.freeze(odd['params'])
  node = params['conv']['kernel']
  params['conv']['kernel'] = node.replace(zero=node.zero + 0.25)
  message = 'conv: expected a zero point of whole or half codes, got'
  refused(TINY, {**odd, 'params': params}, message)
  quantized = one_shot(TINY, 'quantize.int8()')
  refused(TINY, quantized, 'norm: expected relu, pools')
  spec, variables = lower(TINY, quantized)
  tanh = sp.map_layers(
    lambda x: sp.Act(fn='tanh') if isinstance(x, sp.Act) else x, spec
  )
  refused(tanh, variables, 'Act: expected relu, pools')
  early = sp.Spec(
    name='n', input_shape=(5, 5, 1), layers=(sp.Act(), *spec.layers)
  )
  refused(early, variables, 'the input: expected a layer with weights')
  none = sp.Spec(name='n', input_shape=(5, 5, 1), layers=(sp.Flatten(),))
  refused(none, {'params': {}}, 'n: expected a layer with weights, got')


def test_accumulators_that_could_overflow_are_refused() -> None:
  spec, variables = lower(TINY, one_shot(TINY, 'quantize.uniform(16, 16)'))
  refused(spec, variables, 'conv: expected sums of at most 31 bits')


def test_operations_are_few_and_in_order() -> None:
  kinds = [type(x).__name__ for x in both('tiny')[2].operations]
  assert kinds == [
    *('Rounded', 'Weighted', 'Act', 'Flatten'),
    *('Rescaled', 'Weighted', 'Rescaled'),
  ]
  assert isinstance(both('tiny')[2], Integer)
  assert isinstance(both('tiny')[2].operations[-1], Rescaled)
