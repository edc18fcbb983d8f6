"""Files of every kind of node with edited headers and right checksums."""

import contextlib
import copy
import json
from typing import Any, NamedTuple

import hypothesis
import hypothesis.strategies as st
import numpy as np

from compress import tree
from tests import frameworks
from tests.tsukiji.deploy.tsk import kinds
from tsukiji.deploy.tsk import coding, header, limits
from tsukiji.deploy.tsk.header import Slot
from tsukiji.deploy.tsk.memory_bounds import costs
from tsukiji.deploy.tsk.node_forms import from_json, to_json
from tsukiji.graph import json_form
from tsukiji.graph.capture import capture
from tsukiji.models import spec as sp
from tsukiji.models.spec import Spec

ZEROS = bytes([coding.SPARSE, 0, 0, coding.RAW])  # of any size
NUMBERS = (
  *(-1, 0, 1, 2, 3, 4, 7, 8, 16, 64, 100, 1000),
  *(4096, 16384, 2**20, 2**24),
)


class Seed(NamedTuple):
  """The JSON of a file and its coded arrays by path."""

  fields: dict[str, Any]
  parts: dict[str, bytes]


def seeds() -> list[Seed]:
  """Return a file of each kind of node, and of graphs."""
  made = [_graph(name) for name in ('Linen CNN', 'LSTM', 'NNX transformer')]
  for n in (4, 8):
    for node in kinds.every(n).values():
      made.append(_seed(node, n))
  return made


def _graph(name: str) -> Seed:
  """Return a file of a network of another framework."""
  model = frameworks.MODELS[name]()
  graph = capture(model.apply, model.params, *model.inputs)
  graph, constants = json_form.without_constants(graph)
  variables = {'params': tree.paths(model.params), 'constants': constants}
  plain, parts = _parts(variables)
  return Seed({'m': {}, 'g': json_form.to_json(graph), 'v': plain}, parts)


def _parts(variables: dict[str, Any]) -> tuple[Any, dict[str, bytes]]:
  """Return a tree as JSON and its coded arrays by path."""
  arrays: list[np.ndarray] = []
  plain, slots = to_json('', variables, arrays), list[Slot]()
  from_json('', plain, slots.append)  # type: ignore[arg-type]
  return plain, {
    _key(slot): coding.encode(x) for slot, x in zip(slots, arrays, strict=True)
  }


def _seed(node: Any, n: int) -> Seed:
  shape = costs({'w': node})['w'].leaf.shape
  layer = sp.Dense(name='fc', features=shape[-1])
  layers: tuple[sp.Layer, ...] = (sp.Flatten(), layer, sp.Act())
  images = (1, 1, shape[0])
  if len(shape) == 4:
    conv = sp.Conv(name='fc', features=shape[-1], kernel=(shape[0], shape[1]))
    layers = (conv, sp.Norm(name='norm'), sp.Pool(), sp.GlobalMean())
    images = (6, 6, shape[2])
  spec = Spec(name=f'net{n}', input_shape=images, layers=layers)
  variables: dict[str, Any] = {'params': {}, 'batch_stats': {}}
  for path, found in limits.weight_shapes(spec).items():
    top, name, last = path.split('/')
    full = node if last == 'kernel' else np.ones(found, np.float32)
    variables[top].setdefault(name, {})[last] = full
  plain, parts = _parts(variables)
  return Seed({'m': {}, 's': json.loads(sp.dumps(spec)), 'v': plain}, parts)


def _key(slot: Slot) -> str:
  return f'{slot.path} {slot.dtype} {slot.shape}'


def sealed(fields: dict[str, Any], parts: dict[str, bytes]) -> bytes:
  """Return a file; arrays that are new are zeros, however large."""
  slots: list[Slot] = []
  with contextlib.suppress(ValueError, RecursionError):
    from_json('', fields['v'], slots.append)  # type: ignore[arg-type]
  coded = [_coded(slot, parts) for slot in slots]
  fields['a'] = [len(part) for part in coded]
  version = header.VERSION if 'g' in fields else header.LAYERS
  return header.seal(fields, sum(slot.bytes for slot in slots), coded, version)


def _coded(slot: Slot, parts: dict[str, bytes]) -> bytes:
  part = parts.get(_key(slot), ZEROS)
  return part if len(part) <= coding.most_bytes(slot.bytes) else b'\0'


def places(x: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
  """Return the path of every value of some JSON."""
  items: Any = x.items() if type(x) is dict else ()
  items = enumerate(x) if type(x) is list else items
  inner = [place for key, y in items for place in places(y, (*path, key))]
  return [path, *inner] if path else inner


@st.composite
def files(draw: st.DrawFn, known: list[Seed]) -> bytes:
  """Draw an edited file."""
  seed = draw(st.sampled_from(known))
  fields = copy.deepcopy(seed.fields)
  for _ in range(draw(st.integers(1, 4))):
    network = 'g' if 'g' in fields else 's'
    part = draw(st.sampled_from(['v', 'v', 'v', network]))
    found = places(fields[part])
    if not found:
      break
    *outer, last = draw(st.sampled_from(found))
    inner = fields[part]
    for key in outer:
      inner = inner[key]
    inner[last] = copy.deepcopy(draw(edits(inner[last], known)))
  if draw(st.integers(0, 3)) == 0:  # a larger file may declare more
    size = draw(st.sampled_from([1000, 4000, 12_000]))
    noise = np.random.default_rng(size).integers(0, 2**62, size // 8)
    fields['m'] = {'noise': ''.join(f'{n:x}' for n in noise.tolist())}
  try:
    return sealed(fields, seed.parts)
  except ValueError:  # a header that `seal` refuses
    return hypothesis.reject()


def edits(x: Any, known: list[Seed]) -> st.SearchStrategy[Any]:
  """Return what a value may be replaced by: its like, or another."""
  layers = [seed for seed in known if 's' in seed.fields]
  nodes = [seed.fields['v']['params']['fc']['kernel'] for seed in layers]
  numbers = st.sampled_from(NUMBERS)
  slots = st.builds(
    lambda dtype, shape: ' '.join([dtype, *map(str, shape)]),
    st.sampled_from([*coding.DTYPES]),
    st.lists(numbers.filter(lambda n: n >= 0), max_size=4),
  )
  junk = st.sampled_from([None, True, -1, 1e300, '', [], {}, [[]], 2**40])
  same = st.just(x)
  if type(x) is int:
    same = numbers
  elif type(x) is float:
    same = st.floats(allow_nan=False, allow_infinity=False)
  elif type(x) is str and x.split(' ')[0] in coding.DTYPES:
    same = st.one_of(slots, st.builds(_resized, st.just(x), numbers, numbers))
  elif type(x) is list and x:
    same = st.one_of(
      st.lists(st.sampled_from(x), max_size=6),
      st.builds(lambda n: x * n, st.sampled_from([2, 10, 300])),
    )
  elif type(x) is dict and '' in x:
    kernel = st.sampled_from(nodes)
    same = st.one_of(kernel, kernel.map(lambda node: _around(node, x)))
  return st.one_of(same, same, same, junk, slots, st.sampled_from(nodes))


def _resized(text: str, at: int, size: int) -> str:
  """Return an array with one side of another size."""
  dtype, *sides = text.split(' ')
  if sides:
    sides[at % len(sides)] = str(abs(size))
  return ' '.join([dtype, *sides])


def _around(node: dict[str, Any], x: Any) -> dict[str, Any]:
  """Return a node with something else in its first array."""
  for name in ('w', 'u', 'low', 'values', 'codes'):
    if name in node:
      return {**node, name: x}
  return node
