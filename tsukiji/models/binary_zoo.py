"""Networks for binary weights and inputs."""

import dataclasses

from tsukiji.errors import expect, expect_name
from tsukiji.models.spec import (
  ACTIVATIONS,
  Act,
  Branch,
  Conv,
  Dense,
  Dropout,
  GlobalMean,
  Layer,
  Norm,
  Pool,
  PReLU,
  Shape,
  ShiftNorm,
  Spec,
  map_layers,
)

LEARNED = ('prelu', 'rprelu')  # activations with parameters


def pool_norm(spec: Spec) -> Spec:
  """Return a network with layers in the order weight, pool, norm, activation.

  Pooling comes before the norm, so that the input of the next weight has a mean
  near 0 and both signs; after signs, a maximum would be +1 nearly everywhere
  (Rastegari+ 2016, arXiv 1603.05279, figure 3). Every convolution and dense
  layer has a norm in place of its bias, the last one too, whose sums of signs
  would be large logits. There is no dropout: a dropped 0 would become a +1.

  Args:
    spec: A network whose layers follow one another, without branches.

  Returns:
    The network, its norms `NAME_norm`.

  >>> pool = (Conv(name='c', features=2, kernel=(3, 3)), Act(), Pool())
  >>> pool_norm(Spec(name='n', input_shape=(4, 4, 1), layers=pool)).layers[1:]
  (Pool(...), Norm(name='c_norm', ...), Act(fn='relu'))
  """
  units: list[list[Layer]] = [[]]
  for layer in spec.layers:
    if isinstance(layer, Conv | Dense):
      units.append([])
    units[-1].append(layer)
  layers = units[0]
  for first, *rest in units[1:]:
    assert isinstance(first, Conv | Dense)
    layers.append(dataclasses.replace(first, bias=False))
    layers += [x for x in rest if isinstance(x, Pool)]
    layers.append(Norm(name=f'{first.name}_norm'))
    layers += [x for x in rest if not isinstance(x, Pool | Norm | Dropout)]
  return dataclasses.replace(spec, layers=tuple(layers))


def binary_vgg(
  input_shape: Shape,
  classes: int,
  *,
  widths: tuple[int, ...] = (64, 128, 256),
  stride: int = 1,
  shortcuts: bool = True,
  activation: str = 'rprelu',
  shift: bool = False,
  name: str = 'binary_vgg',
) -> Spec:
  """Return a small VGG for signs: two 3x3 convolutions per stage, then a pool.

  With shortcuts it is of the modern form: an identity around every convolution
  but the first carries what its signs lose (Bi-Real Net, Liu+ 2018, arXiv
  1808.00278), repeated where a stage is wider (ReActNet, Liu+ 2020,
  arXiv 2003.03488), and activations have learned shifts. Without,
  and with 'hard_tanh', it is in the order of `pool_norm`.

  Args:
    input_shape: `(height, width, channels)`.
    classes: Number of outputs.
    widths: Filters of each stage; pools stop when a side would vanish. With
      shortcuts each is a multiple of the one before.
    stride: Of the first convolution.
    shortcuts: Whether convolutions have identities around them.
    activation: One of `spec.ACTIVATIONS`, 'prelu', or 'rprelu' with shifts.
    shift: Whether the factors of its norms are powers of two; see `shifted`.
    name: Name of the network.

  Returns:
    The spec; the last layer has a norm, whatever its weights are.

  Raises:
    ValueError: If there is no such activation, or a stage cannot be reached
      by repeating.
  """
  layers: list[Layer] = []
  before, side = 0, -(-min(input_shape[:2]) // stride)
  for stage, features in enumerate(widths, 1):
    for i in (1, 2):
      at = f'conv{stage}_{i}'
      pool = [Pool()] if i == 2 and side >= 2 else []
      act = activation_of(name, activation, f'{at}_act')
      norm = Norm(name=f'{at}_norm')
      if shortcuts and before:
        body = (_conv(f'{at}_conv', features), norm)
        around = repeated(name, before, features)
        layers += [Branch(paths=(body, around)), act, *pool]
      else:
        first = _conv(at, features, 1 if before else stride)
        layers += [first, *pool, norm, act]
      before = features
    side //= 2 if side >= 2 else 1
  layers += [GlobalMean(), Dense(name='dense', features=classes, bias=False)]
  layers.append(Norm(name='dense_norm'))
  spec = Spec(name=name, input_shape=input_shape, layers=tuple(layers))
  return shifted(spec) if shift else spec


def binary_resnet(
  input_shape: Shape,
  classes: int,
  *,
  blocks: int = 1,
  widths: tuple[int, ...] = (16, 32, 64),
  stride: int = 1,
  shortcuts: str = 'convolutions',
  activation: str = 'rprelu',
  name: str = 'binary_resnet',
) -> Spec:
  """Return a small ResNet for signs (He+ 2016, section 4.2).

  Shortcuts have no weights: where a stage begins, every other pixel is left
  out, and channels are repeated. Around every convolution they carry what its
  signs lose (Bi-Real Net, Liu+ 2018, arXiv 1808.00278, figure 3).

  Args:
    input_shape: `(height, width, channels)`.
    classes: Number of outputs.
    blocks: Residual blocks a stage, of two 3x3 convolutions.
    widths: Filters of each stage, each a multiple of the one before; every
      stage but the first halves the sides.
    stride: Of the first convolution.
    shortcuts: Around 'convolutions', or around 'blocks' as He+.
    activation: One of `spec.ACTIVATIONS`, 'prelu', or 'rprelu' with shifts.
    name: Name of the network.

  Returns:
    The spec; the last layer has a norm, whatever its weights are.

  Raises:
    ValueError: If there is no such activation or shortcut, or a stage cannot
      be reached by repeating.
  """
  expect_name(f'{name}.shortcuts', shortcuts, ('blocks', 'convolutions'))

  def weighted(at: str, features: int, step: int = 1) -> tuple[Layer, ...]:
    return _conv(at, features, step), Norm(name=f'{at}_norm')

  def act(at: str) -> Layer:
    return activation_of(name, activation, f'{at}_act')

  before = widths[0]
  layers = [*weighted('conv0', before, stride), act('conv0')]
  for stage, features in enumerate(widths, 1):
    for block in range(1, blocks + 1):
      first, last = (f'block{stage}_{block}_conv{i}' for i in (1, 2))
      step = 2 if stage > 1 and block == 1 else 1
      around = repeated(name, before, features)
      if step > 1:
        around = (Pool(window=(1, 1), strides=(step, step)), *around)
      one, two = weighted(first, features, step), weighted(last, features)
      if shortcuts == 'blocks':
        layers.append(Branch(paths=((*one, act(first), *two), around)))
      else:
        layers += [Branch(paths=(one, around)), act(first)]
        layers.append(Branch(paths=(two, ())))
      layers.append(act(last))
      before = features
  layers += [GlobalMean(), Dense(name='dense', features=classes, bias=False)]
  layers.append(Norm(name='dense_norm'))
  return Spec(name=name, input_shape=input_shape, layers=tuple(layers))


def shifted(spec: Spec) -> Spec:
  """Return the network with powers of two for the factors of its norms.

  Batch norms without a product (Courbariaux & Hubara+ 2016, arXiv 1602.02830,
  section 3.4), in training and in inference.

  >>> shifted(Spec(name='n', input_shape=(4,), layers=(Norm(name='n'),))).layers
  (ShiftNorm(name='n', momentum=0.9, epsilon=1e-05),)
  """

  def shift(layer: Layer) -> Layer:
    if not isinstance(layer, Norm):
      return layer
    return ShiftNorm(**dataclasses.asdict(layer))

  return map_layers(shift, spec)


def _conv(name: str, features: int, stride: int = 1) -> Conv:
  """Return a 3x3 convolution that keeps the sides, or divides them."""
  return Conv(
    name=name,
    features=features,
    kernel=(3, 3),
    strides=(stride, stride),
    padding='SAME',
    bias=False,
  )


def activation_of(where: str, kind: str, name: str) -> Layer:
  """Return an activation of one of the kinds that binary networks take.

  Args:
    where: The network, for the message.
    kind: One of `spec.ACTIVATIONS`, 'prelu', or 'rprelu' with shifts.
    name: Of the layer, if it learns.

  Returns:
    The layer.

  Raises:
    ValueError: If there is no such activation.
  """
  known = (*ACTIVATIONS, *LEARNED)
  what = f'an activation of {", ".join(known)}'
  expect(where, kind in known, what, kind)
  if kind in LEARNED:
    return PReLU(name=name, shifts=kind == 'rprelu')
  return Act(fn=kind)


def repeated(where: str, before: int, features: int) -> tuple[Layer, ...]:
  """Return the shortcut that repeats its channels to match the outputs.

  Args:
    where: The network, for the message.
    before: Channels of the input.
    features: Channels of the output.

  Returns:
    The layers; none where the two are equal.

  Raises:
    ValueError: If the outputs are not a multiple of the inputs.
  """
  times, rest = divmod(features, before)
  fix = 'Choose other widths, or shortcuts=False.'
  what = f'a width that is a multiple of {before}'
  expect(where, times and not rest, what, features, fix)
  if times == 1:
    return ()
  return (Branch(paths=((),) * times, merge='concat'),)
