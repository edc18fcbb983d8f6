"""A network as a value: a tuple of layer records.

Removing a filter or a layer, or replacing a layer by its factors, is an edit
of this value; MACs, bytes and energy are folds over it; it travels with the
packed network as JSON.
"""

import dataclasses
import inspect
import json
import math
import typing
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

from tsukiji.errors import expect
from tsukiji.models.layers import (
  ACTIVATIONS,
  CHOICES,
  KINDS,
  Act,
  Branch,
  Conv,
  Dense,
  Dropout,
  Flatten,
  GlobalMean,
  Layer,
  Norm,
  Own,
  Padding,
  Pool,
  PReLU,
  ShiftNorm,
  Standardise,
)

__all__ = [
  'ACTIVATIONS',
  'Act',
  'Branch',
  'CHOICES',
  'Conv',
  'Dense',
  'Dropout',
  'Flatten',
  'GlobalMean',
  'KINDS',
  'Layer',
  'Norm',
  'Own',
  'PReLU',
  'Padding',
  'Pool',
  'Shape',
  'ShiftNorm',
  'Spec',
  'Standardise',
  'Step',
  'dumps',
  'expand_layers',
  'is_own',
  'loads',
  'map_layers',
  'output_shape',
  'walk',
  'with_dropout',
]

Shape: TypeAlias = tuple[int, ...]  # one example, channels last


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
  """A network: its name, input shape and layers.

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
    ValueError: If a layer has a field that cannot be or the name of another,
      or cannot take the shape it is given.
  """
  _check_fields(spec)
  steps = list(_walk(spec.layers, spec.input_shape))
  names = Counter(_label(s.layer) for s in steps if hasattr(s.layer, 'name'))
  for name, count in names.items():
    expect(name, count == 1, 'one layer of this name', count)
  yield from steps


def map_layers(fn: Callable[[Layer], Layer], spec: Spec) -> Spec:
  """Replace every layer by `fn(layer)`; branches after their paths."""
  return expand_layers(lambda layer: (fn(layer),), spec)


def expand_layers(fn: Callable[[Layer], tuple[Layer, ...]], spec: Spec) -> Spec:
  """Replace every layer by those of `fn(layer)`; branches after their paths."""

  def visit(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    visited = (
      dataclasses.replace(x, paths=tuple(map(visit, x.paths)))
      if isinstance(x, Branch)
      else x
      for x in layers
    )
    return tuple(new for x in visited for new in fn(x))

  return dataclasses.replace(spec, layers=visit(spec.layers))


def is_own(spec: Spec) -> bool:
  """Return whether a network comes from outside, in one piece."""
  return any(isinstance(layer, Own) for layer in spec.layers)


def with_dropout(spec: Spec, rate: float) -> Spec:
  """Return the network with another dropout rate.

  A network of fewer weights overfits less and needs less dropout (Han+ 2015,
  arXiv 1506.02626, section 3.2).

  >>> net = Spec(name='n', input_shape=(4,), layers=(Dropout(rate=0.5),))
  >>> with_dropout(net, 0.25).layers
  (Dropout(rate=0.25),)
  """
  return map_layers(
    lambda layer: (
      dataclasses.replace(layer, rate=rate)
      if isinstance(layer, Dropout)
      else layer
    ),
    spec,
  )


def _walk(layers: tuple[Layer, ...], shape: Shape) -> Iterator[Step]:
  for layer in layers:
    _check_fields(layer)
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
  for step in walk(spec):
    shape = step.after
  return shape


def _after(layer: Layer, shape: Shape, outs: list[Shape]) -> Shape:
  """Return the shape behind a layer."""
  where = _label(layer)
  match layer:
    case Standardise(mean=mean, std=std):
      right = {len(mean), len(std)} <= {1, *shape[-1:]}
      expect(where, right, f'1 or {shape[-1:]} means and deviations', layer)
    case Conv(groups=groups):
      _expect_axes(where, shape, 3)
      right = not (shape[2] % groups or layer.features % groups)
      what = f'groups that divide {shape[2]} and {layer.features} channels'
      expect(where, right, what, groups)
      size = _windows(layer, shape, layer.kernel, layer.padding)
      return (*size, layer.features)
    case Pool():
      _expect_axes(where, shape, 3)
      return (*_windows(layer, shape, layer.window, 'VALID'), shape[2])
    case Dense():
      _expect_axes(where, shape, 1)
      return (layer.features,)
    case GlobalMean():
      _expect_axes(where, shape, 3)
      return shape[-1:]
    case Flatten():
      return (math.prod(shape),)
    case Own():
      return (layer.outputs,)
    case Dropout(rate=rate):
      expect(where, 0 <= rate < 1, 'a rate in [0, 1)', rate)
    case Branch():
      return _merged(layer, shape, outs)
  return shape


def _windows(
  layer: Conv | Pool, shape: Shape, window: Shape, padding: Padding
) -> Shape:
  size = tuple(
    -(-n // s) if padding == 'SAME' else (n - k) // s + 1
    for n, k, s in zip(shape[:2], window, layer.strides, strict=True)
  )
  fix = 'Use a smaller window, SAME padding or fewer pools.'
  what = f'an input of at least {window}'
  expect(_label(layer), min(size) >= 1, what, shape[:2], fix)
  return size


def _merged(layer: Branch, shape: Shape, outs: list[Shape]) -> Shape:
  if layer.merge == 'concat' and len({o[:-1] for o in outs}) == 1:
    return (*outs[0][:-1], sum(o[-1] for o in outs))
  right = layer.merge == 'add' and len(set(outs)) == 1
  what = f'paths that {layer.merge!r} can merge on an input {shape}'
  fix = 'Make the shapes equal (1x1 convolution).'
  expect('Branch', right, what, outs, fix)
  return outs[0]


def _check_fields(x: Layer | Spec) -> None:
  """Check the values of fields against their annotations."""
  for name, hint in typing.get_type_hints(type(x)).items():
    value, known = getattr(x, name), CHOICES.get(name)
    right = value in known if known else _fits(value, hint)
    what = ', '.join(known or (inspect.formatannotation(hint),))
    fix = 'Sizes are integers from 1.'
    expect(_label(x), right, f'{name} to be {what}', value, fix)


def _fits(x: Any, hint: Any) -> bool:
  """Return whether a value is of a type; integers are sizes, from 1."""
  if typing.get_origin(hint) is tuple:
    inner = typing.get_args(hint)
    if not isinstance(x, tuple):
      return False
    inner = inner[:1] * len(x) if ... in inner else inner
    return len(x) == len(inner) and all(map(_fits, x, inner))
  if hint is int:
    return type(x) is int and 0 < x < 2**31
  if hint is float:
    return type(x) in (int, float) and abs(x) < math.inf
  return isinstance(x, hint)


def _expect_axes(where: str, shape: Shape, axes: int) -> None:
  fix = 'Put Flatten or GlobalMean between convolutions and dense layers.'
  expect(where, len(shape) == axes, f'an input of {axes} axes', shape, fix)


def _label(x: Layer | Spec) -> str:
  return getattr(x, 'name', type(x).__name__)


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
  except (json.JSONDecodeError, KeyError, TypeError, RecursionError) as e:
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
