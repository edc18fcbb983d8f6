"""Integers and thresholds against the float network they stand for."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe
from tests.runs import NETWORKS, calibrated, images, one_shot, run, start
from tsukiji.deploy import artefact
from tsukiji.deploy.integer.binary_layers import forward, layers, threshold
from tsukiji.deploy.passes.lower import lower
from tsukiji.deploy.tsk import pack
from tsukiji.models import spec as sp
from tsukiji.models import zoo
from tsukiji.models.binary_zoo import shifted
from tsukiji.models.spec import Spec

RNG = np.random.default_rng(0)


def test_a_norm_turns_where_its_formula_says() -> None:
  gamma = np.float32([0.7, -1.3, 0.2, -0.4, 0.0, 0.0])
  mu = np.float32([3.3, -2.2, 90.0, 90.0, 1.0, 1.0])
  beta = np.float32([0.5, 0.25, 1.0, 1.0, 0.3, -0.3])
  sigma = np.float32([1.5, 4.0, 2.0, 2.0, 1.0, 1.0])
  found = threshold(lambda a: gamma * (a - mu) / sigma + beta, 20, 6)
  assert found is not None
  sums = np.arange(-20, 21)[:, None]
  with np.errstate(divide='ignore'):
    at = mu - beta * sigma / gamma
  want = np.where(gamma > 0, sums >= at, sums <= at)
  want[:, 4], want[:, 5] = True, False  # no gain: the bias alone
  np.testing.assert_array_equal(found(jnp.asarray(sums)), want)


def test_a_sign_that_turns_twice_is_no_threshold() -> None:
  assert threshold(lambda a: a**2 - 4, 5, 2) is None
  assert threshold(lambda a: a, 0, 3) is not None


TSUKIJI: dict[str, Any] = {'conv': (3, 34), 'kernel': 3, 'hidden': (5,)}
SAME = zoo.binary_tsukijinet((12, 12, 1), 3, **TSUKIJI)
MIXED = sp.Spec(
  name='mixed',
  input_shape=(8, 8, 1),
  layers=(
    sp.Conv(name='a', features=4, kernel=(3, 3)),
    sp.Norm(name='n1'),
    sp.Act(fn='hard_tanh'),
    sp.Conv(name='b', features=5, kernel=(3, 3)),
    sp.Norm(name='n2'),
    sp.PReLU(name='p', shifts=True),
    sp.Pool(),
    sp.Conv(name='c', features=4, kernel=(2, 2), padding='SAME'),
    sp.Norm(name='n3'),
    sp.Pool(kind='mean', window=(1, 1), strides=(1, 1)),
    sp.Conv(name='d', features=4, kernel=(1, 1), groups=2),
    sp.Norm(name='n4'),
    sp.Flatten(),
    sp.Dropout(rate=0.5),
    sp.Dense(name='e', features=6),
    sp.Norm(name='n5'),
    sp.Dense(name='f', features=3),
  ),
)
SHORT = zoo.binary_vgg((4, 4, 1), 3, widths=(3, 6))
PLAIN = zoo.binary_vgg(
  (4, 4, 1), 3, widths=(3,), shortcuts=False, activation='hard_tanh'
)


def prepared(spec: Spec, text: str) -> dict[str, Any]:
  """Return drawn variables after a recipe, gains of norms of both signs."""
  found = start(spec)
  params = {
    name: {
      key: jnp.where(jnp.arange(x.size) % 2, -x, x) if key == 'scale' else x
      for key, x in fields.items()
    }
    for name, fields in found['params'].items()
  }
  made = recipe.parse(text).init(params, calibrated(spec))

  def turned(path: Any, x: jax.Array) -> jax.Array:
    if path[-1] != jax.tree_util.GetAttrKey('threshold'):
      return x
    return jnp.float32(RNG.normal(0, 0.3, x.shape))

  return {
    **found,
    'params': jax.tree_util.tree_map_with_path(turned, made),
  }


@pytest.mark.slow
@pytest.mark.parametrize(
  ('spec', 'text', 'counted'),
  [
    (SAME, 'binary.bnn()', 3),
    (SAME, 'binary.react(ends=True)', 3),
    (SAME, 'binary.xnor(ends=True)', 3),
    (MIXED, 'binary.inputs(threshold=True) >> binary.loss_aware()', 4),
    (SHORT, 'binary.react()', 3),
    (shifted(PLAIN), 'binary.bnn()', 2),
  ],
)
def test_integers_give_what_floats_give(
  spec: Spec, text: str, counted: int
) -> None:
  found = prepared(spec, text)
  x = images(spec, 16)
  run = forward(spec, found)
  assert str(jax.make_jaxpr(run)(x)).count('population_count') == counted
  want = artefact.forward(spec, found)(x)
  np.testing.assert_allclose(run(x), want, rtol=1e-4, atol=1e-4)


def test_norms_between_signs_are_comparisons() -> None:
  found = prepared(SAME, 'binary.bnn()')
  program = str(jax.make_jaxpr(forward(SAME, found))(images(SAME, 2)))
  # Of four norms, those before floats are left: the first and the last.
  assert program.count('rsqrt') == 2


@pytest.mark.slow
def test_a_file_runs_in_integers() -> None:
  found = prepared(PLAIN, 'binary.bnn()')
  packed = pack.unpack(pack.pack(*lower(PLAIN, found)))
  x = images(PLAIN, 4)
  np.testing.assert_allclose(
    forward(packed.spec, packed.variables)(x),
    artefact.forward(PLAIN, found)(x),
    rtol=1e-4,
    atol=1e-4,
  )


@pytest.mark.slow
@pytest.mark.parametrize('counted', [('dense1',), ('conv2', 'dense2')])
def test_some_layers_count_and_others_do_not(counted: tuple[str, ...]) -> None:
  found = prepared(SAME, 'binary.bnn()')
  assert set(layers(SAME, found)) == {'conv2', 'dense1', 'dense2'}
  run, x = artefact.forward(SAME, found, counted), images(SAME, 8)
  times = str(jax.make_jaxpr(run)(x)).count('population_count')
  assert times == len(counted)
  want = artefact.forward(SAME, found)(x)
  np.testing.assert_allclose(run(x), want, rtol=1e-4, atol=1e-4)


def test_only_signs_are_counted() -> None:
  found = prepared(SAME, 'binary.bnn()')
  with pytest.raises(ValueError, match="dense2'.*, got 'conv1'"):
    artefact.forward(SAME, found, ['conv1'])


@pytest.mark.slow
def test_channels_that_went_have_no_size_in_any_form() -> None:
  spec = NETWORKS['vgg']
  text = 'prune.filters(share=0.5, multiple=1) >> binary.xnor(ends=True)'
  found = one_shot(spec, text)
  packed = pack.unpack(pack.pack(*lower(spec, found)))
  want, x = run(spec, found, 8)[0], images(spec, 8)
  for way in (artefact.forward, forward):
    got = way(packed.spec, packed.variables)(x)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
