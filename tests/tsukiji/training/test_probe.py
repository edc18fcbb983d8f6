"""What a probe says is what the network does on the calibration examples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compress import dataflow, method, probing, tree
from compress.method import Ctx
from compress.quantize.uniform import uniform
from tests.runs import NETWORKS, TINY, images, run, single_gradients, start
from tsukiji.data.datasets import Split
from tsukiji.measure import cost
from tsukiji.models import zoo
from tsukiji.training import probe

EXAMPLES = 16


def probed(**changes):
  x = np.asarray(images(TINY, EXAMPLES))
  split = Split(x, np.arange(EXAMPLES) % 3)
  return probe.probe(TINY, start(TINY), split, **changes)


@pytest.mark.slow
def test_loss_is_the_mean_over_the_examples():
  logits, _ = run(TINY, start(TINY), EXAMPLES)
  labels = jnp.arange(EXAMPLES) % 3
  want = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  params = start(TINY)['params']
  assert float(probed().loss(params)) == pytest.approx(
    float(want.mean()), rel=1e-5
  )
  few = probed(examples=5).loss(params)
  assert float(few) == pytest.approx(float(want[:5].mean()), rel=1e-5)


def test_the_gradient_is_the_mean_of_those_of_single_examples():
  params = start(TINY)['params']
  each = single_gradients(TINY, EXAMPLES)
  for mean, stacked in zip(
    jax.tree.leaves(probed().grad(params)), jax.tree.leaves(each), strict=True
  ):
    np.testing.assert_allclose(stacked.mean(0), mean, atol=1e-6)


def moments(weights, gradients):
  """Return what a statistic may: sums over examples of any function."""
  return {
    'square': {p: (g**2).sum(0) for p, g in gradients.items()},
    'change': ((gradients['fc/kernel'] * weights['fc/kernel']) ** 2).sum(0),
  }


@pytest.mark.slow
@pytest.mark.parametrize('count', [7, EXAMPLES, 100])
def test_statistics_of_single_gradients_are_means(count):
  params, paths = start(TINY)['params'], ('conv/kernel', 'fc/kernel')
  found = probed().reduce(params, paths, moments, count)
  each = tree.paths(single_gradients(TINY, min(count, EXAMPLES)))
  assert set(found['square']) == set(paths)
  for path in paths:
    want = np.mean(np.square(each[path]), 0)
    np.testing.assert_allclose(found['square'][path], want, rtol=1e-4)
  change = np.square(each['fc/kernel'] * params['fc']['kernel']).mean(0)
  np.testing.assert_allclose(found['change'], change, rtol=1e-4)


def largest(jaxpr):
  """Return the size of the largest value in a program."""
  inner = [
    largest(x.jaxpr)
    for eqn in jaxpr.eqns
    for x in jax.tree.leaves(
      list(eqn.params.values()), is_leaf=lambda x: hasattr(x, 'jaxpr')
    )
    if hasattr(x, 'jaxpr')
  ]
  return max([v.aval.size for e in jaxpr.eqns for v in e.outvars] + inner)


def test_statistics_take_no_memory_for_more_examples():
  x = np.asarray(images(TINY, 128))
  requested = probe.probe(TINY, start(TINY), Split(x, np.arange(128) % 3))
  params, paths = start(TINY)['params'], ('conv/kernel', 'fc/kernel')
  sizes = [
    largest(
      jax.make_jaxpr(lambda p, n=n: requested.reduce(p, paths, moments, n))(
        params
      ).jaxpr
    )
    for n in (32, 128)
  ]
  assert sizes[0] < 32 * 108  # gradients of fc/kernel
  assert sizes[1] == 128 * 25 > sizes[0]  # the examples themselves


def test_parts_of_large_gradients_are_smaller(monkeypatch):
  params, paths = start(TINY)['params'], ('conv/kernel', 'fc/kernel')
  expected = probed().reduce(params, paths, moments, 32)
  numbers = sum(tree.paths(params)[path].size for path in paths)
  asked = []

  def counted(weights, gradients):
    asked.append(len(gradients['fc/kernel']))
    return moments(weights, gradients)

  for limit, size in ((5 * numbers, 4), (numbers - 1, 1)):
    monkeypatch.setattr(probing, 'NUMBERS', limit)
    found = probed().reduce(params, paths, functools.partial(counted), 32)
    assert {*asked} == {size}
    asked.clear()
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected
    )


def test_missing_leaves_are_those_of_the_network():
  params = start(TINY)['params']
  part = tree.map_paths(
    lambda path, x: 0 * x if path == 'fc/kernel' else None, params
  )
  full = {**params, 'fc': {**params['fc'], 'kernel': jnp.zeros((36, 3))}}
  requested = probed()
  assert float(requested.loss(part)) == float(requested.loss(full))
  assert float(requested.loss(part)) != float(requested.loss(params))
  np.testing.assert_array_equal(
    *(requested.apply(x, *requested.examples) for x in (part, full))
  )


def test_inputs_are_observed_in_parts_and_in_order(monkeypatch):
  monkeypatch.setattr(probing, 'PART', 4)
  params = start(TINY)['params']
  found = probed().observe(params, dataflow.EXTENT, 10)
  assert list(found) == ['conv/kernel', 'fc/kernel']
  _, stats = run(TINY, start(TINY), 8)  # two whole parts of 4
  for path, ends in found.items():
    assert ends.shape == (2, 2)
    full = [ends[:, 0].min(), ends[:, 1].max()]
    np.testing.assert_allclose(full, stats[path], atol=1e-6)
  grids = uniform(2, 2).init(params, Ctx(stats=stats))
  fine, coarse = (
    probed().observe(x, dataflow.EXTENT, 4)['fc/kernel']
    for x in (params, grids)
  )
  assert np.any(coarse != fine)


@pytest.mark.parametrize('name', sorted(NETWORKS))
def test_uses_make_the_multiplications(name):
  spec = NETWORKS[name]
  sizes = {
    path: x.size for path, x in tree.paths(start(spec)['params']).items()
  }
  found = probe.weights(spec)
  assert found.keys() == {p for p in sizes if p.endswith('/kernel')}
  total = sum(sizes[path] * weight.uses for path, weight in found.items())
  assert total == cost.macs(spec)


def test_uses_of_tsukijinet():
  found = probe.weights(zoo.tsukijinet((28, 28, 1), 10))
  assert {path: weight.uses for path, weight in found.items()} == {
    'conv1/kernel': 24 * 24,
    'conv2/kernel': 8 * 8,
    'dense1/kernel': 1,
    'dense2/kernel': 1,
  }


def test_a_method_that_needs_data_says_so():
  with pytest.raises(ValueError, match='score.taylor: expected calibration'):
    method.expect_probe('score.taylor', Ctx())


def test_ranges_are_those_of_the_given_weights() -> None:
  params = start(TINY)['params']
  twice = tree.map_paths(lambda _, x: 2 * x, params)
  requested = probed()
  _, want = run(TINY, start(TINY) | {'params': twice}, EXAMPLES)
  same = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
  jax.tree.map(same, requested.ranges(twice), want)
  own = requested.ranges(tree.map_paths(lambda *_: None, params))
  jax.tree.map(same, own, requested.ranges(params))


def test_ranges_are_those_of_every_example(monkeypatch) -> None:
  monkeypatch.setattr(probing, 'PART', 6)  # 16 are two parts, and a rest
  params = start(TINY)['params']
  x = np.asarray(images(TINY, EXAMPLES)).copy()
  x[-1] *= 100
  found = probe.probe(TINY, start(TINY), Split(x, np.zeros(EXAMPLES, int)))
  ends = found.ranges(params)['conv/kernel']
  np.testing.assert_allclose(ends, [x.min(), x.max()], rtol=1e-6)
