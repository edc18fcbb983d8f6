"""Networks without some of their layers."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import tree
from compress.method import Ctx
from compress.quantize.fake_quant import FakeQuantized
from compress.quantize.uniform import uniform
from tests.runs import NETWORKS, assert_same_bits, run, start
from tsukiji.measure import cost
from tsukiji.models import drop_layers, zoo
from tsukiji.models import net as net_lib
from tsukiji.models import spec as sp
from tsukiji.models.spec import Spec

DEEP = zoo.resnet((8, 8, 1), 3, blocks=2, widths=(4, 4, 6))
NARROW = zoo.resnet((4, 4, 1), 3, blocks=2, widths=(2,))
TSUKIJI = zoo.tsukijinet2021((28, 28, 1), 10)


def names(spec: Spec) -> list[str]:
  return [unit.name for unit in drop_layers.units(spec)]


@functools.partial(jax.jit, static_argnums=0)
def logits(spec: Spec, network: dict[str, Any]) -> Any:
  return run(spec, network, 4)[0]


def without(spec: Spec, *gone: str) -> drop_layers.Dropped:
  return drop_layers.drop(spec, start(spec), gone, seed=3)


def test_units_are_layers_and_blocks() -> None:
  assert names(TSUKIJI) == ['conv1', 'conv2', 'dense1', 'dense2']
  blocks = [f'block{stage}_{i}' for stage in (1, 2, 3) for i in (1, 2)]
  assert names(DEEP) == ['conv0', *blocks, 'dense']
  layers = TSUKIJI.layers
  kinds = [
    [type(layer).__name__ for layer in layers[unit.start : unit.stop]]
    for unit in drop_layers.units(TSUKIJI)
  ]
  conv, dense = ['Conv', 'Norm', 'Act'], ['Dense', 'Act', 'Dropout']
  assert kinds == [conv, conv, dense, ['Dense']]


def test_branches_without_a_common_name_have_their_first() -> None:
  one, two = (sp.Dense(name=name, features=2) for name in ('left', 'right'))
  branch = sp.Branch(paths=((one,), (two,)))
  spec = Spec(name='n', input_shape=(2,), layers=(branch,))
  assert names(spec) == ['left']


def test_what_can_go_from_tsukijinet() -> None:
  assert drop_layers.removable(TSUKIJI) == {}
  assert drop_layers.removable(TSUKIJI, reshape=True) == {
    'conv1': ('conv2', 'dense1'),
    'conv2': ('dense1',),
    'dense1': ('dense2',),
  }


def test_what_can_go_from_a_resnet() -> None:
  free = dict.fromkeys(['block1_1', 'block1_2', 'block2_2', 'block3_2'], ())
  assert drop_layers.removable(DEEP) == free
  # Stages 1 and 2 are equally wide, but the second halves the sides. Without
  # 'conv0' or 'block3_1' a block would add maps of different widths.
  every = free | {'block2_1': ()}
  assert drop_layers.removable(DEEP, reshape=True) == every
  assert drop_layers.removable(NETWORKS['vgg']) == {'conv1_2': ()}
  # Blocks of one per stage have no successor with an identity shortcut.
  chain = zoo.resnet((8, 8, 1), 3, widths=(4, 5, 6))
  assert drop_layers.removable(chain, reshape=True) == {
    'block1_1': (),
    'block2_1': ('block3_1_conv1', 'block3_1_skip'),
    'block3_1': ('dense',),
  }


def test_a_block_that_adds_nothing_can_go() -> None:
  norm = 'block1_2_conv2_norm'
  params = start(NARROW)['params']
  zeros = jax.tree.map(jnp.zeros_like, params[norm])
  network = {**start(NARROW), 'params': {**params, norm: zeros}}
  small = drop_layers.drop(NARROW, network, ['block1_2'], 0)
  assert small.fresh == ()
  got = logits(*small[:2])
  assert_same_bits(got, logits(NARROW, network))
  # The same block with its own weights does add something.
  assert not np.array_equal(got, logits(NARROW, start(NARROW)))


def test_an_activation_that_is_not_idempotent_stays() -> None:
  act = sp.Act(fn='gelu')
  layers = tuple(
    act if isinstance(layer, sp.Act) else layer for layer in DEEP.layers
  )
  spec = dataclasses.replace(DEEP, layers=layers)
  before, after = (
    sum(isinstance(layer, sp.Act) for layer in net.layers)
    for net in (spec, drop_layers.cut(spec, ['block1_2']))
  )
  assert before == after
  relus = sum(isinstance(layer, sp.Act) for layer in DEEP.layers)
  left = drop_layers.cut(DEEP, ['block1_1', 'block1_2']).layers
  assert sum(isinstance(layer, sp.Act) for layer in left) == relus - 2


@pytest.mark.parametrize(
  ('spec', 'gone'),
  [
    (DEEP, ('block1_1', 'block3_2')),
    (NETWORKS['vgg'], ('conv1_2',)),
    (NETWORKS['resnet'], ('block2_1',)),
    (TSUKIJI, ('conv2', 'dense1')),
  ],
)
def test_what_stays_keeps_its_weights(spec: Spec, gone: Any) -> None:
  small = without(spec, *gone)
  assert sp.output_shape(small.spec) == sp.output_shape(spec)
  assert cost.macs(small.spec) != cost.macs(spec)
  shapes = net_lib.variable_shapes(small.spec)
  for part, layers in small.variables.items():
    assert layers.keys() == shapes[part].keys()
    for name, value in layers.items():
      assert jax.tree.map(jnp.shape, value) == jax.tree.map(
        jnp.shape, shapes[part][name]
      )
      if name not in small.fresh:
        assert_same_bits(value, start(spec)[part][name])
  assert not any(name.startswith(gone) for name in small.variables['params'])


@pytest.mark.slow
def test_layers_drawn_anew_are_named() -> None:
  assert without(TSUKIJI, 'conv2').fresh == ('dense1',)
  assert without(TSUKIJI, 'conv2', 'dense1').fresh == ('dense2',)
  small = without(TSUKIJI, 'dense1')
  assert small.fresh == ('dense2',)
  kernel = small.variables['params']['dense2']['kernel']
  assert kernel.shape == (1024, 10)
  assert np.std(kernel) == pytest.approx(1 / np.sqrt(3 * 1024), rel=0.05)
  assert not np.any(small.variables['params']['dense2']['bias'])


def test_weights_laid_out_in_another_order_are_drawn_anew() -> None:
  # 8 x 8 x 1 and 4 x 4 x 4 are as many numbers.
  conv = sp.Conv(name='conv', features=4, kernel=(2, 2), strides=(2, 2))
  spec = Spec(
    name='n',
    input_shape=(8, 8, 1),
    layers=(conv, sp.Flatten(), sp.Dense(name='fc', features=3)),
  )
  assert without(spec, 'conv').fresh == ('fc',)


def test_nodes_are_kept() -> None:
  spec = NETWORKS['resnet']
  nodes = uniform(4).init(start(spec)['params'], Ctx())
  network = {**start(spec), 'params': nodes}
  small = drop_layers.drop(spec, network, ['block1_1'], 0)
  found = tree.find(FakeQuantized, small.variables['params'])
  assert len(found) == len(tree.find(FakeQuantized, nodes)) - 2


def test_removing_nothing_changes_nothing() -> None:
  small = without(DEEP)
  assert (small.spec, small.fresh) == (DEEP, ())
  assert_same_bits(small.variables['params'], start(DEEP)['params'])


@pytest.mark.parametrize(
  ('spec', 'gone', 'message'),
  [
    (DEEP, ['block9'], "units of conv0, .*, block3_2, got 'block9'"),
    (DEEP, ['block1_1_conv1'], "got 'block1_1_conv1'"),
    (DEEP, ['dense'], "got 'dense'. The last layer .* stays"),
    (TSUKIJI, names(TSUKIJI), "got 'dense2'"),
    (
      DEEP,
      ['block3_1'],
      r"fits together, got \['block3_1'\]. Branch: .* merge",
    ),
  ],
)
def test_impossible_removals_are_refused(
  spec: Spec, gone: list[str], message: str
) -> None:
  with pytest.raises(ValueError, match=f'drop_layers: expected .*{message}'):
    drop_layers.drop(spec, start(spec), gone, 0)


GAINED = {
  'conv0': 0.3,
  'block1_1': 0.02,
  'block1_2': -0.01,
  'block2_1': 0.001,
  'block2_2': 0.05,
  'block3_1': 0.0,
  'block3_2': 0.01,
  'dense': -0.5,
}


def test_the_units_that_add_least_go() -> None:
  choose = drop_layers.choose
  assert choose(DEEP, GAINED, threshold=0.02) == ('block1_2', 'block3_2')
  assert choose(DEEP, GAINED, threshold=-1.0) == ()
  assert choose(DEEP, GAINED, count=3) == ('block1_1', 'block1_2', 'block3_2')
  gained = dict.fromkeys(names(TSUKIJI), 0.0) | {'conv1': 0.5}
  assert choose(TSUKIJI, gained, threshold=0.1) == ()
  assert choose(TSUKIJI, gained, threshold=0.1, reshape=True) == (
    'conv2',
    'dense1',
  )


def test_units_that_cannot_be_dropped_jointly_are_not() -> None:
  convs = [
    sp.Conv(name=name, features=2, kernel=(1, 1), padding='SAME')
    for name in 'abc'
  ]
  # The shortcut of 'c' adds 2 channels: one of 'a' and 'b' has to make them.
  last = sp.Dense(name='fc', features=3)
  layers = (
    *convs[:2],
    sp.Branch(paths=((convs[2],), ())),
    sp.GlobalMean(),
    last,
  )
  spec = Spec(name='n', input_shape=(8, 8, 1), layers=layers)
  assert drop_layers.removable(spec, reshape=True) == {
    'a': ('b',),
    'b': (),
    'c': (),
  }
  gained = {'a': 0.0, 'b': 0.1, 'c': 0.2, 'fc': 0.0}
  choose = drop_layers.choose
  assert choose(spec, gained, count=1, reshape=True) == ('a',)
  assert choose(spec, gained, count=2, reshape=True) == ('a', 'c')
  with pytest.raises(ValueError, match='choose: expected at most 2 units'):
    choose(spec, gained, count=3, reshape=True)


@pytest.mark.parametrize(
  ('wrong', 'message'),
  [
    ({}, r'a threshold or a count, got \(None, None\)'),
    ({'threshold': 0.1, 'count': 1}, r'a threshold or a count, got \(0.1, 1\)'),
    ({'count': 9}, 'at most 4 units, got 9'),
  ],
)
def test_impossible_choices_are_refused(wrong: Any, message: str) -> None:
  with pytest.raises(ValueError, match=f'choose: expected {message}'):
    drop_layers.choose(DEEP, GAINED, **wrong)
  with pytest.raises(ValueError, match='gains of .*block1_1'):
    drop_layers.choose(DEEP, {'conv0': 0.1}, count=1)
