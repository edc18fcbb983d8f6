"""The header of a packed file: version, sizes, JSON.

Layout of formats 1, 2, which adds a coding of floats, 3, whose network is a
graph of operators instead of a list of layers, and 4, whose header is deflated
with more text in common:

| bytes | what |
|---|---|
| 3 | `TSK` |
| 1 | format version |
| 4 | CRC-32 of everything behind it, little-endian |
| varint | bytes of all arrays once decoded |
| varint | bytes of the header |
| ... | the header: JSON, deflated |
| ... | the arrays, coded |
"""

import json
import math
import zlib
from typing import Any, NamedTuple

import numpy as np

from tsukiji.deploy.tsk import dictionary
from tsukiji.deploy.tsk.coding import DTYPES
from tsukiji.deploy.tsk.varint import put_varint, take_varint
from tsukiji.graph import json_form
from tsukiji.graph.nodes import Graph
from tsukiji.models import spec as sp
from tsukiji.models.spec import Spec

MAGIC = b'TSK'
LAYERS, GRAPH = 2, 3  # format of a network of layers, of a graph
VERSION = 4
READABLE = range(1, VERSION + 1)
BEGIN = 32  # bytes that hold all before the header
JSON_LIMIT = 2**21  # bytes
JSON_NODES = 2**16  # values and keys: each may take 100 bytes once read
# Arrays may take 16 MiB, and 10,000 times the size of the file beyond that: a
# float32 network with one weight in 1,000 left takes 3,000 times.
FREE_BYTES = 2**24
GROWTH = 10_000
TOTAL_LIMIT = 2**30  # XLA takes constants of less than 2 GiB
EMPTY_LIMIT = 2**20  # product of the other axes of an empty array
RANK_LIMIT = 32  # axes of an array


class Opened(NamedTuple):
  """A file with its header read.

  Attributes:
    fields: The JSON.
    total: Bytes of all decoded arrays.
    rest: The arrays, coded.
  """

  fields: dict[str, Any]
  total: int
  rest: memoryview


class Slot(NamedTuple):
  """An array that a header declares."""

  path: str
  dtype: np.dtype
  shape: tuple[int, ...]

  @property
  def bytes(self) -> int:
    """Bytes of the decoded array."""
    return math.prod(self.shape) * self.dtype.itemsize


def seal(
  fields: dict[str, Any], total: int, parts: list[bytes], version: int = LAYERS
) -> bytes:
  """Return a file.

  Args:
    fields: Values that JSON can express.
    total: Bytes of all decoded arrays.
    parts: The arrays, coded.
    version: Format of the file.

  Returns:
    The file.

  Raises:
    ValueError: If JSON cannot express a value.

  >>> unseal(seal({'a': [1]}, 0, [b'x'])).fields
  {'a': [1]}
  """
  head = _deflate(fields, version)
  numbers = put_varint(total) + put_varint(len(head))
  body = b''.join((numbers, head, *parts))
  crc = _checksum(version, body).to_bytes(4, 'little')
  return MAGIC + bytes([version]) + crc + body


def unseal(blob: bytes) -> Opened:
  """Check a file and read its header.

  Args:
    blob: The result of `seal`.

  Returns:
    The header, and the arrays still coded.

  Raises:
    ValueError: If the file is damaged, foreign, or of another version.
  """
  begin = bytes(blob[:8])
  _check_version(begin)
  body = memoryview(blob)[8:]
  want, got = int.from_bytes(begin[4:], 'little'), _checksum(begin[3], body)
  check(want == got, f'checksum {want:08x}', f'{got:08x}')
  total, rest = take_varint(body)
  size, rest = take_varint(rest)
  check(size <= len(rest), f'a header of {size} bytes', len(rest))
  check(total <= limit(len(blob)), 'a smaller total', total)
  return Opened(_inflate(rest[:size], begin[3]), total, rest[size:])


def _checksum(version: int, body: bytes | memoryview) -> int:
  """Return the CRC-32; from format 3 on it depends on the version."""
  return zlib.crc32(body, version if version >= GRAPH else 0)


def slot(path: str, text: str) -> Slot:
  """Read the dtype and shape of an array.

  >>> slot('conv1/kernel', 'f4 3 3 1 8').shape
  (3, 3, 1, 8)
  """
  name, *digits = text.split(' ')
  right = name in DTYPES and len(digits) <= RANK_LIMIT
  right = right and all(
    d.isascii() and d.isdigit() and len(d) <= 10 for d in digits
  )
  check(right, f'a dtype and a shape at {path}', text)
  shape = tuple(map(int, digits))
  # NumPy and XLA multiply the other axes of an empty array, too.
  size = math.prod(max(1, n) for n in shape)
  most = EMPTY_LIMIT if 0 in shape else TOTAL_LIMIT
  check(size <= most, f'a smaller array at {path}', text)
  return Slot(path, DTYPES[name], shape)


def graph(plain: Any) -> Graph:
  """Read a graph; `json_form.from_json` checks every field."""
  try:
    return json_form.from_json(plain)
  except ValueError as e:
    raise damaged('a graph', str(e)) from e


def network(plain: Any) -> Spec:
  """Read a network; `spec.loads` checks every field."""
  try:
    return sp.loads(json.dumps(plain))
  except (ValueError, LookupError, TypeError, AttributeError) as e:
    raise damaged('a network', repr(e)) from e


def limit(size: int) -> int:
  """Return the maximum decoded size of a file of `size` bytes."""
  return min(TOTAL_LIMIT, FREE_BYTES + GROWTH * size)


def check(right: bool, expected: str, got: Any) -> None:
  """Raise the error of a damaged file unless a condition holds."""
  if not right:
    raise damaged(expected, got)


def damaged(expected: str, got: Any) -> ValueError:
  """Return the error of a damaged file."""
  return ValueError(
    f'artefact: expected {expected[:120]}, got {repr(got)[:80]}. The file is '
    'damaged or foreign; pack the network again, or fetch another copy.'
  )


def longest(begin: bytes) -> int:
  """Return the maximum number of bytes of a file.

  Args:
    begin: Its first `BEGIN` bytes.

  Raises:
    ValueError: If it is not a packed file.
  """
  _check_version(begin)
  total, rest = take_varint(memoryview(begin)[8:])
  size, _ = take_varint(rest)
  return len(begin) + size + min(total, TOTAL_LIMIT) + JSON_NODES


def _check_version(begin: bytes) -> None:
  if begin[:3] != MAGIC or len(begin) < 8:
    raise damaged('a file that begins with TSK', begin[:8])
  if begin[3] not in READABLE:
    raise ValueError(
      f'artefact: expected format 1 to {VERSION}, got {begin[3]}. Read it '
      'with the release that wrote it, or pack the network again.'
    )


def _deflate(fields: dict[str, Any], version: int) -> bytes:
  try:
    text = json.dumps(
      fields, separators=(',', ':'), sort_keys=True, allow_nan=False
    ).encode()
  except (TypeError, ValueError) as e:
    raise ValueError(
      f'pack: expected values that JSON can express, got '
      f'{repr(fields)[:80]}. {e}.'
    ) from e
  if len(text) > JSON_LIMIT or _nodes(text) > JSON_NODES:
    raise ValueError(
      f'pack: expected a header of at most {JSON_LIMIT} bytes and {JSON_NODES} '
      f'values, got {len(text)} and {_nodes(text)}. Store less in meta.'
    )
  deflate = zlib.compressobj(9, wbits=-15, zdict=typical(version))
  return deflate.compress(text) + deflate.flush()


def _inflate(head: memoryview, version: int) -> dict[str, Any]:
  inflate = zlib.decompressobj(wbits=-15, zdict=typical(version))
  try:
    text = inflate.decompress(head, JSON_LIMIT)
  except zlib.error as e:
    raise damaged('a header of JSON', repr(e)) from e
  complete = inflate.eof and not inflate.unused_data
  check(complete, f'a header of at most {JSON_LIMIT} bytes', len(text))
  nodes = _nodes(text)
  check(nodes <= JSON_NODES, f'at most {JSON_NODES} values in it', nodes)
  try:
    fields = json.loads(text, parse_constant=_no_number)
  except (ValueError, RecursionError) as e:
    raise damaged('a header of JSON', repr(e)) from e
  check(type(fields) is dict, 'a dictionary', fields)
  return fields


def typical(version: int) -> bytes:
  """Return the text to which the headers of a format refer."""
  if version < GRAPH:
    return dictionary.LAYERS
  more = dictionary.WORDS if version > GRAPH else b''
  return more + dictionary.GRAPH


def _nodes(text: bytes) -> int:
  """Return an upper bound of the number of values and keys in JSON."""
  return sum(map(text.count, (b',', b':', b'[', b'{')))


def _no_number(name: str) -> None:
  raise ValueError(f'{name} is no number of JSON')
