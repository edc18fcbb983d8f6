"""A compressed network as one self-contained file, and where its bytes go.

The layout is that of `header`. Its JSON has the spec `s`, what else the writer
wants kept `m`, the tree `v`, and the sizes `a` of the coded arrays, which
follow in the order of the tree. In the tree an array is `'f4 3 3 1 8'` (dtype
and shape), and a node is a dictionary whose kind stands under the key ''.

Reading executes nothing, looks node kinds up in `NODES`, and decodes nothing
before all sizes are found consistent.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from compress import tree
from compress.binary.inputs import Signed
from compress.binary.weights import Binarized
from compress.channels.sliced import Sliced
from compress.lowrank.factors import LowRank, Separable, Tucker
from compress.lowrank.plus_sparse import Summed
from compress.prune.magnitude import Masked
from compress.quantize.batch_norm import Folded
from compress.quantize.half import Half
from compress.quantize.nodes import Inputs, Quantized, Shifted
from compress.share.codebook import Hashed, Products, Shared
from compress.structured.methods import Structured
from compress.structured.tied_filters import Transferred
from tsukiji.deploy.tsk import coding as coding_lib
from tsukiji.deploy.tsk import header
from tsukiji.deploy.tsk.header import Slot, check, damaged
from tsukiji.models import spec as sp
from tsukiji.models.spec import Spec

# What may stand in a file beside dictionaries, tuples and arrays.
NODES: dict[str, type] = {
  'Binarized': Binarized,
  'Folded': Folded,
  'Half': Half,
  'Hashed': Hashed,
  'Inputs': Inputs,
  'LowRank': LowRank,
  'Masked': Masked,
  'Products': Products,
  'Quantized': Quantized,
  'Separable': Separable,
  'Shared': Shared,
  'Shifted': Shifted,
  'Signed': Signed,
  'Sliced': Sliced,
  'Structured': Structured,
  'Summed': Summed,
  'Transferred': Transferred,
  'Tucker': Tucker,
}
STATIC_LIMIT = 2**24  # size of an integer in a node


class Packed(NamedTuple):
  """What a file holds.

  Attributes:
    spec: The network.
    variables: `{'params': ..., 'batch_stats': ...}` with frozen nodes.
    meta: What `pack` was given, as JSON gives it back.
  """

  spec: Spec
  variables: dict[str, Any]
  meta: dict[str, Any]


class Section(NamedTuple):
  """A part of a file.

  Attributes:
    path: 'header', or that of an array, as 'params/conv1/kernel/codes'.
    shape: Of the array.
    coding: The names of its codings (`code.describe`).
    bits_per_weight: Bits in the file per element; 0 for the header.
    bytes: In the file.
  """

  path: str
  shape: tuple[int, ...]
  coding: str
  bits_per_weight: float
  bytes: int


class _File(NamedTuple):
  """A file taken apart, its arrays still coded."""

  spec: Spec
  tree: dict[str, Any]
  meta: dict[str, Any]
  slots: list[Slot]
  parts: list[memoryview]


def pack(
  spec: Spec,
  variables: dict[str, Any],
  meta: dict[str, Any] | None = None,
  coded_floats: bool = True,
) -> bytes:
  """Return a network as one file.

  Args:
    spec: The network.
    variables: `{'params': ..., 'batch_stats': ...}`: arrays and nodes; the
      nodes of `params` are frozen here.
    meta: Anything that JSON can say, kept beside the network.
    coded_floats: Whether to code floats, losslessly, as all else. Without, they
      are stored as they are, and networks of one shape take files of one
      length.

  Returns:
    The file; equal networks give equal bytes.

  Raises:
    ValueError: If something in the tree or in `meta` cannot be stored.
  """
  if 'params' not in variables:
    raise _unfit('', "variables with 'params'", sorted(variables))
  frozen = {**variables, 'params': tree.freeze(variables['params'])}
  arrays: list[np.ndarray] = []
  fields = {
    'm': meta or {},
    's': json.loads(sp.dumps(spec)),
    'v': _plain('', frozen, arrays),
  }
  parts = [coding_lib.encode(x, coded_floats) for x in arrays]
  fields['a'] = [len(part) for part in parts]
  total = sum(x.nbytes for x in arrays)
  blob = header.seal(fields, total, parts)
  _check_sizes(total, frozen['params'], len(blob))
  return blob


def unpack(blob: bytes) -> Packed:
  """Return the network that a file holds.

  Args:
    blob: What `pack` returned.

  Returns:
    The network; `compress.tree.decode` gives the bits that were packed.

  Raises:
    ValueError: If the file is damaged, foreign, or of another version.
  """
  file = _take_apart(blob)
  arrays = map(_array, file.slots, file.parts)
  variables = _rebuild('', file.tree, lambda slot: next(arrays))
  _check_sizes(0, variables['params'], len(blob))
  return Packed(file.spec, variables, file.meta)


def sections(blob: bytes) -> list[Section]:
  """Return where every byte of a file goes: the last column sums to its size.

  Args:
    blob: What `pack` returned.

  Returns:
    The header, then one row an array, in the order of the file.

  Raises:
    ValueError: As `unpack`.
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
  """Check everything that can be checked before an array is decoded."""
  fields, total, rest = header.unseal(blob)
  check(sorted(fields) == list('amsv'), 'fields a, m, s and v', sorted(fields))
  variables, meta = fields['v'], fields['m']
  for x in (variables, meta):
    check(type(x) is dict, 'a dictionary', x)
  check('params' in variables, "variables with 'params'", sorted(variables))
  slots: list[Slot] = []
  try:
    _rebuild('', variables, slots.append)
    spec = header.network(fields['s'])
  except RecursionError as e:
    raise damaged('a tree', 'a bottomless one') from e
  declared = sum(slot.bytes for slot in slots)
  check(total == declared, f'arrays of {total} bytes', declared)
  parts = list(_cut(rest, fields['a'], len(slots)))
  return _File(spec, variables, meta, slots, parts)


def _cut(rest: memoryview, sizes: Any, count: int) -> Iterator[memoryview]:
  """Yield the coded arrays."""
  right = type(sizes) is list and all(type(n) is int and n > 0 for n in sizes)
  check(right and len(sizes) == count, f'sizes of {count} arrays', sizes)
  check(sum(sizes) == len(rest), f'arrays in {sum(sizes)} bytes', len(rest))
  for size in sizes:
    yield rest[:size]
    rest = rest[size:]


def _check_sizes(stored: int, params: Any, size: int) -> None:
  """Check on shapes alone that nodes decode to arrays a file may hold."""
  try:
    dense = jax.tree.leaves(jax.eval_shape(tree.decode, params))
  except Exception as e:  # whatever ill-matched fields make a node raise
    raise damaged('nodes that decode', repr(e)) from e
  decoded = sum(x.size * x.dtype.itemsize for x in dense)
  if max(stored, decoded) > header.limit(size):
    raise ValueError(
      f'artefact: expected arrays of at most {header.limit(size)} bytes in a '
      f'file of {size}, got {max(stored, decoded)}. Remove what is all zero '
      '(deploy.lower) before packing.'
    )


def _array(slot: Slot, part: memoryview) -> Any:
  """Return a decoded array; 64-bit ones stay NumPy's where JAX has none."""
  try:
    x = coding_lib.decode(part, slot.dtype, slot.shape)
  except ValueError as e:
    raise ValueError(f'artefact at {slot.path}: {e}') from e
  same = jax.dtypes.canonicalize_dtype(x.dtype) == x.dtype
  return jnp.asarray(x) if same else x


def _plain(path: str, x: Any, arrays: list[np.ndarray]) -> Any:
  """Return a tree as JSON, and append its arrays in order."""
  if x is None:
    return None
  if type(x) is tuple:
    items = enumerate(x)
    return [_plain(_join(path, i), item, arrays) for i, item in items]
  if type(x) is dict:
    if not all(isinstance(key, str) and key for key in x):
      raise _unfit(path, 'names as keys', list(x))
    return {k: _plain(_join(path, k), x[k], arrays) for k in sorted(x)}
  if NODES.get(type(x).__name__) is not type(x):
    return _plain_array(path, x, arrays)
  plain = {'': type(x).__name__}
  for name, varies in _fields(type(x)):
    value, here = getattr(x, name), _join(path, name)
    plain[name] = (
      _plain(here, value, arrays) if varies else _static(here, value)
    )
  return plain


def _plain_array(path: str, x: Any, arrays: list[np.ndarray]) -> str:
  dtype = getattr(x, 'dtype', None)
  if not isinstance(dtype, np.dtype) or dtype.str[1:] not in coding_lib.DTYPES:
    got = f'{type(x).__name__} {dtype or ""}'.strip()
    dtypes = ', '.join(map(str, coding_lib.DTYPES.values()))
    raise _unfit(path, f'arrays of {dtypes}, or {", ".join(NODES)}', got)
  arrays.append(np.asarray(x))
  return ' '.join((dtype.str[1:], *map(str, x.shape)))


def _rebuild(path: str, x: Any, leaf: Callable[[Slot], Any]) -> Any:
  """Return the tree that JSON describes, with arrays from `leaf`."""
  if x is None:
    return None
  if type(x) is str:
    return leaf(header.slot(path, x))
  if type(x) is list:
    items = enumerate(x)
    return tuple(_rebuild(_join(path, i), item, leaf) for i, item in items)
  check(type(x) is dict, f'a dictionary at {path}', x)
  if '' not in x:
    return {k: _rebuild(_join(path, k), x[k], leaf) for k in sorted(x)}
  known = type(x['']) is str and x[''] in NODES
  check(known, f'a node of {", ".join(NODES)} at {path}', x[''])
  kind = NODES[x['']]
  names = sorted(['', *(name for name, _ in _fields(kind))])
  check(sorted(x) == names, f'fields {names} at {path}', sorted(x))
  values = {}
  for name, varies in _fields(kind):
    here = _join(path, name)
    values[name] = (
      _rebuild(here, x[name], leaf) if varies else _static(here, x[name])
    )
  return kind(**values)


def _fields(kind: type) -> list[tuple[str, bool]]:
  """Return the fields of a node, and whether each holds arrays."""
  return [
    (field.name, field.metadata.get('pytree_node', True))
    for field in dataclasses.fields(kind)
  ]


def _static(path: str, x: Any) -> Any:
  """Return a field that holds no arrays; both sides check it here."""
  if isinstance(x, list | tuple):
    return tuple(_static(path, item) for item in x)
  right = x is None or type(x) in (bool, float, str)
  if not (right or (type(x) is int and abs(x) <= STATIC_LIMIT)):
    raise _unfit(path, f'a text or a number up to {STATIC_LIMIT}', x)
  return x


def _join(path: str, name: str | int) -> str:
  return f'{path}/{name}' if path else str(name)


def _unfit(path: str, expected: str, got: Any) -> ValueError:
  return ValueError(
    f'pack at {path or "the top"}: expected {expected}, got '
    f'{repr(got)[:80]}. Convert it, or add its kind to pack.NODES.'
  )
