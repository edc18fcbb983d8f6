"""The layers of a network, as records."""

import dataclasses
import typing
from typing import TypeAlias

Padding: TypeAlias = str  # 'VALID' or 'SAME'
ACTIVATIONS = (
  *('relu', 'leaky_relu', 'elu', 'gelu', 'silu'),
  *('tanh', 'hard_tanh', 'sigmoid'),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standardise:
  """Subtract `mean` and divide by `std`, per channel, in raw pixel units."""

  mean: tuple[float, ...]
  std: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conv:
  """Convolve `[height, width, channels]` with `features` filters."""

  name: str
  features: int
  kernel: tuple[int, int]
  strides: tuple[int, int] = (1, 1)
  padding: Padding = 'VALID'
  groups: int = 1
  bias: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dense:
  """Multiply `[channels]` by a matrix."""

  name: str
  features: int
  bias: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Norm:
  """Normalize each channel by batch statistics."""

  name: str
  momentum: float = 0.9
  epsilon: float = 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShiftNorm(Norm):
  """Normalize each channel with powers of two for factors; see `norm.Norm`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Act:
  """Apply an activation function."""

  fn: str = 'relu'


@dataclasses.dataclass(frozen=True, kw_only=True)
class PReLU:
  """Multiply negative values by a learned slope per channel.

  With `shifts` the corner is moved by a learned amount a channel, and so is
  the result (RPReLU of ReActNet).
  """

  name: str
  shifts: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool:
  """Reduce windows of `[height, width]`, VALID, by 'max' or 'mean'."""

  window: tuple[int, int] = (2, 2)
  strides: tuple[int, int] = (2, 2)
  kind: str = 'max'


@dataclasses.dataclass(frozen=True, kw_only=True)
class GlobalMean:
  """Average over height and width."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flatten:
  """Lay out `[height, width, channels]` as one axis."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dropout:
  """Drop inputs with probability `rate` in training."""

  rate: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Own:
  """Apply a network from outside, in one piece (`models.own`).

  Attributes:
    name: Of the layer.
    function: 'package.module:function' of `(input_shape, outputs, **sizes)`.
    outputs: Numbers that it gives.
    sizes: Its other arguments, as JSON.
  """

  name: str
  function: str
  outputs: int
  sizes: str = '{}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Branch:
  """Feed one input to several paths and 'add' or 'concat' their outputs."""

  paths: tuple[tuple['Layer', ...], ...]
  merge: str = 'add'


Layer: TypeAlias = (
  Standardise
  | Conv
  | Dense
  | Norm
  | ShiftNorm
  | Act
  | PReLU
  | Pool
  | GlobalMean
  | Flatten
  | Dropout
  | Branch
  | Own
)
# What files may hold: none of them has code of its own.
KINDS = {kind.__name__: kind for kind in typing.get_args(Layer)}
del KINDS['Own']
CHOICES = {
  'fn': ACTIVATIONS,
  'kind': ('max', 'mean'),
  'merge': ('add', 'concat'),
  'padding': ('VALID', 'SAME'),
}
