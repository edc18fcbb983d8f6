"""Networks for signs: their order, their shortcuts, and that they learn."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import dataflow, recipe, tree
from tests.runs import calibrated, start
from tsukiji.config import settings
from tsukiji.models import drop_layers, zoo
from tsukiji.models import net as net_lib
from tsukiji.models import spec as sp
from tsukiji.models.binary_zoo import binary_resnet, binary_vgg, pool_norm
from tsukiji.models.net import Net
from tsukiji.models.spec import Spec
from tsukiji.training import evaluate, optimizer
from tsukiji.training import step as step_lib


def kinds(spec: Spec) -> str:
  """Return the first letters of the layers in order."""
  return ''.join(type(layer).__name__[0] for layer in spec.layers)


@pytest.mark.parametrize(
  ('spec', 'order'),
  [
    (zoo.tsukijinet((28, 28, 1), 10), 'CPNACPNAFDNADN'),
    (zoo.tsukijinet2021((28, 28, 1), 10), 'CPNACPNAFDNADN'),
    (zoo.lenet5((28, 28, 1), 10), 'CPNCPNFDNADN'),
    (zoo.lenet_300_100((8, 8, 1), 10), 'FDNADNADN'),
    (zoo.vgg((8, 8, 1), 10, widths=(4,)), 'CNACPNAGDN'),
  ],
)
def test_pools_come_before_norms(spec: Spec, order: str) -> None:
  ordered = pool_norm(spec)
  assert kinds(ordered) == order
  assert sp.output_shape(ordered) == sp.output_shape(spec)
  weights = [x for x in ordered.layers if isinstance(x, sp.Conv | sp.Dense)]
  norms = [x for x in ordered.layers if isinstance(x, sp.Norm)]
  assert [f'{w.name}_norm' for w in weights] == [n.name for n in norms]
  assert not any(w.bias for w in weights)


def test_what_meets_signs_has_both() -> None:
  spec = zoo.build('binary_tsukijinet', (28, 28, 1), 10, hidden=(8,))
  assert spec.name == 'binary_tsukijinet'
  acts = [x for x in spec.layers if isinstance(x, sp.Act)]
  assert acts == [sp.Act(fn='hard_tanh')] * 3
  assert (
    zoo.binary_tsukijinet((28, 28, 1), 10, hidden=(8,)).layers
    == (spec.layers[1:])
  )


SMALL: dict[str, Any] = {'widths': (2, 4, 4)}


def test_every_convolution_but_the_first_has_a_shortcut() -> None:
  spec = binary_vgg((8, 8, 1), 3, **SMALL)
  branches = [x for x in spec.layers if isinstance(x, sp.Branch)]
  inside = [branch.paths[0][0].name for branch in branches]
  at = ('1_2', '2_1', '2_2', '3_1', '3_2')
  assert inside == [f'conv{x}_conv' for x in at]
  shorts = [len(branch.paths[1]) for branch in branches]
  assert shorts == [0, 1, 0, 0, 0]
  assert kinds(spec) == 'CNPBPPBPBPPBPBPPGDN'  # P: PReLU or Pool
  plain = binary_vgg(
    (8, 8, 1), 3, shortcuts=False, activation='hard_tanh', **SMALL
  )
  assert kinds(plain) == 'CNACPNA' * 3 + 'GDN'


@pytest.mark.slow
def test_shortcuts_repeat_their_channels() -> None:
  spec = binary_vgg((4, 4, 1), 3, widths=(2, 4), activation='prelu')
  found = start(spec)
  head = spec.layers[:6]  # up to the first pool
  branch = spec.layers[6]
  assert isinstance(branch, sp.Branch)
  x = np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype(np.float32)

  def after(layers: tuple[sp.Layer, ...]) -> np.ndarray:
    cut = Spec(name='cut', input_shape=(4, 4, 1), layers=layers)
    return np.asarray(Net(cut).apply(found, x))

  single = sp.Branch(paths=branch.paths[:1])
  before = after(head)
  np.testing.assert_allclose(
    after((*head, branch)) - after((*head, single)),
    np.concatenate([before, before], -1),
    rtol=1e-4,
    atol=1e-5,
  )


PLAIN = {'shortcuts': 'blocks', 'activation': 'hard_tanh'}


@pytest.mark.parametrize(
  ('form', 'order'), [({}, 'CNP' + 'BPBP' * 2), (PLAIN, 'CNA' + 'BA' * 2)]
)
def test_shortcuts_are_around_convolutions_or_blocks(
  form: dict[str, Any], order: str
) -> None:
  spec = binary_resnet((7, 7, 1), 3, widths=(2, 4), **form)
  assert kinds(spec) == f'{order}GDN'
  convs = [s for s in sp.walk(spec) if isinstance(s.layer, sp.Conv)]
  assert [s.after for s in convs] == [
    *[(7, 7, 2)] * 3,
    *[(4, 4, 4)] * 2,
  ]
  assert sp.output_shape(spec) == (3,)


def test_a_stage_begins_with_every_other_pixel_of_its_shortcut() -> None:
  wide = binary_resnet((7, 7, 2), 3, widths=(2, 4), blocks=2)
  around = wide.layers[11]  # behind the first stage
  assert isinstance(around, sp.Branch)
  skip = sp.Branch(paths=around.paths[1:])
  cut = Spec(name='cut', input_shape=(7, 7, 2), layers=(skip,))
  x = np.random.default_rng(0).normal(size=(2, 7, 7, 2)).astype(np.float32)
  want = np.tile(x[:, ::2, ::2], 2)
  np.testing.assert_array_equal(Net(cut).apply({}, x), want)


def test_units_take_their_activation_along() -> None:
  spec = binary_vgg((8, 8, 1), 3, widths=(2,))
  units = drop_layers.units(spec)
  assert [(u.name, u.stop - u.start) for u in units] == [
    ('conv1_1', 3),
    ('conv1_2', 2),
    ('dense', 2),
  ]


def test_activations_are_chosen() -> None:
  for name in ('relu', 'prelu', 'rprelu'):
    spec = binary_vgg((8, 8, 1), 3, widths=(2,), activation=name)
    act = spec.layers[2]
    learned = isinstance(act, sp.PReLU)
    assert learned == (name != 'relu')
    assert not learned or act.shifts == (name == 'rprelu')


@pytest.mark.parametrize(
  ('sizes', 'said'),
  [
    ({'activation': 'rleu'}, "activation of relu, .*rprelu, got 'rleu'"),
    ({'widths': (4, 6)}, 'a multiple of 4, got 6. Choose other widths'),
    ({'widths': (4, 2)}, 'a multiple of 4, got 2'),
  ],
)
def test_refusals(sizes: dict[str, Any], said: str) -> None:
  with pytest.raises(ValueError, match=said):
    zoo.build('binary_vgg', (8, 8, 1), 3, **sizes)
  with pytest.raises(ValueError, match=said):
    zoo.build('binary_resnet', (8, 8, 1), 3, **sizes)


def test_other_shortcuts_are_refused() -> None:
  with pytest.raises(ValueError, match='shortcuts: .*blocks, convolutions'):
    binary_resnet((8, 8, 1), 3, shortcuts='layers')


TINY = zoo.binary_tsukijinet((8, 8, 1), 3, conv=(8, 8), hidden=(16,))


@functools.cache
def blobs() -> tuple[jax.Array, jax.Array]:
  """Return three noisy patterns, easy to distinguish."""
  drawn = np.random.default_rng(0)
  y = np.arange(96) % 3
  means = drawn.normal(size=(3, 8, 8, 1))
  x = means[y] + 0.5 * drawn.normal(size=(96, 8, 8, 1))
  return jnp.float32(x), jnp.asarray(y)


@pytest.mark.slow
def test_a_binary_network_learns() -> None:
  x, y = blobs()
  method = recipe.parse('binary.bnn()')
  chosen = settings.training(lr=0.02, weight_decay=0.0)
  plan = step_lib.Plan(TINY, method, optimizer.from_settings(chosen, 30), 30)
  variables = net_lib.init_variables(TINY, 0)
  state = step_lib.init_state(plan, variables, 0, probe=calibrated(TINY).probe)
  step = step_lib.make_step(plan)
  for _ in range(30):
    state = step(state, x, y)
  found = state.variables
  dense = {**found, 'params': tree.decode(state.params)}
  logits, observed, _ = dataflow.observed(
    evaluate.applied(TINY, found['batch_stats']),
    dense['params'],
    (x,),
    dataflow.transforming(state.params),
  )
  assert np.mean(np.argmax(logits, -1) == y) > 0.9
  assert set(np.unique(dense['params']['conv2']['kernel'])) == {-1.0, 1.0}
  # Both signs reach the second layer: its inputs are around 0.
  low, high = observed['conv2/kernel']
  assert low < 0 < high
