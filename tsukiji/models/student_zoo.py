"""Small networks in one family, for searches within a budget."""

from tsukiji.errors import expect, expect_name
from tsukiji.models.blocks import conv_norm, residual, separable
from tsukiji.models.spec import (
  Act,
  Dense,
  Dropout,
  Flatten,
  GlobalMean,
  Layer,
  Pool,
  Shape,
  Spec,
)

BLOCKS = ('plain', 'residual', 'depthwise')
HEADS = ('mean', 'flat')
SHORT = 4  # sides from which there is a pool


def student(
  input_shape: Shape,
  classes: int,
  *,
  width: int = 8,
  growth: float = 2.0,
  stages: int = 3,
  blocks: int = 0,
  block: str = 'plain',
  kernel: int = 3,
  stride: int = 1,
  head: str = 'mean',
  hidden: int = 0,
  dropout: float = 0.0,
  name: str = 'student',
) -> Spec:
  """Return a small network of stages, with a pool between them.

  The first layer is a full convolution. Every later stage begins with a block
  that widens, and each has `blocks` more.

  Args:
    input_shape: `(height, width, channels)`.
    classes: Number of outputs.
    width: Filters of the first stage.
    growth: Filters of a stage over those of the one before.
    stages: Number of stages; pools leave short sides alone.
    blocks: More blocks a stage.
    block: 'plain' (a convolution), 'residual' (two and a shortcut) or
      'depthwise' (a filter a channel, then a 1x1 convolution).
    kernel: Height and width of the filters.
    stride: Of the first convolution.
    head: Whether the last stage is averaged ('mean') or laid out ('flat').
    hidden: Units of a dense layer before the last; 0 for none.
    dropout: Probability of dropping an input of the last layer in training.
    name: Name of the network.

  Returns:
    The spec; 6,274 parameters on 28x28x1 with 10 classes.

  Raises:
    ValueError: If a size is not valid.
  """
  expect_name('student.block', block, BLOCKS)
  expect_name('student.head', head, HEADS)
  expect('student.stages', stages >= 1, 'at least 1', stages)
  expect('student.blocks', blocks >= 0, 'at least 0', blocks)
  layers = conv_norm('conv', width, stride, kernel)
  sides, before = [-(-side // stride) for side in input_shape[:2]], width
  for stage in range(stages):
    features = max(1, round(width * growth**stage))
    for i in range(blocks + (stage > 0)):
      title = f'stage{stage + 1}_{i + 1}'
      layers += _block(block, title, before, features, kernel)
      before = features
    high, wide = (2 if side >= SHORT else 1 for side in sides)
    if max(high, wide) > 1 and stage + 1 < stages:
      layers.append(Pool(window=(high, wide), strides=(high, wide)))
      sides = [sides[0] // high, sides[1] // wide]
  # Of one pixel there is no mean.
  mean = head == 'mean' and max(sides) > 1
  layers.append(GlobalMean() if mean else Flatten())
  if hidden:
    layers += [Dense(name='hidden', features=hidden), Act()]
  layers += [Dropout(rate=dropout)] * (dropout > 0)
  layers.append(Dense(name='dense', features=classes))
  return Spec(name=name, input_shape=input_shape, layers=tuple(layers))


def _block(
  kind: str, name: str, before: int, features: int, kernel: int
) -> list[Layer]:
  if kind == 'residual':
    return residual(name, before, features, kernel=kernel)
  if kind == 'depthwise':
    return separable(name, before, features, kernel=kernel)
  return conv_norm(name, features, kernel=kernel)
