"""Blocks of convolutions that networks of the zoo are built from."""

from tsukiji.models.spec import Act, Branch, Conv, Layer, Norm


def conv_norm(
  name: str, features: int, stride: int = 1, kernel: int = 3, groups: int = 1
) -> list[Layer]:
  """Return a SAME convolution without bias, its norm and a ReLU."""
  return [
    Conv(
      name=name,
      features=features,
      kernel=(kernel, kernel),
      strides=(stride, stride),
      padding='SAME',
      groups=groups,
      bias=False,
    ),
    Norm(name=f'{name}_norm'),
    Act(),
  ]


def residual(
  name: str, before: int, features: int, stride: int = 1, kernel: int = 3
) -> list[Layer]:
  """Return two convolutions with a shortcut (He+ 2016, figure 2).

  Args:
    name: Prefix of the names of layers.
    before: Channels of the input.
    features: Channels of the output.
    stride: Of the first convolution and of the shortcut.
    kernel: Height and width of the filters.

  Returns:
    The layers; the shortcut is a 1x1 convolution where shapes change.
  """
  body = [
    *conv_norm(f'{name}_conv1', features, stride, kernel),
    *conv_norm(f'{name}_conv2', features, 1, kernel)[:-1],
  ]
  shortcut: list[Layer] = []
  if stride > 1 or before != features:
    shortcut = conv_norm(f'{name}_skip', features, stride, 1)[:-1]
  return [Branch(paths=(tuple(body), tuple(shortcut))), Act()]


def separable(
  name: str, before: int, features: int, stride: int = 1, kernel: int = 3
) -> list[Layer]:
  """Return a filter a channel, then a 1x1 convolution (Howard+ 2017).

  MobileNets, arXiv 1704.04861, section 3.1; see `residual` for arguments.
  """
  return [
    *conv_norm(f'{name}_depth', before, stride, kernel, groups=before),
    *conv_norm(f'{name}_point', features, 1, 1),
  ]
