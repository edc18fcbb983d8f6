"""Integers and thresholds against the float network they stand for."""

import functools
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import compress
from compress import recipe, tree
from compress.binary.inputs import Signed
from compress.binary.weights import Binarized
from tests.runs import NETWORKS, calibrated, images, one_shot, run, start
from tsukiji.deploy import artefact
from tsukiji.deploy.integer.binary_layers import forward, layers
from tsukiji.deploy.passes.lower import lower
from tsukiji.deploy.tsk import pack
from tsukiji.graph.capture import capture
from tsukiji.models import spec as sp
from tsukiji.models import zoo
from tsukiji.models.binary_zoo import shifted
from tsukiji.models.spec import Spec

RNG = np.random.default_rng(0)


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
  counting = forward(*lower(spec, found))
  program = str(jax.make_jaxpr(counting)(x))
  assert program.count('population_count') == counted
  want = run(spec, found, 16)[0]
  np.testing.assert_allclose(counting(x), want, rtol=1e-4, atol=1e-4)


def test_norms_between_signs_are_comparisons() -> None:
  found = prepared(SAME, 'binary.bnn()')
  program = str(jax.make_jaxpr(forward(*lower(SAME, found)))(images(SAME, 2)))
  # Of three hard tanhs, that of floats is left: the first.
  assert {*re.findall(r'(f32\S*) = select_n', program)} == {'f32[2,6,6,3]'}


@pytest.mark.slow
def test_a_file_runs_in_integers() -> None:
  found = prepared(PLAIN, 'binary.bnn()')
  packed = pack.unpack(pack.pack(*lower(PLAIN, found)))
  x = images(PLAIN, 4)
  np.testing.assert_allclose(
    forward(packed.network, packed.variables)(x),
    run(PLAIN, found, 4)[0],
    rtol=1e-4,
    atol=1e-4,
  )


@pytest.mark.slow
@pytest.mark.parametrize('counted', [('dense1',), ('conv2', 'dense2')])
def test_some_layers_count_and_others_do_not(counted: tuple[str, ...]) -> None:
  found = prepared(SAME, 'binary.bnn()')
  net, x = lower(SAME, found), images(SAME, 8)
  assert set(layers(*net)) == {'conv2', 'dense1', 'dense2'}
  some = artefact.forward(*net, counted)
  times = str(jax.make_jaxpr(some)(x)).count('population_count')
  assert times == len(counted)
  want = run(SAME, found, 8)[0]
  np.testing.assert_allclose(some(x), want, rtol=1e-4, atol=1e-4)


def test_only_signs_are_counted() -> None:
  found = prepared(SAME, 'binary.bnn()')
  with pytest.raises(ValueError, match="dense2'.*, got 'conv1'"):
    artefact.forward(*lower(SAME, found), ['conv1'])


@pytest.mark.slow
def test_channels_that_went_have_no_size_in_any_form() -> None:
  spec = NETWORKS['vgg']
  text = 'prune.filters(share=0.5, multiple=1) >> binary.xnor(ends=True)'
  found = one_shot(spec, text)
  packed = pack.unpack(pack.pack(*lower(spec, found)))
  want, x = run(spec, found, 8)[0], images(spec, 8)
  got = forward(packed.network, packed.variables)(x)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


class Own(nn.Module):
  """Signs in one dimension, with a shortcut, a loop of maxima and a gate."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return two outputs."""
    x = nn.Conv(6, (3,), name='first')(x)
    norm = functools.partial(nn.BatchNorm, True)
    y = nn.Conv(6, (3,), kernel_dilation=2, name='wide')(norm(name='a')(x))
    y = nn.Conv(6, (1,), strides=2, name='near')(nn.elu(norm(name='b')(y)))
    x = y + nn.max_pool(x, (2,), (2,))
    x = nn.Dense(5, name='each')(norm(name='c')(x))
    x = nn.Dense(5, name='both')(nn.leaky_relu(norm(name='d')(x)))
    return nn.Dense(2, name='last')(norm(name='e')(x.reshape(len(x), -1)))


@pytest.mark.slow
def test_any_network_counts_signs() -> None:
  x = jnp.float32(RNG.normal(size=(4, 8, 3)))
  start_ = Own().init(jax.random.key(0), x)
  stats = jax.tree.map(
    lambda a: jnp.float32(RNG.uniform(0.5, 2, a.shape)), start_['batch_stats']
  )

  def apply(params: Any, x: jax.Array) -> jax.Array:
    y: Any = Own().apply({'params': params, 'batch_stats': stats}, x)
    return y

  found = compress.probe(apply, start_['params'], x)
  method = recipe.parse('binary.react(ends=True)')
  params = tree.freeze(compress.init(method, start_['params'], found))
  graph = capture(apply, params, x)
  variables = {'params': tree.paths(params)}
  names = ('wide', 'near', 'each', 'both', 'last')
  assert tuple(layers(graph, variables)) == names
  for name, (one, own) in layers(graph, variables).items():
    y = jnp.float32(RNG.normal(size=(4, *one.inputs[0].shape)))
    np.testing.assert_allclose(
      forward(one, own)(y), artefact.forward(one, own)(y), rtol=1e-5, atol=1e-5
    )
    assert one.parameters == (f'{name}/kernel',)
  counting = forward(graph, variables)
  want = compress.apply(apply, params, x)
  np.testing.assert_allclose(counting(x), want, rtol=1e-4, atol=1e-4)
  program = str(jax.make_jaxpr(counting)(x))
  assert program.count('population_count') == 5
  assert 'expm1' not in program  # a comparison is in its place


def test_other_products_are_not_counted() -> None:
  x = jnp.float32(RNG.normal(size=(2, 4)))
  signs = Binarized(jnp.ones((4, 4), bool), None)
  node = Signed(signs, None, 'clipped', False)
  for fn in (
    lambda p, x: p['w'] @ x.T,
    lambda p, x: x @ p['w'] @ p['w'].T,
    lambda p, x: x @ p['w'] + p['w'].sum(),
    lambda p, x: x.reshape(-1, 2, 2) @ p['w'].reshape(2, 8),
  ):
    graph = capture(fn, {'w': signs.decode()}, x)
    assert layers(graph, {'params': {'w': node}}) == {}
