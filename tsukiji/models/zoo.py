"""Networks by name: each a function from sizes to a `Spec`."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from tsukiji.errors import expect_name
from tsukiji.models import outside
from tsukiji.models.binary_zoo import (
  binary_resnet,
  binary_vgg,
  pool_norm,
)
from tsukiji.models.blocks import conv_norm, residual
from tsukiji.models.inception_zoo import binary_googlenet, googlenet_small
from tsukiji.models.sequences import flattened, squared
from tsukiji.models.spec import (
  ACTIVATIONS,
  Act,
  Conv,
  Dense,
  Dropout,
  Flatten,
  GlobalMean,
  Layer,
  Norm,
  Pool,
  Shape,
  Spec,
  Standardise,
  output_shape,
)
from tsukiji.models.student_zoo import student


def tsukijinet(
  input_shape: Shape,
  classes: int,
  *,
  conv: tuple[int, ...] = (32, 64),
  kernel: int = 5,
  stride: int = 1,
  pool: int = 2,
  padding: str = '',
  hidden: tuple[int, ...] | int = (256,),
  activation: str = 'relu',
  dropout: float = 0.3,
  norm: bool = False,
  name: str = 'tsukijinet',
) -> Spec:
  """Return Tsukijinet: a 4-layer CNN over a 2-D input.

  The sizes of the original are lost. We take two convolutions, each with a
  max pool, and two dense layers; every hyper-parameter its notes name is an
  argument. Inputs too small for VALID windows (fewer than 4 pixels left before
  the dense layers) get SAME padding and kernels of at most 3 unless a padding
  is given.

  Args:
    input_shape: `(height, width, channels)`.
    classes: Number of outputs.
    conv: Filters of each convolution.
    kernel: Height and width of the filters.
    stride: Stride of the convolutions.
    pool: Window and stride of the max pools; 1 leaves them out.
    padding: 'VALID' or 'SAME'; '' is what the input allows.
    hidden: Units of the dense layers before the last; a number is one layer.
    activation: One of `spec.ACTIVATIONS`.
    dropout: Probability of dropping a hidden unit in training.
    norm: Batch normalization after each convolution (Tsukijinet2021).
    name: Name of the network.

  Returns:
    The spec; 317,066 parameters on 28x28x1 with 10 classes, 857,738 with SAME
    padding, 192 more with `norm`.
  """
  if activation not in ACTIVATIONS:
    raise ValueError(
      f'tsukijinet: expected an activation of {", ".join(ACTIVATIONS)}, got '
      f'{activation!r}.'
    )
  hidden = (hidden,) if isinstance(hidden, int) else hidden
  size, least = kernel, min(input_shape[:2])
  if not padding and _left(least, kernel, stride, pool, len(conv)) < 2:
    padding, size = 'SAME', min(kernel, 3)
  padding = padding or 'VALID'
  layers: list[Layer] = []
  side = list(input_shape[:2])
  for i, features in enumerate(conv, 1):
    layers.append(
      Conv(
        name=f'conv{i}',
        features=features,
        kernel=(size, size),
        strides=(stride, stride),
        padding=padding,
      )
    )
    layers += [Norm(name=f'norm{i}')] * norm + [Act(fn=activation)]
    cut = size - 1 if padding == 'VALID' else 0
    side = [(n - cut + stride - 1) // stride for n in side]
    # A side shorter than the pool (a narrow sensor window) is not pooled.
    high, wide = (pool if n >= pool else 1 for n in side)
    side = [side[0] // high, side[1] // wide]
    if max(high, wide) > 1:
      layers.append(Pool(window=(high, wide), strides=(high, wide)))
  layers.append(Flatten())
  for i, features in enumerate(hidden, 1):
    layers += [Dense(name=f'dense{i}', features=features), Act(fn=activation)]
    layers += [Dropout(rate=dropout)] * (dropout > 0)
  layers.append(Dense(name=f'dense{len(hidden) + 1}', features=classes))
  return Spec(name=name, input_shape=input_shape, layers=tuple(layers))


def _left(side: int, kernel: int, stride: int, pool: int, depth: int) -> int:
  """Return the side that VALID windows leave before the dense layers."""
  for _ in range(depth):
    side = ((side - kernel) // stride + 1) // pool
  return side


@functools.wraps(tsukijinet, assigned=())  # the signature, for messages
def tsukijinet2021(input_shape: Shape, classes: int, **sizes: Any) -> Spec:
  """Return Tsukijinet with batch normalization after each convolution."""
  named: dict[str, Any] = {'name': 'tsukijinet2021', 'norm': True}
  return tsukijinet(input_shape, classes, **(named | sizes))


@functools.wraps(tsukijinet, assigned=())
def binary_tsukijinet(input_shape: Shape, classes: int, **sizes: Any) -> Spec:
  """Return Tsukijinet in the order that signs need: `pool_norm`."""
  named: dict[str, Any] = {'name': 'binary_tsukijinet'}
  named |= {'activation': 'hard_tanh', 'dropout': 0.0}
  return pool_norm(tsukijinet(input_shape, classes, **(named | sizes)))


def lenet_300_100(
  input_shape: Shape, classes: int, *, name: str = 'lenet_300_100'
) -> Spec:
  """Return LeNet-300-100 (266,610 parameters on 28x28x1; LeCun+ 1998)."""
  layers: list[Layer] = [Flatten()]
  for i, features in enumerate((300, 100), 1):
    layers += [Dense(name=f'dense{i}', features=features), Act()]
  layers.append(Dense(name='dense3', features=classes))
  return Spec(name=name, input_shape=input_shape, layers=tuple(layers))


def lenet5(input_shape: Shape, classes: int, *, name: str = 'lenet5') -> Spec:
  """Return LeNet-5 as Caffe ships it (431,080 parameters on 28x28x1)."""
  return Spec(
    name=name,
    input_shape=input_shape,
    layers=(
      Conv(name='conv1', features=20, kernel=(5, 5)),
      Pool(),
      Conv(name='conv2', features=50, kernel=(5, 5)),
      Pool(),
      Flatten(),
      Dense(name='dense1', features=500),
      Act(),
      Dense(name='dense2', features=classes),
    ),
  )


def vgg(
  input_shape: Shape,
  classes: int,
  *,
  widths: tuple[int, ...] = (64, 128, 256),
  stride: int = 1,
  name: str = 'vgg',
) -> Spec:
  """Return a small VGG: two 3x3 convolutions a stage, a pool after each.

  Args:
    input_shape: `(height, width, channels)`.
    classes: Number of outputs.
    widths: Filters of each stage; pools stop when a side would vanish.
    stride: Of the first convolution.
    name: Name of the network.

  Returns:
    The spec (Simonyan & Zisserman 2015, with batch normalization).
  """
  layers: list[Layer] = []
  side = -(-min(input_shape[:2]) // stride)
  for stage, features in enumerate(widths, 1):
    for i in (1, 2):
      first = not layers
      layers += conv_norm(f'conv{stage}_{i}', features, stride if first else 1)
    if side >= 2:
      layers.append(Pool())
      side //= 2
  layers += [GlobalMean(), Dense(name='dense', features=classes)]
  return Spec(name=name, input_shape=input_shape, layers=tuple(layers))


def small(
  input_shape: Shape,
  classes: int,
  *,
  widths: tuple[int, ...] = (16, 32, 32, 64),
  name: str = 'small',
) -> Spec:
  """Return the control: 3x3 convolutions, two pools, one dense layer.

  33,338 parameters on 28x28x1: what a compressed network of equal bytes has
  to beat.

  Args:
    input_shape: `(height, width, channels)`.
    classes: Number of outputs.
    widths: Filters of the convolutions; a pool after the second and the
      third, unless a side would vanish.
    name: Name of the network.

  Returns:
    The spec.
  """
  layers: list[Layer] = []
  for i, features in enumerate(widths, 1):
    layers += conv_norm(f'conv{i}', features)
    layers += [Pool()] * (i in (2, 3) and min(input_shape[:2]) >= 2 ** (i - 1))
  layers += [GlobalMean(), Dense(name='dense', features=classes)]
  return Spec(name=name, input_shape=input_shape, layers=tuple(layers))


def resnet(
  input_shape: Shape,
  classes: int,
  *,
  blocks: int = 1,
  widths: tuple[int, ...] = (16, 32, 64),
  stride: int = 1,
  name: str = 'resnet',
) -> Spec:
  """Return a small ResNet of `6 blocks + 2` layers (He+ 2016, section 4.2).

  Args:
    input_shape: `(height, width, channels)`.
    classes: Number of outputs.
    blocks: Residual blocks a stage.
    widths: Filters of each stage; every stage but the first halves the sides.
    stride: Of the first convolution.
    name: Name of the network.

  Returns:
    The spec; shortcuts are 1x1 convolutions where shapes change.
  """
  layers = conv_norm('conv0', widths[0], stride)
  before = widths[0]
  for stage, features in enumerate(widths, 1):
    for block in range(1, blocks + 1):
      stride = 2 if stage > 1 and block == 1 else 1
      layers += residual(f'block{stage}_{block}', before, features, stride)
      before = features
  layers += [GlobalMean(), Dense(name='dense', features=classes)]
  return Spec(name=name, input_shape=input_shape, layers=tuple(layers))


NETWORKS: dict[str, Callable[..., Spec]] = {
  'binary_googlenet': binary_googlenet,
  'binary_resnet': binary_resnet,
  'binary_tsukijinet': binary_tsukijinet,
  'binary_vgg': binary_vgg,
  'googlenet_small': googlenet_small,
  'lenet5': lenet5,
  'lenet_300_100': lenet_300_100,
  'resnet': resnet,
  'small': small,
  'student': student,
  'tsukijinet': tsukijinet,
  'tsukijinet2021': tsukijinet2021,
  'vgg': vgg,
}


def build(
  kind: str,
  input_shape: Shape,
  classes: int,
  moments: tuple[tuple[float, ...], tuple[float, ...]] = ((0.0,), (1.0,)),
  **sizes: Any,
) -> Spec:
  """Return a network of the zoo that takes raw values.

  Args:
    kind: One of `NETWORKS`, or 'package.module:function' of `(input_shape,
      outputs, **sizes)`, which returns a Flax module (Linen or NNX) or a pair
      `(init, apply)`.
    input_shape: `(height, width, channels)` of one example. Where a side is 1,
      as of windows of a sequence `(time, 1, channels)`, the network is that of
      the square, with windows and strides of 1 along the side.
    classes: Number of outputs.
    moments: Mean and standard deviation of the training data, per channel;
      they are part of the network, so that an artefact needs no preprocessing.
    **sizes: Passed to the network's function.

  Returns:
    The spec.

  Raises:
    ValueError: If there is no such network, it has no such size (the message
      gives the nearest), or its layers cannot take such inputs.
  """
  if ':' in kind:
    return outside.spec_of(kind, input_shape, classes, moments, **sizes)
  expect_name('zoo', kind, NETWORKS, 'a network')
  make = NETWORKS[kind]
  known = set(inspect.signature(make).parameters) - {'input_shape', 'classes'}
  for name in sizes:
    expect_name(kind, name, known, 'a size')
  mean, std = moments
  try:
    spec = flattened(make(squared(input_shape), classes, **sizes), input_shape)
    layers = (Standardise(mean=mean, std=std), *spec.layers)
    spec = Spec(name=spec.name, input_shape=input_shape, layers=layers)
    output_shape(spec)
  except (TypeError, ValueError, ArithmeticError) as e:
    raise ValueError(
      f'zoo: expected sizes that make a {kind} on {input_shape}, got '
      f'{sizes!r}. {e}'
    ) from e
  return spec
