"""Rounding with data against slow and plain loops, and what it gains."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import calibration, recipe, tree
from compress.method import Ctx
from compress.quantize import affine, rounding
from compress.quantize.adaround import adaround, fastest, learned
from compress.quantize.coordinate_descent import descended
from compress.quantize.gptq import compensated, gptq
from compress.quantize.integer_codes import Quantized, Shifted
from compress.quantize.rounding import Layer
from compress.quantize.uniform import uniform
from tests.nets import sites_with
from tests.runs import TINY, calibrated, start

BITS = 3
TOP = 2 ** (BITS - 1) - 1


def problem(n: int = 9, m: int = 4, seed: int = 0) -> tuple[np.ndarray, ...]:
  """Return weights, their step and the Gram matrix of correlated inputs."""
  drawn = np.random.default_rng(seed)
  x = drawn.normal(size=(50, n)) @ drawn.normal(size=(n, n))
  w = drawn.normal(size=(n, m))
  step = np.abs(w).max(axis=0) / TOP
  return w, np.broadcast_to(step, w.shape), x.T @ x


def by_elimination(
  w: np.ndarray, step: np.ndarray, h: np.ndarray, damping: float
) -> np.ndarray:
  """Return OBQ's codes in the fixed order, H inverted anew at every input."""
  h = h / np.mean(np.diag(h)) + damping * np.eye(len(h))
  w, codes = w.copy(), np.zeros(w.shape)
  left = sorted(range(len(w)), key=lambda i: -h[i, i])
  while left:
    i, inverse = left[0], np.linalg.inv(h[np.ix_(left, left)])
    codes[i] = np.clip(np.round(w[i] / step[i]), -TOP, TOP)
    error = (w[i] - step[i] * codes[i]) / inverse[0, 0]
    w[left] -= np.outer(inverse[:, 0], error)
    left = left[1:]
  return codes


def squared_error(codes: np.ndarray, problem: tuple[np.ndarray, ...]) -> float:
  """Return the squared error of the outputs."""
  w, step, h = problem
  delta = step * codes - w
  return float(np.trace(delta.T @ h @ delta))


def rounded(rounder: Any, found: tuple[np.ndarray, ...], **how: Any) -> Any:
  """Return the codes of one group."""
  w, step, h = (jnp.float32(x)[None] for x in found)
  keep, zero = jnp.asarray(w != 0), jnp.zeros_like(w)
  codes = rounder(Layer(w, step, zero, keep, h), ends=(-TOP, TOP), **how)
  return np.asarray(codes[0])


@pytest.mark.parametrize('seed', range(4))
def test_gptq_is_the_slow_elimination(seed: int) -> None:
  found = problem(seed=seed)
  codes = rounded(compensated, found, damping=0.01)
  np.testing.assert_array_equal(codes, by_elimination(*found, 0.01))


def test_gptq_in_blocks_is_the_slow_elimination() -> None:
  found = problem(130, 3)  # two blocks of inputs, the last one short
  codes = rounded(compensated, found, damping=0.1)
  want = by_elimination(*found, 0.1)
  # Rounding errors may turn a code, which moves those after it.
  assert np.mean(codes != want) < 0.05
  assert squared_error(codes, found) < 1.05 * squared_error(want, found)


@pytest.mark.parametrize('seed', range(4))
def test_all_beat_rounding_to_nearest(seed: int) -> None:
  found = problem(24, 4, seed)
  w, step, _ = found
  nearest = squared_error(np.clip(np.round(w / step), -TOP, TOP), found)
  one = rounded(compensated, found, damping=0.01)
  other = rounded(learned, found, steps=300, lr=0.02)
  assert squared_error(one, found) < 0.7 * nearest
  assert squared_error(other, found) < 0.7 * nearest
  third = rounded(descended, found)
  assert squared_error(third, found) < 0.7 * nearest
  # Up or down, no further.
  assert np.all(np.abs(other - w / step) < 1)
  assert np.all(np.abs(third - w / step) < 1 + 1e-6)


def test_learned_rounding_is_near_the_best_of_all() -> None:
  found = problem(6, 1)
  w, step, _ = found
  floor = np.floor(w / step)
  ups = (np.arange(64)[:, None] >> np.arange(6)) & 1
  best = min(
    squared_error(np.clip(floor + up[:, None], -TOP, TOP), found) for up in ups
  )
  codes = rounded(learned, found, steps=500, lr=0.02)
  assert squared_error(codes, found) <= 1.3 * best


def test_no_single_change_improves_what_has_descended() -> None:
  found = problem(150, 3)  # three blocks of inputs, the last one short
  w, step, _ = found
  codes = rounded(descended, found)
  floor, best = np.floor(w / step), squared_error(codes, found)
  better = 0
  for at in np.ndindex(w.shape):
    other = codes.copy()
    other[at] = 2 * floor[at] + 1 - codes[at]
    better += (
      abs(other[at]) <= TOP and squared_error(other, found) < 0.999 * best
    )
  assert better <= 2  # a few sweeps nearly converge


def test_large_weights_are_rounded_by_coordinate_descent() -> None:
  found = problem(16, 2)
  few = rounded(fastest, found, steps=10, lr=0.05)
  np.testing.assert_array_equal(few, rounded(learned, found, steps=10, lr=0.05))
  many = rounded(fastest, found, steps=2**32, lr=0.05)
  np.testing.assert_array_equal(many, rounded(descended, found))
  assert squared_error(many, found) <= squared_error(few, found)


@pytest.mark.parametrize(('uses', 'passes'), [(1, 2), (2**40, 1)])
def test_large_networks_take_fewer_passes(uses: int, passes: int) -> None:
  ctx, observed = calibrated(TINY), []
  probe = ctx.probe
  assert probe and probe.observe

  def observe(*args: Any) -> Any:
    observed.append(args)
    return probe.observe(*args)

  counting = probe._replace(
    observe=observe, sites=sites_with(dict.fromkeys(probe.uses, uses))
  )
  params = start(TINY)['params']
  found = gptq(4).init(params, ctx._replace(probe=counting))
  assert len(observed) == 1 + passes  # one more for the order
  assert len(tree.find(Quantized, found)) == 2


def test_uncorrelated_inputs_are_rounded_to_nearest() -> None:
  w, step, _ = problem()
  found = (w, step, np.diag(np.arange(1.0, 10.0)))
  want = np.clip(np.round(w / step), -TOP, TOP)
  one = rounded(compensated, found, damping=0.01)
  other = rounded(learned, found, steps=100, lr=0.02)
  np.testing.assert_array_equal(one, want)
  np.testing.assert_array_equal(other, want)


@pytest.mark.slow
@pytest.mark.parametrize('how', ['gptq(3)', 'adaround(3, steps=150)'])
def test_layers_have_smaller_errors_in_the_network(how: str) -> None:
  ctx, params = calibrated(TINY), start(TINY)['params']
  nearest = uniform(3, clip='mse').init(params, ctx)
  done = recipe.parse(f'quantize.{how}').init(params, ctx)
  moments = calibration.moments('here', ctx, params, 32)
  total = [0.0, 0.0]
  for path, found in moments.items():
    w = tree.paths(params)[path]
    groups, n, _ = found.square.shape
    for i, nodes in enumerate((nearest, done)):
      delta = tree.decode(tree.paths(nodes)[path]) - w
      cut = delta.reshape(n, groups, -1).swapaxes(0, 1)
      size = jnp.einsum('gim,gij,gjm->', cut, found.square, cut)
      full = w.reshape(n, groups, -1).swapaxes(0, 1)
      complete = jnp.einsum('gim,gij,gjm->', full, found.square, full)
      total[i] += float(size / complete)
  assert total[1] < 0.95 * total[0]
  assert {type(x) for x in tree.find(Quantized, done).values()} == {Quantized}
  biases = [p for p in tree.paths(params) if p.endswith('bias')]
  for path in biases:
    assert tree.paths(done)[path] is tree.paths(params)[path]


@pytest.mark.slow
@pytest.mark.parametrize('how', ['gptq', 'adaround'])
def test_what_is_pruned_stays_zero(how: str) -> None:
  text = f'prune.weights(0.5) >> quantize.{how}(4, symmetric=False, per=4)'
  params = recipe.parse(text).init(start(TINY)['params'], calibrated(TINY))
  for path, node in tree.find(Shifted, params).items():
    mask = tree.paths(params)[path].mask
    assert not np.any(node.decode()[~np.asarray(mask)])
    assert np.mean(node.decode() != 0) > 0.3


@pytest.mark.slow
def test_groups_of_a_convolution_are_rounded_on_their_own() -> None:
  one, other = problem(seed=1), problem(seed=2)
  w, step, h = (
    jnp.float32(np.stack(pair)) for pair in zip(one, other, strict=True)
  )
  # Kernels are [n, outputs of the first group, of the second].
  kernel = jnp.concatenate(list(w), axis=1)
  scale = jnp.concatenate([step[0, 0], step[1, 0]])
  near = affine.Coded(kernel, scale, None)
  rounder = functools.partial(compensated, ends=(-TOP, TOP), damping=0.01)
  codes = rounding.rounded(kernel, near, h, rounder).codes
  want = [by_elimination(*part, 0.01) for part in (one, other)]
  np.testing.assert_array_equal(codes, np.concatenate(want, axis=1))


def test_dead_inputs_and_dead_channels_are_no_trouble() -> None:
  w, step, h = problem()
  h[3], h[:, 3] = 0, 0
  w[:, 1] = 0
  for rounder, how in (
    (compensated, {'damping': 0.01}),
    (learned, {'steps': 20, 'lr': 0.01}),
    (descended, {}),
  ):
    for gram in (h, 0 * h):
      codes = rounded(rounder, (w, step, gram), **how)
      assert np.all(np.isfinite(codes))
      assert not np.any(codes[:, 1])


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('gptq(0)', 'gptq: expected weight_bits from 2 to 16, got 0'),
    ('adaround(33)', 'adaround: expected weight_bits from 2 to 16, got 33'),
    ('gptq(4, 1)', 'gptq: expected activation_bits from 2 to 16, got 1'),
    ('gptq(4, damping=0)', 'gptq: expected a positive damping, got 0'),
    ('adaround(4, steps=0)', 'adaround: expected steps above 0, got 0'),
    ('gptq(4, examples=0)', 'gptq: expected examples from 1, got 0'),
    ('gptq(4, per="row")', "gptq: expected per='tensor'"),
    ('adaround(4, clip="best")', 'adaround: expected a clip of'),
  ],
)
def test_impossible_arguments_are_refused(text: str, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    recipe.parse(f'quantize.{text}')


def test_without_data_there_is_no_rounding() -> None:
  params = start(TINY)['params']
  with pytest.raises(ValueError, match='gptq: expected calibration data'):
    gptq(4).init(params, Ctx())
  with pytest.raises(ValueError, match='gptq at conv/kernel: .*statistics'):
    ctx = calibrated(TINY)._replace(stats=None)
    gptq(4, 4).init(params, ctx)
  more = {'loose': jnp.ones((3, 4)), **params}
  with pytest.raises(ValueError, match='at loose: .*only those of conv/kernel'):
    gptq(4).init(more, calibrated(TINY))


def test_a_network_without_observed_layers_is_said_to_have_none() -> None:
  ctx, params = calibrated(TINY), start(TINY)['params']
  blind = ctx.probe._replace(observe=lambda params, observer, count: {})
  message = 'at conv/kernel: .*got only those of no weight. Leave'
  for method in (gptq(4), adaround(4)):
    with pytest.raises(ValueError, match=message):
      method.init(params, ctx._replace(probe=blind))


def test_what_is_left_of_a_layer_is_refused() -> None:
  both = recipe.parse(
    'prune.filters(share=0.5, multiple=1) >> quantize.gptq(4)'
  )
  with pytest.raises(ValueError, match='at conv/kernel: expected one array'):
    both.init(start(TINY)['params'], calibrated(TINY))


@pytest.mark.slow
def test_ranges_of_inputs_are_those_of_the_grid() -> None:
  ctx, params = calibrated(TINY), start(TINY)['params']
  done = gptq(4, 6).init(params, ctx)
  plain = uniform(4, 6).init(params, ctx)
  for path, node in tree.find(Quantized, done).items():
    jax.tree.map(
      np.testing.assert_array_equal, node.inputs, tree.paths(plain)[path].inputs
    )
