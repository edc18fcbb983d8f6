"""Packing of a compressed network into one self-contained file.

The layout is that of `header`. Its JSON has the network as a graph `g`, the
metadata `m`, the tree `v` (`node_forms`), and the sizes `a` of the coded
arrays, which follow in the order of the tree. Files of the formats before
graphs have layers `s`; they are read, and no longer written.

Reading executes no code, and decodes nothing before all sizes are checked for
consistency and against the `limits`.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from compress import tree
from tsukiji.deploy.tsk import coding as coding_lib
from tsukiji.deploy.tsk import graph_limits, header, limits
from tsukiji.deploy.tsk.header import Slot, check, damaged
from tsukiji.deploy.tsk.limits import Sizes
from tsukiji.deploy.tsk.node_forms import NODES as NODES
from tsukiji.deploy.tsk.node_forms import from_json, to_json, unfit
from tsukiji.graph import json_form
from tsukiji.graph.nodes import Graph, bound
from tsukiji.models.spec import Spec


class Packed(NamedTuple):
  """The contents of a file.

  Attributes:
    network: The layers, or the graph of any function.
    variables: `{'params': ..., 'batch_stats': ...}` with frozen nodes; those
      of a graph are by path.
    meta: The metadata, as read from JSON.
  """

  network: Spec | Graph
  variables: dict[str, Any]
  meta: dict[str, Any]

  @property
  def name(self) -> str:
    """Name of the network."""
    return name_of(self.network, self.meta)


def name_of(network: Spec | Graph, meta: dict[str, Any]) -> str:
  """Return the name of a network."""
  if isinstance(network, Spec):
    return network.name
  return str(meta.get('network', 'network'))


class Sized(NamedTuple):
  """The contents of a file and their sizes.

  Attributes:
    packed: The network.
    sizes: Sizes and shapes of the decoded arrays.
    example_bytes: Upper bound of the memory of an example.
  """

  packed: Packed
  sizes: Sizes
  example_bytes: int


class Section(NamedTuple):
  """A part of a file.

  Attributes:
    path: 'header', or the path of an array: 'params/conv1/kernel/codes'.
    shape: Shape of the array.
    coding: Names of its codings (`coding.describe`).
    bits_per_weight: Bits in the file per element; 0 for the header.
    bytes: Bytes in the file.
  """

  path: str
  shape: tuple[int, ...]
  coding: str
  bits_per_weight: float
  bytes: int


class _File(NamedTuple):
  """A file split into its parts, with coded arrays."""

  network: Spec | Graph
  tree: dict[str, Any]
  meta: dict[str, Any]
  slots: list[Slot]
  parts: list[memoryview]
  sizes: Sizes
  example_bytes: int


def pack(
  graph: Graph,
  variables: dict[str, Any],
  meta: dict[str, Any] | None = None,
  coded_floats: bool = True,
) -> bytes:
  """Return a network as one file.

  Args:
    graph: The network.
    variables: `{'params': ...}`: its arrays and nodes, by path; nodes are
      frozen here.
    meta: Metadata of JSON types.
    coded_floats: Whether to compress floats, losslessly. Otherwise the length
      of the file of a float network depends on its shapes only.

  Returns:
    The file; equal networks give equal bytes.

  Raises:
    ValueError: If the network is no `Graph`, something in the tree or in
      `meta` cannot be stored, or the file would exceed the `limits`.
  """
  if not isinstance(graph, Graph):
    raise ValueError(
      f'pack: expected a network as a graph, got {type(graph).__name__}. Use '
      'tsukiji.deploy.save, or passes.lower for a network of the zoo.'
    )
  if type(variables) is not dict or 'params' not in variables:
    got = sorted(variables) if type(variables) is dict else variables
    raise unfit('', "variables with 'params'", got)
  frozen = {**variables, 'params': tree.freeze(variables['params'])}
  arrays: list[np.ndarray] = []
  whole, (graph, constants) = graph, json_form.without_constants(graph)
  frozen |= {'constants': constants} if constants else {}
  fields: dict[str, Any] = {'g': json_form.to_json(graph), 'm': meta or {}}
  fields['v'] = to_json('', frozen, arrays)
  parts = [coding_lib.encode(x, coded_floats) for x in arrays]
  fields['a'] = [len(part) for part in parts]
  total = sum(x.nbytes for x in arrays)
  blob = header.seal(fields, total, parts, header.VERSION)
  sizes = limits.check_tree(frozen, len(arrays), len(blob))
  graph_limits.check(graph, sizes, len(blob))
  graph_limits.check_inputs(whole, frozen['params'])
  return blob


def unpack(blob: bytes) -> Packed:
  """Unpack a network.

  Args:
    blob: The result of `pack`.

  Returns:
    The network; `compress.tree.decode` gives the bits that were packed.

  Raises:
    ValueError: If the file is damaged, foreign, or of another version.
  """
  return unpack_sized(blob).packed


def unpack_sized(blob: bytes) -> Sized:
  """Unpack a network and return it with its sizes."""
  file = _take_apart(blob)
  arrays = map(_array, file.slots, file.parts)
  variables = from_json('', file.tree, lambda slot: next(arrays))
  network = file.network
  if isinstance(network, Graph):
    constants = variables.pop('constants', {})
    network = bound(network, constants)
    graph_limits.check_inputs(network, variables['params'])
  packed = Packed(network, variables, file.meta)
  return Sized(packed, file.sizes, file.example_bytes)


def sections(blob: bytes) -> list[Section]:
  """Return the sections of a file, whose bytes sum to its size.

  Args:
    blob: What `pack` returned.

  Returns:
    The header, then one section per array, in the order of the file.

  Raises:
    ValueError: See `unpack`.
  """
  file = _take_apart(blob)
  head = len(blob) - sum(map(len, file.parts))
  rows = [Section('header', (), 'deflate', 0.0, head)]
  for slot, part in zip(file.slots, file.parts, strict=True):
    bits = 8 * len(part) / max(1, math.prod(slot.shape))
    coding = coding_lib.describe(part)
    rows.append(Section(slot.path, slot.shape, coding, bits, len(part)))
  return rows


def _take_apart(blob: bytes) -> _File:
  """Check everything that can be checked without decoding arrays."""
  fields, total, rest = header.unseal(blob)
  kind = 'g' if blob[3] >= header.GRAPH else 's'
  right = sorted(fields) == sorted(f'am{kind}v')
  check(right, f'fields a, m, {kind} and v', sorted(fields))
  variables, meta = fields['v'], fields['m']
  for x in (variables, meta):
    check(type(x) is dict, 'a dictionary', x)
  check('params' in variables, "variables with 'params'", sorted(variables))
  slots: list[Slot] = []

  def note(slot: Slot) -> Slot:
    slots.append(slot)
    return slot

  try:
    shapes = from_json('', variables, note)
    network = READ[kind](fields[kind])
  except RecursionError as e:
    raise damaged('a tree', 'one without a bottom') from e
  constants = shapes.get('constants', {})
  right = type(constants) is dict and all(
    isinstance(x, Slot) for x in constants.values()
  )
  check(right, 'constants that are arrays', constants)
  declared = sum(slot.bytes for slot in slots)
  check(total == declared, f'arrays of {total} bytes', declared)
  parts = list(_cut(rest, fields['a'], slots))
  sizes = limits.check_tree(shapes, len(slots), len(blob))
  example = _check_network(network, sizes, len(blob))
  return _File(network, variables, meta, slots, parts, sizes, example)


READ: dict[str, Callable[[Any], Spec | Graph]] = {
  'g': header.graph,
  's': header.network,
}


def _check_network(network: Spec | Graph, sizes: Sizes, size: int) -> int:
  """Return the bytes of an example; raise if they exceed the limits."""
  if isinstance(network, Spec):
    return limits.check_network(network, sizes.bytes, size)
  return graph_limits.check(network, sizes, size)


def _cut(rest: memoryview, sizes: Any, slots: list[Slot]) -> Iterator[Any]:
  """Yield the coded arrays."""
  right = type(sizes) is list and all(type(n) is int and n > 0 for n in sizes)
  right = right and len(sizes) == len(slots)
  check(right, f'sizes of {len(slots)} arrays', sizes)
  check(sum(sizes) == len(rest), f'arrays in {sum(sizes)} bytes', len(rest))
  for size, slot in zip(sizes, slots, strict=True):
    most = coding_lib.most_bytes(slot.bytes)
    check(size <= most, f'at most {most} bytes at {slot.path}', size)
    yield rest[:size]
    rest = rest[size:]


def _array(slot: Slot, part: memoryview) -> Any:
  """Return a decoded array, a NumPy one for 64 bits if JAX has none."""
  try:
    x = coding_lib.decode(part, slot.dtype, slot.shape)
  except ValueError as e:
    raise ValueError(f'artefact at {slot.path}: {e}') from e
  same = jax.dtypes.canonicalize_dtype(x.dtype) == x.dtype
  return jnp.asarray(x) if same else x
