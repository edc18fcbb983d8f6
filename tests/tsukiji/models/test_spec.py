"""Networks as values: shapes, JSON, and what is refused."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsukiji.models import spec as sp
from tsukiji.models.net import Net
from tsukiji.models.spec import Layer, Shape, Spec

# Examples are made on machines that train networks at the same time.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
STRIDES = st.sampled_from([(1, 1), (2, 2), (1, 2)])


def network(*layers: Layer, shape: Shape = (6, 6, 2)) -> Spec:
  return Spec(name='net', input_shape=shape, layers=layers)


def after(shape: Shape, *layers: Layer) -> Shape:
  return sp.output_shape(network(*layers, shape=shape))


ANYWHERE = ('act', 'prelu', 'norm', 'dropout', 'flatten', 'branch')


@st.composite
def specs(draw: st.DrawFn) -> Spec:
  """Draw a network whose layers fit, with every kind of layer in reach."""
  side, names = st.integers(3, 9), itertools.count()
  shape = draw(st.tuples(side, side, st.integers(1, 4)))
  layers: list[Layer] = []
  for _ in range(draw(st.integers(0, 5))):
    layers.append(draw_layer(draw, after(shape, *layers), names))
  return network(*layers, shape=shape)


def draw_layer(draw: st.DrawFn, shape: Shape, names: Iterator[int]) -> Layer:
  """Draw a layer that takes inputs of a shape."""
  name = f'layer{next(names)}'
  deep = ('conv', 'pool', 'mean', 'standardise') if len(shape) == 3 else ()
  match draw(st.sampled_from([*(deep or ['dense']), *ANYWHERE])):
    case 'conv':
      return draw_conv(draw, shape, name)
    case 'pool':
      window = draw(st.tuples(*(st.integers(1, min(3, n)) for n in shape[:2])))
      kind = draw(st.sampled_from(['max', 'mean']))
      return sp.Pool(window=window, strides=draw(STRIDES), kind=kind)
    case 'mean':
      return sp.GlobalMean()
    case 'standardise':
      numbers = st.tuples(*[st.floats(0.5, 2)] * shape[2])
      return sp.Standardise(mean=draw(numbers), std=draw(numbers))
    case 'dense':
      return sp.Dense(name=name, features=3, bias=draw(st.booleans()))
    case 'act':
      return sp.Act(fn=draw(st.sampled_from(sp.ACTIVATIONS)))
    case 'prelu':
      return sp.PReLU(name=name, shifts=draw(st.booleans()))
    case 'norm':
      kind = draw(st.sampled_from([sp.Norm, sp.ShiftNorm]))
      return kind(name=name, momentum=draw(st.floats(0, 1)), epsilon=0.1)
    case 'dropout':
      return sp.Dropout(rate=draw(st.floats(0, 0.9)))
    case 'flatten':
      return sp.Flatten()
  return draw_branch(draw, shape, names)


def draw_conv(draw: st.DrawFn, shape: Shape, name: str) -> sp.Conv:
  groups = draw(st.sampled_from([g for g in (1, 2, 3) if shape[2] % g == 0]))
  return sp.Conv(
    name=name,
    features=groups * draw(st.integers(1, 3)),
    kernel=draw(st.tuples(*(st.integers(1, min(3, n)) for n in shape[:2]))),
    strides=draw(STRIDES),
    padding=draw(st.sampled_from(['SAME', 'VALID'])),
    groups=groups,
    bias=draw(st.booleans()),
  )


def draw_branch(
  draw: st.DrawFn, shape: Shape, names: Iterator[int]
) -> sp.Branch:
  """Draw two paths whose layers keep the input's shape."""
  kept = [sp.Norm(name=f'layer{next(names)}'), sp.Act(fn='tanh')]
  if len(shape) == 3:
    fields = {'features': shape[2], 'padding': 'SAME'}
    name = f'layer{next(names)}'
    kept.append(sp.Conv(name=name, kernel=(3, 2), **fields))
  cut = draw(st.integers(0, len(kept)))
  paths = (tuple(kept[:cut]), tuple(kept[cut:]))
  return sp.Branch(paths=paths, merge=draw(st.sampled_from(['add', 'concat'])))


@settings(PATIENT, max_examples=100)
@given(specs())
def test_json_round_trip(spec: Spec) -> None:
  text = sp.dumps(spec)
  assert sp.loads(text) == spec
  assert sp.dumps(sp.loads(text)) == text


@settings(PATIENT, max_examples=25)
@given(specs())
def test_shapes_are_those_of_the_module(spec: Spec) -> None:
  x = jax.ShapeDtypeStruct((2, *spec.input_shape), jnp.uint8)
  y, _ = jax.eval_shape(Net(spec).init_with_output, jax.random.key(0), x)
  assert (y.shape, y.dtype) == ((2, *sp.output_shape(spec)), jnp.float32)


def test_walk_gives_paths_before_their_branch() -> None:
  conv = sp.Conv(name='conv', features=4, kernel=(3, 3), strides=(2, 2))
  skip = sp.Pool(window=(3, 3), strides=(2, 2), kind='mean')
  branch = sp.Branch(paths=((conv,), (skip,)), merge='concat')
  found = list(
    sp.walk(network(sp.Act(), branch, sp.Flatten(), shape=(7, 9, 2)))
  )
  assert [tuple(step) for step in found] == [
    (sp.Act(), (7, 9, 2), (7, 9, 2)),
    (conv, (7, 9, 2), (3, 4, 4)),
    (skip, (7, 9, 2), (3, 4, 2)),
    (branch, (7, 9, 2), (3, 4, 6)),
    (sp.Flatten(), (3, 4, 6), (72,)),
  ]


CONV = sp.Conv(name='c1', features=4, kernel=(3, 3))
DENSE = sp.Dense(name='d1', features=4)


def conv(**fields: Any) -> sp.Conv:
  return sp.Conv(**(vars(CONV) | fields))


@pytest.mark.parametrize(
  ('layers', 'said'),
  [
    ([conv(kernel=(7, 3))], r'c1: .* at least \(7, 3\), got \(6, 6\)'),
    ([sp.Flatten(), CONV], r'c1: .* 3 axes, got \(72,\). Put Flatten'),
    ([DENSE], r'd1: .* 1 axes, got \(6, 6, 2\)'),
    ([sp.Flatten(), sp.GlobalMean()], r'GlobalMean: .* 3 axes'),
    ([sp.Flatten(), sp.Pool()], r'Pool: .* 3 axes'),
    ([sp.Pool(), sp.Pool(), sp.Pool()], r'Pool: .* got \(1, 1\)'),
    ([conv(groups=4)], 'c1: expected groups that divide 2 and 4'),
    ([conv(groups=2, features=3)], 'c1: expected groups that divide 2 and 3'),
    ([conv(features=0)], 'c1: expected features to be int, got 0. Sizes'),
    ([conv(features=2.0)], 'c1: expected features to be int, got 2.0'),
    ([conv(strides=(0, 1))], 'c1: expected strides'),
    ([conv(kernel=3)], 'c1: expected kernel'),
    ([conv(kernel=(3, 3, 3))], 'c1: expected kernel'),
    ([conv(padding='FULL')], "c1: expected padding to be VALID, SAME, got 'FU"),
    ([conv(bias=1)], 'c1: expected bias to be bool, got 1'),
    ([sp.Pool(kind='min')], 'Pool: expected kind to be max, mean'),
    ([sp.Act(fn='Dense')], 'Act: expected fn to be relu, .*sigmoid, got'),
    ([sp.Dropout(rate=1.0)], r'Dropout: expected a rate in \[0, 1\), got 1.0'),
    ([sp.Norm(name='n1', epsilon=float('nan'))], 'n1: expected epsilon'),
    ([sp.Standardise(mean=(0.0,) * 3, std=(1.0,))], 'Standardise: expected 1'),
    ([CONV, sp.Pool(), conv(kernel=(1, 1))], 'c1: expected one layer of this'),
    ([sp.Branch(paths=((CONV,), ()))], r"Branch: .* 'add' .*1x1 convolution"),
    (
      [sp.Branch(paths=((sp.Flatten(),), ()), merge='concat')],
      r'Branch: .* got \[\(72,\), \(6, 6, 2\)\]',
    ),
    ([sp.Branch(paths=())], 'Branch: expected paths'),
    ([sp.Branch(paths=((),), merge='mul')], 'Branch: expected merge to be add'),
  ],
)
def test_refusals_name_the_layer(layers: list[Layer], said: str) -> None:
  with pytest.raises(ValueError, match=said):
    sp.output_shape(network(*layers))


@pytest.mark.parametrize('shape', [(6, 0, 1), (6.0, 6, 1), 6, 'abc'])
def test_input_shapes_are_refused(shape: Any) -> None:
  with pytest.raises(ValueError, match='net: expected input_shape'):
    sp.output_shape(network(sp.Act(), shape=shape))


EVERY_KIND = network(
  sp.Standardise(mean=(1.0,), std=(2.0,)),
  CONV,
  sp.Norm(name='n1'),
  sp.Act(),
  sp.Dropout(rate=0.5),
  sp.Branch(paths=((sp.Pool(), conv(name='c2', kernel=(1, 1))), (sp.Pool(),))),
  sp.GlobalMean(),
  sp.Flatten(),
  DENSE,
)
TEXT = sp.dumps(EVERY_KIND)


def assert_refused_or_whole(text: str) -> None:
  """Accept only a ValueError, or a network that works."""
  try:
    spec = sp.loads(text)
  except ValueError:
    return
  assert sp.loads(sp.dumps(spec)) == spec
  assert len(list(sp.walk(spec))) >= len(spec.layers)


@PATIENT
@given(
  st.integers(0, len(TEXT)),
  st.integers(0, 9),
  st.text('0-.e{[",:a', max_size=3),
)
def test_damaged_text_is_refused(at: int, cut: int, put: str) -> None:
  assert_refused_or_whole(TEXT[:at] + put + TEXT[at + cut :])


PLAIN = st.recursive(
  st.none()
  | st.booleans()
  | st.integers()
  | st.sampled_from([0, -1, 2**31, 10**400])
  | st.floats()
  | st.text('ab/', max_size=3)
  | st.sampled_from([*sp.KINDS, 'add', 'relu', '__class__']),
  lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(['layer', 'name', 'rate']), inner)
  ),
  max_leaves=5,
)


def places(x: Any, path: tuple = ()) -> Iterator[tuple]:
  """Yield the path of every value of a JSON tree."""
  yield path
  if not isinstance(x, dict | list):
    return
  for key, value in x.items() if isinstance(x, dict) else enumerate(x):
    yield from places(value, (*path, key))


PLACES = sorted(places(json.loads(TEXT)), key=str)


@settings(PATIENT, max_examples=300)
@given(st.sampled_from(PLACES), PLAIN)
def test_any_value_anywhere_is_refused_or_works(path: tuple, put: Any) -> None:
  plain = [json.loads(TEXT)]
  *above, last = (0, *path)
  inner: Any = plain
  for key in above:
    inner = inner[key]
  inner[last] = put
  assert_refused_or_whole(json.dumps(plain[0]))


@pytest.mark.parametrize(
  'text', ['', '{}', '[]', 'null', '{"layers":[]}', '[' * 100_000]
)
def test_what_is_no_network_is_refused(text: str) -> None:
  with pytest.raises(ValueError, match='spec: expected the JSON of a network'):
    sp.loads(text)


def test_a_field_from_elsewhere_is_refused() -> None:
  text = TEXT.replace('"rate"', '"odds"')
  with pytest.raises(ValueError, match="spec: expected the JSON .*'odds'"):
    sp.loads(text)


def test_layers_are_mapped_at_any_depth_branches_last() -> None:
  inner = sp.Branch(paths=((sp.Act(),), ()), merge='concat')
  outer = sp.Branch(paths=((inner, sp.Act(fn='tanh')), ()))
  spec = Spec(name='n', input_shape=(4, 4, 2), layers=(outer, sp.Act()))
  observed = []

  def swap(layer: Layer) -> Layer:
    observed.append(type(layer).__name__)
    return sp.Act(fn='elu') if isinstance(layer, sp.Act) else layer

  found = sp.map_layers(swap, spec)
  assert observed == ['Act', 'Branch', 'Act', 'Branch', 'Act']
  elu = sp.Act(fn='elu')
  mapped = sp.Branch(paths=((elu,), ()), merge='concat')
  layers = (sp.Branch(paths=((mapped, elu), ())), elu)
  assert found == Spec(name='n', input_shape=(4, 4, 2), layers=layers)
  assert sp.map_layers(lambda layer: layer, spec) == spec
