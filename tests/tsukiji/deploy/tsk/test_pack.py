"""What is unpacked decodes to the bits that were packed, or is refused."""

import copy
import functools
import subprocess
import sys
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from hypothesis import given, settings

from compress import kinds, tree
from compress.lowrank.factors import LowRank
from compress.method import Ctx, Method, chain, only
from compress.prune import magnitude
from compress.prune.magnitude import Masked
from compress.quantize.integer_codes import Quantized
from compress.quantize.uniform import int8, uniform
from tests.layer_files import pack_layers
from tests.tsukiji.deploy.tsk.test_header import reseal
from tsukiji.deploy.tsk import header, pack
from tsukiji.graph.nodes import Graph, Input
from tsukiji.models import zoo
from tsukiji.models.net import Net
from tsukiji.models.spec import Spec

METHODS: dict[str, Method] = {
  'dense': chain(),
  'prune': magnitude.weights(0.9),
  'int8': int8(),
  'int3': uniform(3),
  'int12': uniform(12),
  'prune int8': chain(magnitude.weights(0.9), int8()),
  'int8 prune': chain(int8(), magnitude.weights(0.9)),
  'mixed': chain(
    only('conv1/kernel', uniform(8)),
    only('dense1/kernel', chain(magnitude.weights(0.5), uniform(2))),
  ),
}
TINY = {'conv': (3, 4), 'kernel': 3, 'hidden': (8,)}
SPECS: dict[str, Spec] = {
  'tsukijinet2021': zoo.build('tsukijinet2021', (10, 10, 1), 5, **TINY),
  'resnet': zoo.build('resnet', (6, 6, 4), 4, widths=(4,)),
}
SPEC = SPECS['tsukijinet2021']
GRAPH = Graph((), (), (Input((4,)),))


@functools.cache
def dense(network: str) -> dict[str, Any]:
  """Return fresh variables, with no bias or mean at 0."""
  spec = SPECS[network]
  images = jax.ShapeDtypeStruct((1, *spec.input_shape), jnp.float32)
  shapes = jax.eval_shape(Net(spec).init, jax.random.key(0), images)
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: jnp.asarray(np.abs(rng.normal(size=x.shape)), x.dtype), shapes
  )


def compressed(network: str, method: str) -> dict[str, Any]:
  variables = dense(network)
  return initialized(variables, method)


def initialized(variables: dict[str, Any], method: str) -> dict[str, Any]:
  paths = tree.paths(variables['params'])
  stats = {path: jnp.array([-1.0, 2.0]) for path in paths}
  init = jax.jit(METHODS[method].init)  # one program compiles faster than many
  params = init(variables['params'], Ctx(stats=stats))
  return {**variables, 'params': params}


def bits(variables: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
  decoded = jax.jit(tree.decode)(variables)
  return {
    path: (x.dtype, x.shape, np.asarray(x).tobytes())
    for path, x in tree.paths(decoded).items()
  }


@pytest.mark.slow
@pytest.mark.parametrize('method', METHODS)
def test_every_chain_survives(method: str) -> None:
  spec, variables = SPEC, compressed('tsukijinet2021', method)
  blob = pack_layers(spec, variables, {'recipe': method, 'seeds': [1, 2]})
  packed = pack.unpack(blob)
  assert packed.network == spec
  assert packed.meta == {'recipe': method, 'seeds': [1, 2]}
  assert bits(packed.variables) == bits(variables)
  # The same nodes come back, and pack to the same bytes.
  frozen = {**variables, 'params': tree.freeze(variables['params'])}
  assert jax.tree.structure(packed.variables) == jax.tree.structure(frozen)
  assert pack_layers(*packed) == blob


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('method', ['dense', 'prune int8'])
def test_16_bit_floats_survive(method: str, dtype: str) -> None:
  start = dense('tsukijinet2021')
  params = jax.tree.map(lambda x: x.astype(dtype), start['params'])
  variables = initialized({**start, 'params': params}, method)
  nodes = variables['params']
  again = pack.unpack(pack_layers(SPEC, variables)).variables
  assert bits(again) == bits(variables)
  assert {x.dtype for x in jax.tree.leaves(tree.decode(nodes))} == {
    jnp.dtype(dtype)
  }
  frozen = {**variables, 'params': tree.freeze(nodes)}
  assert jax.tree.structure(again) == jax.tree.structure(frozen)


@pytest.mark.slow
def test_branches_survive() -> None:
  variables = compressed('resnet', 'prune int8')
  blob = pack_layers(SPECS['resnet'], variables)
  assert bits(pack.unpack(blob).variables) == bits(variables)


def test_equal_networks_give_equal_bytes() -> None:
  variables = compressed('tsukijinet2021', 'int8')
  want = pack_layers(SPEC, variables, {'a': 1, 'b': 2})

  def turned(x: Any) -> Any:
    if type(x) is not dict:
      return x
    return {key: turned(x[key]) for key in reversed(x)}

  assert pack_layers(SPEC, turned(variables), {'b': 2, 'a': 1}) == want


@functools.cache
def packed(method: str) -> bytes:
  return pack_layers(SPEC, compressed('tsukijinet2021', method), {'note': 'x'})


def test_floats_may_stay_as_they_are() -> None:
  variables = compressed('tsukijinet2021', 'dense')
  blob = pack_layers(SPEC, variables, coded_floats=False)
  assert {row.coding for row in pack.sections(blob)[1:]} == {'raw'}
  assert len(pack_layers(SPEC, variables)) < len(blob)


@pytest.mark.parametrize(
  'method, path, shape, coding',
  [
    ('dense', 'params/dense1/kernel', (16, 8), 'floats'),
    ('prune', 'params/dense1/kernel', (16, 8), 'sparse floats'),
    ('int3', 'params/dense1/kernel/codes', (16, 8), 'packed'),
    ('int8', 'params/dense1/kernel/inputs/low', (), 'floats'),
    ('prune int8', 'batch_stats/norm1/var', (3,), 'raw'),
  ],
)
def test_sections_say_where_every_byte_goes(
  method: str, path: str, shape: tuple[int, ...], coding: str
) -> None:
  blob = packed(method)
  rows = {row.path: row for row in pack.sections(blob)}
  assert sum(row.bytes for row in rows.values()) == len(blob)
  assert next(iter(rows)) == 'header'
  row = rows[path]
  assert (row.shape, row.coding) == (shape, coding)
  assert row.bits_per_weight == 8 * row.bytes / np.prod(shape)


def test_a_tiny_network_has_a_tiny_header() -> None:
  assert pack.sections(packed('dense'))[0].bytes < 180
  assert pack.sections(packed('int8'))[0].bytes < 240


def test_whatever_is_frozen_survives() -> None:
  codes = jnp.array([[3, 0], [-7, 1]], jnp.int16)
  inner = Quantized(codes, jnp.array([0.5, 2.0]), None, 4)
  params = {
    'masked': {'kernel': Masked(inner, codes > 0)},
    'odd': jnp.array([jnp.nan, -0.0, jnp.inf]),
    'wide': np.array([1 / 3]),
    'parts': (jnp.ones((2, 0, 3)), jnp.uint8(7), None),
    'none': {},
  }
  stored = {'params': params, 'extra': {'seen': jnp.array([True, False])}}
  blob = pack_layers(SPEC, stored)
  got = pack.unpack(blob).variables
  plain = jnp.where(codes > 0, codes, 0)
  want = {**params, 'masked': {'kernel': inner.replace(codes=plain)}}
  same = {**stored, 'params': want}
  assert jax.tree.structure(got) == jax.tree.structure(same)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(same), strict=True):
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@struct.dataclass
class Stranger(tree.Compressed):
  """A node that the table of kinds does not have."""

  w: Any

  def decode(self) -> tree.Array:
    return self.w


NAME = f'{__name__}:Guest'


@struct.dataclass
class Guest(Stranger):
  """One that says its kind."""

  kind = kinds.GRID


def test_a_node_of_another_package_is_stored_if_it_says_its_kind() -> None:
  weight = Masked(Guest(jnp.arange(3.0)), jnp.array([True, False, True]))
  variables = {'params': {'fc': weight}}
  blob = pack_layers(SPEC, variables)
  got = pack.unpack(blob).variables
  assert jax.tree.structure(got) == jax.tree.structure(variables)
  assert bits(got) == bits(variables)


def test_a_node_of_a_module_that_is_not_imported_is_named() -> None:
  """Reading imports nothing: the name in a file may be anybody's."""
  begin = 'import sys; from tsukiji.deploy.tsk import pack;'
  read = f'{begin} pack.unpack(sys.stdin.buffer.read())'
  blob = pack_layers(SPEC, {'params': {'fc': Guest(jnp.ones(3))}})
  done = subprocess.run([sys.executable, '-c', read], input=blob, stderr=-1)
  want = (
    f"at params/fc: expected a class of nodes that is imported, got '{NAME}"
  )
  assert want in done.stderr.decode()


ONE = jnp.ones(1)


@pytest.mark.parametrize(
  'params, message',
  [
    ({'fc': {'kernel': Stranger(ONE)}}, 'at params/fc/kernel: .*Stranger'),
    ({'fc': {'kernel': [ONE]}}, 'at params/fc/kernel: .*list'),
    ({'fc': 'text'}, 'at params/fc: .*str'),
    ({'fc': jnp.ones(1, jnp.complex64)}, 'at params/fc: .*complex64'),
    ({'fc': jax.random.key(0)}, 'at params/fc: .*key'),
    ({3: ONE}, 'at params: expected names as keys, got .3.'),
    ({'': ONE}, 'at params: expected names as keys'),
    ({'fc': Quantized(ONE, ONE, None, 2**25)}, 'at params/fc/bits: .* number'),
    ({'fc': Quantized(ONE, ONE, None, ONE)}, 'at params/fc/bits: .* number'),
  ],
)
def test_what_cannot_be_stored_is_refused(params: Any, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    pack.pack(GRAPH, {'params': params})


@pytest.mark.parametrize('network', [None, 'tsukijinet2021', SPEC, Net(SPEC)])
def test_other_networks_are_refused(network: Any) -> None:
  with pytest.raises(ValueError, match='^pack: expected a network as a graph'):
    pack.pack(network, dense('tsukijinet2021'))


def test_other_arguments_are_refused() -> None:
  for odd in (None, [], 'params'):
    with pytest.raises(ValueError, match="expected variables with 'params'"):
      pack.pack(GRAPH, odd)  # type: ignore[arg-type]
  with pytest.raises(ValueError, match="expected variables with 'params'"):
    pack.pack(GRAPH, {'batch_stats': {}})
  with pytest.raises(ValueError, match='that JSON can express'):
    pack.pack(GRAPH, {'params': {}}, {'loss': float('nan')})


def test_more_zeros_than_a_reader_takes_are_refused(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  sparse = {'params': {'w': np.zeros(2**14, np.float32)}}
  blob = pack_layers(SPEC, sparse)
  monkeypatch.setattr(header, 'FREE_BYTES', 0)
  monkeypatch.setattr(header, 'GROWTH', 50)
  with pytest.raises(ValueError, match='expected arrays of at most'):
    pack.pack(GRAPH, sparse)
  with pytest.raises(ValueError, match='expected a smaller total'):
    pack.unpack(blob)


def test_nodes_that_swell_are_refused() -> None:
  line = LowRank(np.zeros((5000, 1), 'f4'), np.zeros((1, 5000), 'f4'))
  with pytest.raises(ValueError, match='expected arrays of at most'):
    pack.pack(GRAPH, {'params': {'w': line}})


def edited(method: str, path: str, value: Any, total: int | None) -> bytes:
  """Return a file with one value of its header changed."""
  opened = header.unseal(packed(method))
  fields = copy.deepcopy(opened.fields)
  inner, (*outer, last) = fields, path.split('/')
  for key in outer:
    inner = inner[key]
  inner[last] = value
  size = opened.total if total is None else total
  return header.seal(fields, size, [bytes(opened.rest)])


KERNEL = 'v/params/dense1/kernel'


@pytest.mark.parametrize(
  'path, value, message',
  [
    ('v', {}, "with 'params'"),
    ('v', [], 'a dictionary'),
    ('m', [], 'a dictionary'),
    ('z', 0, 'fields a, m, s and v'),
    ('a', [1, -1], 'sizes of 20 arrays'),
    ('a', [1] * 20, 'arrays in 20 bytes'),
    ('a', None, 'sizes of 20 arrays'),
    ('v/params/x', 'f4', 'arrays of'),
    ('v/params/x', 7, 'a dictionary at params/x'),
    ('s/layers', [{'layer': 'X'}], 'a network'),
    (
      f'{KERNEL}/',
      'os.system',
      'a node at .*/kernel of Arranged, ',
    ),
    (f'{KERNEL}/', [], 'a node at'),
    (f'{KERNEL}/', 'Masked', 'fields .* at params/dense1/kernel'),
    (f'{KERNEL}/bits', {}, 'a text or a number'),
    (f'{KERNEL}/bits', 10**12, 'a text or a number'),
    (f'{KERNEL}/codes', 'i2 16 8', 'arrays of'),
    (f'{KERNEL}/codes', 'b1 16 8', 'codes of kind iu at params/dense1/kernel'),
    (f'{KERNEL}/codes', 'i1 16 4 2', 'a step of'),
    (f'{KERNEL}/codes', None, 'arrays of'),
  ],
)
def test_inconsistent_files_are_refused(
  path: str, value: Any, message: str
) -> None:
  with pytest.raises(ValueError, match=message):
    pack.unpack(edited('int3', path, value, None))


def test_huge_arrays_are_refused_before_they_are_made() -> None:
  blob = edited('int3', f'{KERNEL}/codes', 'i1 9999999 40', 4 * 10**9)
  with pytest.raises(ValueError, match='expected a smaller total'):
    pack.unpack(blob)
  blob = edited('int3', f'{KERNEL}/codes', 'i1 9999999 40', None)
  with pytest.raises(ValueError, match='expected arrays of 575 bytes'):
    pack.unpack(blob)


def opens_or_is_refused(blob: bytes) -> None:
  try:
    pack.unpack(blob)
    pack.sections(blob)
  except ValueError as e:
    assert 'expected' in str(e)


PACKED = st.sampled_from(['dense', 'prune', 'int3', 'int8'])


@settings(max_examples=100, deadline=None)
@given(PACKED, st.data())
def test_damaged_bytes_are_refused(method: str, data: st.DataObject) -> None:
  body = bytearray(packed(method)[8:])
  for _ in range(data.draw(st.integers(1, 3))):
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.integers(0, 255))
  end = data.draw(st.sampled_from([None, None, -1, len(body) // 2]))
  opens_or_is_refused(reseal(bytes(body[:end])))


JUNK = st.sampled_from(
  [None, True, -1, 0, 3, 2**40, 1e300, '', 'f4 2', 'f4 9999999', [], {}, [[]]]
)


@settings(max_examples=150, deadline=None)
@given(PACKED, st.data())
def test_damaged_headers_are_refused(method: str, data: st.DataObject) -> None:
  opened = header.unseal(packed(method))
  fields = copy.deepcopy(opened.fields)
  inner: Any = fields
  while True:
    keys = sorted(inner) if type(inner) is dict else range(len(inner))
    key = data.draw(st.sampled_from(list(keys)))
    deeper = type(inner[key]) in (dict, list) and inner[key]
    if not deeper or not data.draw(st.integers(0, 9)):
      break
    inner = inner[key]
  inner[key] = data.draw(JUNK)
  total = data.draw(st.sampled_from([opened.total, 0, 2**31]))
  opens_or_is_refused(header.seal(fields, total, [bytes(opened.rest)]))
