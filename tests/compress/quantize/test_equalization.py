"""Equal channels keep the network; corrected biases keep its means."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe, tree
from compress.method import Ctx, only
from compress.quantize import equalization
from compress.quantize.uniform import uniform
from tests.nets import PAIR, PLAIN, groups
from tests.runs import TINY, calibrated, run, start
from tsukiji.data.datasets import Split
from tsukiji.models import spec as sp
from tsukiji.models.net import Net
from tsukiji.training import probe


def uneven() -> Any:
  """Return the weights of the pair with channels of very different size."""
  params = start(PAIR)['params']
  gain = jnp.array([0.01, 1.0, 10.0, 0.3])
  kernel, bias = params['conv']['kernel'], params['conv']['bias']
  into = params['mid']['kernel']  # [1 pixel x 4 channels, 5]
  return {
    **params,
    'conv': {'kernel': kernel * gain, 'bias': bias * gain},
    'mid': {**params['mid'], 'kernel': into / gain[:, None]},
  }


def test_one_sweep_is_the_equation_of_the_paper() -> None:
  params = uneven()
  group = groups(PAIR)[0]
  w1, w2 = (np.asarray(params[n]['kernel'], float) for n in ('conv', 'mid'))
  r1 = np.abs(w1).max(axis=(0, 1, 2))
  r2 = np.abs(w2).max(axis=1)
  s = np.sqrt(r1 * r2) / r2  # equation 11
  np.testing.assert_allclose(equalization.factors(params, group), s, rtol=1e-5)
  after = equalization.scaled(params, group, s)
  made = np.abs(after['conv']['kernel']).max(axis=(0, 1, 2))
  taken = np.abs(after['mid']['kernel']).max(axis=1)
  np.testing.assert_allclose(made, taken, rtol=1e-5)
  np.testing.assert_allclose(made, np.sqrt(r1 * r2), rtol=1e-5)


@pytest.mark.slow
def test_outputs_stay_and_grids_a_tensor_lose_less() -> None:
  ctx, params = calibrated(PAIR), uneven()
  after = equalization.cross_layer_equalization().init(params, ctx)
  want = run(PAIR, {**start(PAIR), 'params': params})[0]
  got = run(PAIR, {**start(PAIR), 'params': after})[0]
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)

  def error(params: Any) -> float:
    nodes = uniform(5, per='tensor').init(params, Ctx())
    found = run(PAIR, {**start(PAIR), 'params': nodes})[0]
    return float(jnp.sum((found - want) ** 2))

  assert error(after) < 0.2 * error(params)


def test_norms_are_scaled_in_place_of_the_layer_before() -> None:
  ctx, params = calibrated(TINY), start(TINY)['params']
  after = equalization.cross_layer_equalization(sweeps=1).init(params, ctx)
  np.testing.assert_array_equal(
    after['conv']['kernel'], params['conv']['kernel']
  )
  norm, fc = params['norm'], params['fc']['kernel']
  r1 = np.abs(norm['bias']) + 3 * np.abs(norm['scale'])
  r2 = np.abs(fc).reshape(9, 4, 3).max(axis=(0, 2))
  s = np.sqrt(r1 / r2)
  np.testing.assert_allclose(after['norm']['bias'], norm['bias'] / s, rtol=1e-5)
  np.testing.assert_allclose(
    after['fc']['kernel'],
    (fc.reshape(9, 4, 3) * s[:, None]).reshape(36, 3),
    rtol=1e-5,
  )
  want, got = (
    run(TINY, {**start(TINY), 'params': p})[0] for p in (params, after)
  )
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_channels_behind_a_tanh_stay() -> None:
  ctx, params = calibrated(PLAIN), start(PLAIN)['params']
  after = equalization.cross_layer_equalization(sweeps=1).init(params, ctx)
  changed = {
    path
    for path, x in tree.paths(after).items()
    if np.any(x != tree.paths(params)[path])
  }
  assert changed == {'one/kernel', 'one/bias', 'two/kernel'}


def bent(fn: str) -> sp.Spec:
  """Return a network with a rectifier, then another activation."""
  layers = (
    sp.Dense(name='into', features=2, bias=False),
    sp.Act(),
    sp.Dense(name='mid', features=1, bias=False),
    sp.Act(fn=fn),
    sp.Dense(name='out', features=2, bias=False),
  )
  return sp.Spec(name=fn, input_shape=(1,), layers=layers)


@pytest.mark.parametrize('fn', ['tanh', 'elu'])
def test_small_signals_through_other_activations_stay(fn: str) -> None:
  spec = bent(fn)
  params = {
    'into': {'kernel': jnp.array([[1.0, -1.0]])},
    'mid': {'kernel': jnp.array([[0.01], [-0.01]])},
    'out': {'kernel': jnp.array([[100.0, -100.0]])},
  }
  variables = {'params': params, 'batch_stats': {}}
  x = jnp.array([[1.0], [-1.0], [0.5], [2.0], [3.0]])
  split = Split(np.asarray(x), np.zeros(5, np.int32))
  ctx = Ctx(probe=probe.probe(spec, variables, split))
  method = equalization.cross_layer_equalization()
  after = method.init(params, ctx)
  found = Net(spec).apply({'params': after, 'batch_stats': {}}, x)
  if fn == 'tanh':
    want = [1.0, -1.0, 0.5, 2.0, 3.0]
  else:
    want = [1.0, 100 * np.expm1(-0.01), 0.5, 2.0, 3.0]
  np.testing.assert_allclose(found[:, 0], want, atol=1e-3)
  np.testing.assert_allclose(found[:, 1], -found[:, 0], atol=1e-6)
  np.testing.assert_array_equal(after['out']['kernel'], params['out']['kernel'])
  # The pair with the rectifier is equal: sqrt(1 * 0.01) on both sides.
  for name in ('into', 'mid'):
    np.testing.assert_allclose(np.abs(after[name]['kernel']), 0.1, rtol=1e-5)


def test_reasons_are_said_where_nothing_can_be_scaled() -> None:
  layers = bent('tanh').layers[2:]
  spec = sp.Spec(name='one', input_shape=(1,), layers=layers)
  params = start(spec)['params']
  with pytest.raises(ValueError, match=r'as ReLU.* got mid \(tanh\)'):
    equalization.cross_layer_equalization().init(params, calibrated(spec))


def test_dead_channels_do_not_change() -> None:
  params = uneven()
  kernel = params['conv']['kernel'].at[..., 1].set(0.0)
  dead = {**params, 'conv': {**params['conv'], 'kernel': kernel}}
  assert equalization.factors(dead, groups(PAIR)[0])[1] == 1.0


def test_impossible_arguments_are_refused() -> None:
  with pytest.raises(ValueError, match='expected sweeps from 1, got 0'):
    recipe.parse('quantize.cross_layer_equalization(sweeps=0)')


def test_what_does_not_fit_is_refused() -> None:
  ctx, params = calibrated(TINY), start(TINY)['params']
  with pytest.raises(
    ValueError, match='cross_layer_equalization: expected calibration data'
  ):
    equalization.cross_layer_equalization().init(params, Ctx())
  nodes = uniform(4).init(params, ctx)
  with pytest.raises(
    ValueError, match='cross_layer_equalization: expected plain arrays'
  ):
    equalization.cross_layer_equalization().init(nodes, ctx)
  with pytest.raises(ValueError, match='got conv .not among these'):
    only('fc/.*', equalization.cross_layer_equalization()).init(params, ctx)
