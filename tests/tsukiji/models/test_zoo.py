"""Known sizes, every hyper-parameter, every input the networks can take."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsukiji.models import spec as sp
from tsukiji.models import zoo
from tsukiji.models.net import Net
from tsukiji.models.spec import Layer, Shape, Spec

SHAPES = [(28, 28, 1), (8, 8, 1), (32, 32, 3), (128, 3, 1), (50, 9, 1)]
FITS = [
  (name, shape)
  for name in sorted(zoo.NETWORKS)
  for shape in SHAPES
  # LeNet-5 is what it is: two VALID 5x5 windows and two pools.
  if name != 'lenet5' or min(shape[:2]) >= 16
]


def counted(spec: Spec) -> int:
  """Count the parameters that the module makes, biases and norms too."""
  x = jax.ShapeDtypeStruct((1, *spec.input_shape), jnp.float32)
  shapes = jax.eval_shape(Net(spec).init, jax.random.key(0), x)['params']
  return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def tsukijinet(**sizes: Any) -> Spec:
  return zoo.build('tsukijinet', (28, 28, 1), 10, **sizes)


def of_kind(kind: type, spec: Spec) -> list[Any]:
  return [step.layer for step in sp.walk(spec) if isinstance(step.layer, kind)]


@pytest.mark.parametrize(
  ('name', 'sizes', 'expected'),
  [
    ('tsukijinet', {}, 317_066),
    ('tsukijinet2021', {}, 317_258),
    ('tsukijinet', {'padding': 'SAME'}, 857_738),
    ('lenet5', {}, 431_080),
    ('lenet_300_100', {}, 266_610),
    ('googlenet_small', {}, 203_122),
    ('small', {}, 33_338),
    ('small', {'widths': (8, 16, 16, 32)}, 8_610),
  ],
)
def test_known_counts(name: str, sizes: dict[str, Any], expected: int) -> None:
  assert counted(zoo.build(name, (28, 28, 1), 10, **sizes)) == expected


def test_resnet_is_the_one_of_the_paper() -> None:
  # He+ 2016, table 6: 0.27 M for 20 layers (3 blocks a stage) on CIFAR-10,
  # there without parameters in the shortcuts.
  spec = zoo.build('resnet', (32, 32, 3), 10, blocks=3)
  main = [c for c in of_kind(sp.Conv, spec) if not c.name.endswith('skip')]
  assert len(main) + len(of_kind(sp.Dense, spec)) == 20
  assert counted(spec) == pytest.approx(0.27e6, rel=0.02)


@pytest.mark.parametrize(('name', 'shape'), FITS)
def test_outputs_are_logits_on_every_input(name: str, shape: Shape) -> None:
  spec = zoo.build(name, shape, 7, ((0.5,) * shape[2], (2.0,) * shape[2]))
  x = jax.ShapeDtypeStruct((2, *shape), jnp.uint8)
  y, _ = jax.eval_shape(Net(spec).init_with_output, jax.random.key(0), x)
  assert sp.output_shape(spec) == y.shape[1:] == (7,)
  assert sp.loads(sp.dumps(spec)) == spec


@pytest.mark.parametrize('shape', [(8, 8, 1), (128, 3, 1), (50, 9, 1)])
def test_lenet5_names_the_layer_that_does_not_fit(shape: Shape) -> None:
  with pytest.raises(
    ValueError, match='lenet5 on .* conv[12]: expected an inp'
  ):
    zoo.build('lenet5', shape, 10)


@pytest.mark.parametrize(
  ('kind', 'field', 'sizes', 'expected'),
  [
    (sp.Conv, 'features', {'conv': (4, 5, 6)}, [4, 5, 6]),
    (sp.Conv, 'kernel', {'kernel': 3}, [(3, 3)] * 2),
    (sp.Conv, 'strides', {'stride': 2, 'kernel': 2}, [(2, 2)] * 2),
    (sp.Pool, 'window', {'pool': 3, 'kernel': 3}, [(3, 3)] * 2),
    (sp.Pool, 'strides', {'pool': 3, 'kernel': 3}, [(3, 3)] * 2),
    (sp.Pool, 'window', {'pool': 1}, []),
    (sp.Dense, 'features', {'hidden': (7, 8)}, [7, 8, 10]),
    (sp.Dense, 'features', {'hidden': ()}, [10]),
    (sp.Act, 'fn', {'activation': 'gelu'}, ['gelu'] * 3),
    (sp.Dropout, 'rate', {'dropout': 0.5}, [0.5]),
    (sp.Dropout, 'rate', {'dropout': 0.5, 'hidden': (7, 8)}, [0.5] * 2),
    (sp.Dropout, 'rate', {'dropout': 0.0}, []),
    (sp.Norm, 'name', {'norm': True}, ['norm1', 'norm2']),
    (sp.Norm, 'name', {}, []),
  ],
)
def test_sizes_take_effect(
  kind: type, field: str, sizes: dict[str, Any], expected: list[Any]
) -> None:
  found = of_kind(kind, tsukijinet(**sizes))
  assert [getattr(layer, field) for layer in found] == expected


def test_tsukijinet2021_is_tsukijinet_with_norms() -> None:
  named = {'name': 'same', 'kernel': 3}
  with_norms = zoo.build('tsukijinet2021', (28, 28, 1), 10, **named)
  assert with_norms == tsukijinet(norm=True, **named)
  layers: list[Layer] = [
    x for x in with_norms.layers if not isinstance(x, sp.Norm)
  ]
  assert layers == list(tsukijinet(**named).layers)
  for before, layer in zip(
    with_norms.layers, with_norms.layers[1:], strict=False
  ):
    assert isinstance(layer, sp.Norm) == isinstance(before, sp.Conv)


@pytest.mark.parametrize('pool', [1, 2, 3])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('shape', [(28, 28, 1), (9, 40, 2), (3, 3, 1)])
def test_sizes_fit_any_input(shape: Shape, stride: int, pool: int) -> None:
  spec = zoo.build('tsukijinet', shape, 10, stride=stride, pool=pool)
  assert sp.output_shape(spec) == (10,)


def test_small_inputs_get_same_padding() -> None:
  convs = of_kind(sp.Conv, zoo.build('tsukijinet', (8, 8, 1), 10))
  assert [(c.padding, c.kernel) for c in convs] == [('SAME', (3, 3))] * 2
  convs = of_kind(sp.Conv, tsukijinet())
  assert [(c.padding, c.kernel) for c in convs] == [('VALID', (5, 5))] * 2


def test_widths_and_blocks_take_effect() -> None:
  shape = (16, 16, 1)
  for name, repeats in (('vgg', 2), ('small', 1)):
    found = of_kind(sp.Conv, zoo.build(name, shape, 10, widths=(2, 3)))
    widths = np.repeat([2, 3], repeats).tolist()
    assert [c.features for c in found] == widths
  spec = zoo.build('resnet', shape, 10, widths=(2, 3), blocks=2)
  assert sum(isinstance(x, sp.Branch) for x in spec.layers) == 4
  assert {c.features for c in of_kind(sp.Conv, spec)} == {2, 3}


@pytest.mark.parametrize(
  'name',
  [
    *('vgg', 'binary_vgg', 'resnet', 'binary_resnet'),
    *('googlenet_small', 'binary_googlenet'),
  ],
)
def test_a_stride_divides_the_sides_once(name: str) -> None:
  sides = [
    [
      step.after[0]
      for step in sp.walk(zoo.build(name, (7, 7, 1), 10, **more))
      if isinstance(step.layer, sp.Conv)
    ]
    for more in ({}, {'stride': 2})
  ]
  assert max(sides[0]) == 7
  assert max(sides[1]) == 4
  assert min(sides[1]) < 4


def test_moments_come_first() -> None:
  spec = zoo.build('small', (8, 8, 2), 10, ((1.0, 2.0), (3.0, 4.0)))
  assert spec.layers[0] == sp.Standardise(mean=(1.0, 2.0), std=(3.0, 4.0))
  with pytest.raises(ValueError, match='Standardise: expected 1 or'):
    zoo.build('small', (8, 8, 1), 10, ((1.0, 2.0), (3.0, 4.0)))


@pytest.mark.parametrize(
  ('name', 'sizes', 'said'),
  [
    ('tsukjinet', {}, "zoo: .* got 'tsukjinet'. Nearest: 'tsukijinet'"),
    ('LeNet5', {}, "Nearest: 'lenet5'"),
    ('tsukijinet', {'kernal': 3}, "tsukijinet: .*'kernal'. Nearest: 'kernel'"),
    ('tsukijinet2021', {'hiden': ()}, "got 'hiden'. Nearest: 'hidden'"),
    ('small', {'width': (3,)}, "small: .* widths, .*Nearest: 'widths'"),
    ('tsukijinet', {'activation': 'rleu'}, "expected .* relu, .* got 'rleu'"),
    ('tsukijinet', {'stride': 0}, "zoo: .*'stride': 0"),
    ('vgg', {'stride': 0}, "zoo: .*'stride': 0"),
    ('tsukijinet', {'kernel': -1}, "zoo: .*'kernel': -1"),
    ('tsukijinet', {'conv': 3}, "zoo: .*'conv': 3"),
    ('tsukijinet', {'conv': (3, 'a')}, "conv2: expected features .* got 'a'"),
    ('tsukijinet', {'dropout': 1.5}, r'Dropout: expected a rate in \[0, 1\)'),
  ],
)
def test_refusals(name: str, sizes: dict[str, Any], said: str) -> None:
  with pytest.raises(ValueError, match=said):
    zoo.build(name, (28, 28, 1), 10, **sizes)
