"""Networks of Inception modules, for real and for binary weights and inputs."""

import dataclasses

from tsukiji.errors import expect
from tsukiji.models.binary_zoo import activation_of, repeated, shifted
from tsukiji.models.spec import (
  Branch,
  Conv,
  Dense,
  GlobalMean,
  Layer,
  Norm,
  Pool,
  Shape,
  Spec,
)

PARTS = 8  # of a module's outputs: its paths have whole parts


@dataclasses.dataclass(frozen=True)
class _Form:
  """What differs between the forms of a network.

  Attributes:
    name: Of the network.
    activation: See `activation_of`.
    binary: Whether pools come before norms, and the projected one is a mean.
    shortcuts: Whether there are identities around modules.
  """

  name: str
  activation: str = 'relu'
  binary: bool = False
  shortcuts: bool = False


def googlenet_small(
  input_shape: Shape,
  classes: int,
  *,
  widths: tuple[int, ...] = (64, 128, 256),
  modules: int = 1,
  stride: int = 1,
  name: str = 'googlenet_small',
) -> Spec:
  """Return a small GoogLeNet: Inception modules, a pool after each stage.

  A module joins 1x1 filters, 3x3 and 5x5 filters behind narrow 1x1 ones, and
  1x1 filters behind a pool, in the proportions of module 3a of Szegedy+ 2015
  (arXiv 1409.4842, table 1): 64, 96 to 128, 16 to 32, and 32 of 256 outputs.

  It differs from the paper in that images are small: one 3x3 convolution comes
  before the modules, pools are 2x2, there are fewer modules, all alike. There
  are batch norms (Ioffe & Szegedy 2015, arXiv 1502.03167), no dropout and no
  auxiliary classifiers. Pools here have no padding, so that one of 3x3 cannot
  keep the sides: the last module of a stage projects what its 2x2 pool gives,
  and its other paths pool their outputs, as all do in the paper between stages.
  Any other module has no pool; its 1x1 filters have that part of the outputs.

  Args:
    input_shape: `(height, width, channels)`.
    classes: Number of outputs.
    widths: Outputs of the modules of each stage, multiples of 8; pools stop
      when a side would vanish.
    modules: Modules of a stage, of 2, 5 and 2 in the paper.
    stride: Of the first convolution.
    name: Name of the network.

  Returns:
    The spec; 203,122 parameters on 28x28x1 with 10 classes.

  Raises:
    ValueError: If a width is not a multiple of 8, or there are no modules.
  """
  layers = _body(_Form(name), input_shape, widths, modules, stride)
  layers += [GlobalMean(), Dense(name='dense', features=classes)]
  return Spec(name=name, input_shape=input_shape, layers=tuple(layers))


def binary_googlenet(
  input_shape: Shape,
  classes: int,
  *,
  widths: tuple[int, ...] = (64, 128, 256),
  modules: int = 1,
  stride: int = 1,
  shortcuts: bool = True,
  activation: str = 'rprelu',
  shift: bool = False,
  name: str = 'binary_googlenet',
) -> Spec:
  """Return `googlenet_small` for signs, in the two forms of `binary_vgg`.

  Pools come before norms (`pool_norm`), and the pool that is projected is a
  mean, since the signs of maxima would nearly all be +1. With shortcuts it is
  of the modern form: an identity around every module, repeated where it is
  wider, behind a mean where it pools; within paths there is none, as widths
  do not match. Without, and with 'hard_tanh', it is of the plain form.

  Args:
    input_shape: `(height, width, channels)`.
    classes: Number of outputs.
    widths: As `googlenet_small`. With shortcuts each is a multiple of the one
      before.
    modules: Modules of a stage.
    stride: Of the first convolution.
    shortcuts: Whether modules have identities around them.
    activation: One of `spec.ACTIVATIONS`, 'prelu', or 'rprelu' with shifts.
    shift: Whether the factors of its norms are powers of two; see `shifted`.
    name: Name of the network.

  Returns:
    The spec; the last layer has a norm, whatever its weights are.

  Raises:
    ValueError: As `googlenet_small`, if there is no such activation, or a
      stage cannot be reached by repeating.
  """
  form = _Form(name, activation, binary=True, shortcuts=shortcuts)
  layers = _body(form, input_shape, widths, modules, stride)
  layers += [GlobalMean(), Dense(name='dense', features=classes, bias=False)]
  layers.append(Norm(name='dense_norm'))
  spec = Spec(name=name, input_shape=input_shape, layers=tuple(layers))
  return shifted(spec) if shift else spec


def _body(
  form: _Form,
  input_shape: Shape,
  widths: tuple[int, ...],
  modules: int,
  stride: int,
) -> list[Layer]:
  """Return the layers up to the mean over the sides."""
  whole = widths and not any(features % PARTS for features in widths)
  expect(form.name, whole, f'widths that are multiples of {PARTS}', widths)
  expect(form.name, modules >= 1, 'modules from 1', modules)
  stem = _conv('stem', widths[0], 3, stride)
  layers = [stem, *_behind(form, 'stem')]
  before, side = widths[0], -(-min(input_shape[:2]) // stride)
  for stage, features in enumerate(widths, 1):
    for i in range(1, modules + 1):
      at = f'inception{stage}_{i}'
      pools = i == modules and side >= 2
      module = _module(form, at, features, pools)
      if form.shortcuts:
        layers += _around(form, at, module, before, features, pools)
      else:
        layers.append(module)
      before = features
    side //= 2 if side >= 2 else 1
  return layers


def _module(form: _Form, at: str, features: int, pools: bool) -> Branch:
  """Return the paths of a module, side by side."""
  part = features // PARTS
  narrow = max(1, part // 2)
  paths = [
    _path(form, at, (('1x1', part * (2 if pools else 3), 1),), pools),
    _path(form, at, (('3x3_reduce', 3 * part, 1), ('3x3', 4 * part, 3)), pools),
    _path(form, at, (('5x5_reduce', narrow, 1), ('5x5', part, 5)), pools),
  ]
  if pools:
    pool = Pool(kind='mean' if form.binary else 'max')
    paths.append((pool, *_path(form, at, (('pool', part, 1),), False)))
  return Branch(paths=tuple(paths), merge='concat')


def _path(
  form: _Form, at: str, convs: tuple[tuple[str, int, int], ...], pools: bool
) -> tuple[Layer, ...]:
  """Return convolutions by name, filters and side, the last one pooled."""
  layers: list[Layer] = []
  for i, (end, features, side) in enumerate(convs, 1):
    last = i == len(convs)
    layers.append(_conv(f'{at}_{end}', features, side))
    layers += _behind(
      form,
      f'{at}_{end}',
      pools=pools and last,
      activates=not (form.shortcuts and last),
    )
  return tuple(layers)


def _around(
  form: _Form,
  at: str,
  module: Branch,
  before: int,
  features: int,
  pools: bool,
) -> list[Layer]:
  """Return a module and the identity around it, added and activated."""
  short = (Pool(kind='mean'),) * pools + repeated(form.name, before, features)
  act = activation_of(form.name, form.activation, f'{at}_act')
  return [Branch(paths=((module,), short)), act]


def _behind(
  form: _Form, name: str, *, pools: bool = False, activates: bool = True
) -> list[Layer]:
  """Return the norm, activation and pool of a convolution, in their order."""
  pool: list[Layer] = [Pool()] * pools
  act: list[Layer] = []
  if activates:
    act = [activation_of(form.name, form.activation, f'{name}_act')]
  norm = Norm(name=f'{name}_norm')
  return [*pool, norm, *act] if form.binary else [norm, *act, *pool]


def _conv(name: str, features: int, side: int, stride: int = 1) -> Conv:
  """Return a SAME convolution with square windows and without bias."""
  return Conv(
    name=name,
    features=features,
    kernel=(side, side),
    strides=(stride, stride),
    padding='SAME',
    bias=False,
  )
