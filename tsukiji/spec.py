"""A network as a value: a tuple of layer records.

Removing a filter or a layer, or replacing a layer by its factors, is an edit
of this value; MACs, bytes and energy are folds over it; it travels with the
packed network as JSON.
"""

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

Shape: TypeAlias = tuple[int, ...]  # one example, channels last
Padding: TypeAlias = str  # 'VALID' or 'SAME'
ACTIVATIONS = ('relu', 'leaky_relu', 'elu', 'gelu', 'silu', 'tanh', 'sigmoid')


def record(cls: type) -> Any:
  """Make a frozen, keyword-only record."""
  return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


@record
class Standardise:
  """Subtract `mean` and divide by `std`, per channel, in raw pixel units."""

  mean: tuple[float, ...]
  std: tuple[float, ...]


@record
class Conv:
  """Convolve `[height, width, channels]` with `features` filters."""

  name: str
  features: int
  kernel: tuple[int, int]
  strides: tuple[int, int] = (1, 1)
  padding: Padding = 'VALID'
  groups: int = 1
  bias: bool = True


@record
class Dense:
  """Multiply `[channels]` by a matrix."""

  name: str
  features: int
  bias: bool = True


@record
class Norm:
  """Normalise each channel by batch statistics."""

  name: str
  momentum: float = 0.9
  epsilon: float = 1e-5


@record
class Act:
  """Apply an activation function."""

  fn: str = 'relu'


@record
class Pool:
  """Reduce windows of `[height, width]`, VALID, by 'max' or 'mean'."""

  window: tuple[int, int] = (2, 2)
  strides: tuple[int, int] = (2, 2)
  kind: str = 'max'


@record
class GlobalMean:
  """Average over height and width."""


@record
class Flatten:
  """Lay out `[height, width, channels]` as one axis."""


@record
class Dropout:
  """Drop inputs with probability `rate` in training."""

  rate: float


@record
class Branch:
  """Feed one input to several paths and 'add' or 'concat' their outputs."""

  paths: tuple[tuple['Layer', ...], ...]
  merge: str = 'add'


Layer: TypeAlias = (
  Standardise
  | Conv
  | Dense
  | Norm
  | Act
  | Pool
  | GlobalMean
  | Flatten
  | Dropout
  | Branch
)
KINDS = {
  kind.__name__: kind
  for kind in (
    Standardise,
    Conv,
    Dense,
    Norm,
    Act,
    Pool,
    GlobalMean,
    Flatten,
    Dropout,
    Branch,
  )
}


@record
class Spec:
  """A network: what it is called, what it takes, and its layers in order.

  Attributes:
    name: For tables and files.
    input_shape: `(height, width, channels)` of one example.
    layers: Applied in order.
  """

  name: str
  input_shape: Shape
  layers: tuple[Layer, ...]


class Step(NamedTuple):
  """A layer and the shapes of one example before and after it."""

  layer: Layer
  before: Shape
  after: Shape


def walk(spec: Spec) -> Iterator[Step]:
  """Yield every layer with its shapes, in order; branches after their paths.

  Args:
    spec: The network.

  Yields:
    One `Step` a layer.

  Raises:
    ValueError: If a layer cannot take the shape it is given.
  """
  yield from _walk(spec.layers, spec.input_shape)


def _walk(layers: tuple[Layer, ...], shape: Shape) -> Iterator[Step]:
  for layer in layers:
    outs = []
    if isinstance(layer, Branch):
      for path in layer.paths:
        last = shape
        for step in _walk(path, shape):
          yield step
          last = step.after
        outs.append(last)
    after = _after(layer, shape, outs)
    yield Step(layer, shape, after)
    shape = after


def output_shape(spec: Spec) -> Shape:
  """Return the shape of one output.

  >>> net = Spec(name='n', input_shape=(4, 4, 1), layers=(Flatten(),))
  >>> output_shape(net)
  (16,)
  """
  shape = spec.input_shape
  for layer in spec.layers:
    *_, step = _walk((layer,), shape)
    shape = step.after
  return shape


def _after(layer: Layer, shape: Shape, outs: list[Shape]) -> Shape:
  """Return the shape behind a layer."""
  match layer:
    case Conv():
      _expect(layer, shape, 3)
      size = _windows(layer, shape, layer.kernel, layer.padding)
      return (*size, layer.features)
    case Pool():
      _expect(layer, shape, 3)
      return (*_windows(layer, shape, layer.window, 'VALID'), shape[2])
    case Dense():
      _expect(layer, shape, 1)
      return (layer.features,)
    case GlobalMean():
      _expect(layer, shape, 3)
      return shape[-1:]
    case Flatten():
      return (math.prod(shape),)
    case Branch():
      return _merged(layer, shape, outs)
  return shape


def _windows(
  layer: Conv | Pool, shape: Shape, window: Shape, padding: Padding
) -> Shape:
  pad = 0 if padding == 'VALID' else 1
  size = tuple(
    -(-n // s) if pad else (n - k) // s + 1
    for n, k, s in zip(shape[:2], window, layer.strides, strict=True)
  )
  if min(size) < 1:
    raise ValueError(
      f'{_label(layer)}: expected an input of at least {window}, got '
      f'{shape[:2]}. Use a smaller window, SAME padding or fewer pools.'
    )
  return size


def _merged(layer: Branch, shape: Shape, outs: list[Shape]) -> Shape:
  if layer.merge == 'concat' and len({o[:-1] for o in outs}) == 1:
    return (*outs[0][:-1], sum(o[-1] for o in outs))
  if layer.merge == 'add' and len(set(outs)) == 1:
    return outs[0]
  raise ValueError(
    f'Branch: expected paths that {layer.merge!r} can merge, got outputs '
    f'{outs} of input {shape}. Make the shapes equal (1x1 convolution).'
  )


def _expect(layer: Layer, shape: Shape, axes: int) -> None:
  if len(shape) != axes:
    raise ValueError(
      f'{_label(layer)}: expected an input of {axes} axes, got {shape}. '
      'Put Flatten or GlobalMean between convolutions and dense layers.'
    )


def _label(layer: Layer) -> str:
  return getattr(layer, 'name', type(layer).__name__)


def dumps(spec: Spec) -> str:
  """Return the network as JSON text; `loads` is the inverse."""
  return json.dumps(_plain(spec), separators=(',', ':'), sort_keys=True)


def loads(text: str) -> Spec:
  """Read a network back from JSON text.

  Args:
    text: What `dumps` wrote.

  Returns:
    The network, equal to the one written.

  Raises:
    ValueError: If the text is not a network.
  """
  try:
    plain = json.loads(text)
    layers = tuple(_layer(x) for x in plain['layers'])
    spec = Spec(
      name=str(plain['name']),
      input_shape=_tuples(plain['input_shape']),
      layers=layers,
    )
    output_shape(spec)
  except (KeyError, TypeError, AttributeError, RecursionError) as e:
    raise ValueError(
      f'spec: expected the JSON of a network, got {text[:60]!r}. {e!r}.'
    ) from e
  return spec


def _plain(x: Any) -> Any:
  if dataclasses.is_dataclass(x):
    fields = {f.name: _plain(getattr(x, f.name)) for f in dataclasses.fields(x)}
    if isinstance(x, Spec):
      return fields
    return {'layer': type(x).__name__, **fields}
  if isinstance(x, tuple):
    return [_plain(item) for item in x]
  return x


def _layer(plain: dict[str, Any]) -> Layer:
  fields = dict(plain)
  kind = KINDS[fields.pop('layer')]
  if kind is Branch:
    fields['paths'] = tuple(
      tuple(_layer(x) for x in path) for path in fields['paths']
    )
  return kind(**{k: _tuples(v) for k, v in fields.items()})


def _tuples(x: Any) -> Any:
  return tuple(_tuples(item) for item in x) if isinstance(x, list) else x
