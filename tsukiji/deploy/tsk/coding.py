"""Arrays to bytes and back, exactly: the shortest of six codings.

The first byte names the coding:

- raw: little-endian values.
- packed: integers less their minimum, in as few bits as their range needs.
- entropy: the same, range coded under an adaptive histogram.
- sparse: a map of zeros, range coded, then the other values in one of the
  codings above. The zero of a float array is +0.0; -0.0 is a value.
- grouped: integers `[..., channels]` whose channels are sorted by the size of
  their values into a few groups, each in one of the codings above. A grid
  scaled to the largest weight of each channel makes such groups.
- exponents: floats whose exponents are range coded (`floats`).
"""

import math
from collections.abc import Container, Iterator
from typing import TypeAlias

import numpy as np

from tsukiji.deploy.tsk import float_coding, range_coder

Shape: TypeAlias = tuple[int, ...]

NAMES = ('raw', 'packed', 'entropy', 'sparse', 'grouped', 'exponents')
RAW, PACKED, ENTROPY, SPARSE, GROUPED, EXPONENTS = range(6)
PLAIN = (RAW, PACKED, ENTROPY, EXPONENTS)  # what may stand inside the others
DTYPES = {
  f'{kind}{size}': np.dtype(f'{kind}{size}')
  for kind, sizes in (('b', '1'), ('i', '1248'), ('u', '1248'), ('f', '248'))
  for size in sizes
}
HISTOGRAM_BITS = 8  # of 16 bits, the lower 8 are taken to be uniform
ENTROPY_BITS = 16  # wider integers are not entropy coded
GROUPS = 4
GROUPED_SIZE = 4096  # smaller arrays do not pay for four histograms


def encode(x: np.ndarray, coded: bool = True) -> bytes:
  """Return an array as bytes.

  Args:
    x: Any shape, also `()` and empty; a dtype of `DTYPES`.
    coded: Whether to code floats, too. Without, arrays of floats that are not
      0 are equally long.

  Returns:
    The shortest coding; dtype and shape are not in it.

  Raises:
    ValueError: If the dtype is none of `DTYPES`.

  >>> [describe(encode(np.array(v))) for v in (0.5, [0.0] * 99)]
  ['raw', 'sparse raw']
  """
  x = np.asarray(x)
  if x.dtype.str[1:] not in DTYPES:
    raise ValueError(
      f'code: expected an array of {", ".join(map(str, DTYPES.values()))}, '
      f'got {x.dtype}. Convert it first.'
    )
  x = x.astype(x.dtype.newbyteorder('='), order='C', copy=False)
  x = x.view(np.uint8) if x.dtype.kind == 'b' else x
  return min((_plain(x, coded), *_sparse(x, coded), *_grouped(x)), key=len)


def decode(
  data: bytes | memoryview, dtype: np.dtype, shape: Shape
) -> np.ndarray:
  """Return the array that `encode` was given, bit for bit.

  Args:
    data: What `encode` returned.
    dtype: Of the array, in `DTYPES`.
    shape: Of the array.

  Returns:
    A new array.

  Raises:
    ValueError: If no such array has this coding.

  >>> decode(encode(np.arange(3)), np.dtype(int), (3,))
  array([0, 1, 2])
  """
  kind = np.dtype('u1') if dtype.kind == 'b' else dtype
  x = _decode(memoryview(data), kind, shape, range(len(NAMES)))
  if dtype.kind == 'b':
    _check(bool(np.all(x <= 1)), 'bytes of 0 and 1', 'others')
  return x.astype(dtype)


def describe(data: bytes | memoryview) -> str:
  """Return the names of the codings that an encoded array uses."""
  name, body = NAMES[data[0]], memoryview(data)[2:]
  if data[0] != SPARSE:
    return name
  size, rest = take_varint(body)
  return f'{name} {NAMES[rest[size]]}'


def put_varint(n: int) -> bytes:
  """Return an integer >= 0 in groups of 7 bits, lowest first (LEB128).

  >>> put_varint(300).hex()
  'ac02'
  """
  groups = [n & 127]
  while n := n >> 7:
    groups.append(n & 127)
  return bytes([g | 128 for g in groups[:-1]] + groups[-1:])


def take_varint(data: memoryview) -> tuple[int, memoryview]:
  """Return the integer that `put_varint` wrote, and the bytes behind it.

  Raises:
    ValueError: If there is none, or it does not fit in 63 bits.
  """
  n = 0
  for i, byte in enumerate(data[:9]):
    n |= (byte & 127) << 7 * i
    if byte < 128:
      return n, data[i + 1 :]
  raise _damaged('an integer of at most 9 bytes', bytes(data[:9]))


def _decode(
  data: memoryview, dtype: np.dtype, shape: Shape, known: Container[int]
) -> np.ndarray:
  """Decode one of the known codings."""
  _check(len(data) > 0 and data[0] in known, 'a coding', bytes(data[:1]))
  kind, body = data[0], data[1:]
  if kind == RAW:
    return _decode_raw(body, dtype, shape)
  _check(math.prod(shape) > 0, 'no values', NAMES[kind])
  if kind == SPARSE:
    return _decode_sparse(body, dtype, shape)
  if kind == EXPONENTS:
    _check(float_coding.known(dtype), f'{dtype} values', NAMES[kind])
    return float_coding.decode(body, dtype, shape)
  _check(_is_small(dtype), f'{dtype} values', NAMES[kind])
  if kind == GROUPED:
    return _decode_grouped(body, dtype, shape)
  low, top, body = _take_range(body, dtype)
  read = _decode_packed if kind == PACKED else _decode_entropy
  codes = read(body, math.prod(shape), top)
  _check(int(codes.max()) <= top, f'codes up to {top}', 'larger ones')
  return (codes + low).astype(dtype).reshape(shape)


def _plain(x: np.ndarray, coded: bool = True) -> bytes:
  """Return the shortest coding that does not single out zeros."""
  codings = [_raw(x)]
  if coded and float_coding.known(x.dtype) and x.size:
    codings.append(bytes([EXPONENTS]) + float_coding.encode(x))
  if _is_small(x.dtype) and x.size:
    codings += [_packed(x), *_entropy(x)]
  return min(codings, key=len)


def _is_small(dtype: np.dtype) -> bool:
  return dtype.kind in 'iu' and dtype.itemsize <= 4


def _raw(x: np.ndarray) -> bytes:
  return bytes([RAW]) + x.astype(x.dtype.newbyteorder('<')).tobytes()


def _decode_raw(body: memoryview, dtype: np.dtype, shape: Shape) -> np.ndarray:
  _check_size(body, math.prod(shape) * dtype.itemsize)
  flat = np.frombuffer(body, dtype.newbyteorder('<'))
  return flat.astype(dtype).reshape(shape)


def _put_range(x: np.ndarray) -> tuple[np.ndarray, int, bytes]:
  """Return values less their minimum, the largest of them, and both coded."""
  low, high = int(x.min()), int(x.max())
  zigzag = 2 * low if low >= 0 else -2 * low - 1
  head = put_varint(zigzag) + put_varint(high - low)
  return x.ravel().astype(np.int64) - low, high - low, head


def _take_range(
  body: memoryview, dtype: np.dtype
) -> tuple[int, int, memoryview]:
  zigzag, body = take_varint(body)
  top, body = take_varint(body)
  low = -(zigzag + 1) // 2 if zigzag & 1 else zigzag // 2
  limits = np.iinfo(dtype)
  inside = limits.min <= low <= low + top <= limits.max
  _check(inside, f'a range inside {dtype}', (low, low + top))
  return low, top, body


def _packed(x: np.ndarray) -> bytes:
  codes, top, head = _put_range(x)
  width = top.bit_length()
  octets = codes.astype('>u4').view(np.uint8).reshape(-1, 4)
  octets = octets[:, 4 - -(-width // 8) :]
  bits = np.unpackbits(octets, axis=1)[:, -width % 8 :]
  return bytes([PACKED]) + head + np.packbits(bits).tobytes()


def _decode_packed(body: memoryview, size: int, top: int) -> np.ndarray:
  width = top.bit_length()
  _check_size(body, -(-size * width // 8))
  bits = np.unpackbits(np.frombuffer(body, np.uint8), count=size * width)
  codes = np.zeros(size, np.int64)
  for place in bits.reshape(size, width).T:
    codes = 2 * codes + place
  return codes


def _entropy(x: np.ndarray) -> Iterator[bytes]:
  """Yield the range coding, if the values allow one."""
  codes, top, head = _put_range(x)
  if 0 < top < 2**ENTROPY_BITS:
    shift = max(0, top.bit_length() - HISTOGRAM_BITS)
    high, low = codes >> shift, codes & (1 << shift) - 1
    step, finish = range_coder.writer()
    range_coder.histogram(step, high.astype(np.int32), (top >> shift) + 1)
    range_coder.uniform(step, low.astype(np.int32), shift)
    yield bytes([ENTROPY]) + head + finish()


def _decode_entropy(body: memoryview, size: int, top: int) -> np.ndarray:
  _check(0 < top < 2**ENTROPY_BITS, f'{ENTROPY_BITS}-bit codes', top)
  shift = max(0, top.bit_length() - HISTOGRAM_BITS)
  high, low = np.empty(size, np.int32), np.zeros(size, np.int32)
  step, exhausted = range_coder.reader(body)
  range_coder.histogram(step, high, (top >> shift) + 1)
  range_coder.uniform(step, low, shift)
  _check(exhausted(), 'the end of a stream', 'more bytes')
  return high.astype(np.int64) << shift | low


def _sparse(x: np.ndarray, coded: bool = True) -> Iterator[bytes]:
  """Yield the codings with a map of zeros, one a view of the map."""
  kept = x.view(f'u{x.dtype.itemsize}') != 0
  if kept.all():
    return
  values = _plain(x[kept], coded)
  for view in range(x.ndim + 1):
    step, finish = range_coder.writer()
    range_coder.bitmap(step, _rows(kept, view).astype(np.int32, order='C'))
    where = finish()
    yield bytes([SPARSE, view]) + put_varint(len(where)) + where + values


def _decode_sparse(
  body: memoryview, dtype: np.dtype, shape: Shape
) -> np.ndarray:
  right = len(body) > 0 and body[0] <= len(shape)
  _check(right, f'an axis of {len(shape)}', bytes(body[:1]))
  size, rest = take_varint(body[1:])
  _check(size < len(rest), f'a map of {size} bytes and values', len(rest))
  axis = body[0] - 1
  columns = 1 if axis < 0 else shape[axis]
  rows = np.empty((math.prod(shape) // columns, columns), np.int32)
  step, exhausted = range_coder.reader(rest[:size])
  range_coder.bitmap(step, rows)
  _check(exhausted(), 'the end of a map', 'more bytes')
  x = np.zeros(shape, dtype)
  kept = _undo_rows(rows, shape, axis) != 0
  x[kept] = _decode(rest[size:], dtype, (int(kept.sum()),), PLAIN)
  return x


def _rows(x: np.ndarray, view: int) -> np.ndarray:
  """Return `[rows, columns]`: one column, or one per index of an axis."""
  if view == 0:
    return x.reshape(-1, 1)
  return np.moveaxis(x, view - 1, -1).reshape(-1, x.shape[view - 1])


def _undo_rows(rows: np.ndarray, shape: Shape, axis: int) -> np.ndarray:
  if axis < 0:
    return rows.reshape(shape)
  others = shape[:axis] + shape[axis + 1 :]
  return np.moveaxis(rows.reshape(*others, shape[axis]), -1, axis)


def _grouped(x: np.ndarray) -> Iterator[bytes]:
  """Yield the coding by groups of channels, if there is enough to group."""
  if not (_is_small(x.dtype) and x.ndim > 1 and x.size >= GROUPED_SIZE):
    return
  size = np.abs(x.reshape(-1, x.shape[-1]).astype(np.int64))
  mean = size.sum(axis=0) / np.maximum(1, np.count_nonzero(size, axis=0))
  rank = np.argsort(np.argsort(mean, kind='stable'), kind='stable')
  groups = (rank * GROUPS // len(rank)).astype(np.uint8)
  parts = [_packed(groups)]
  for group in range(GROUPS):
    inner = np.ascontiguousarray(x[..., groups == group])
    parts.append(min((_plain(inner), *_sparse(inner)), key=len))
  sized = (put_varint(len(part)) + part for part in parts)
  yield bytes([GROUPED]) + b''.join(sized)


def _decode_grouped(
  body: memoryview, dtype: np.dtype, shape: Shape
) -> np.ndarray:
  _check(len(shape) > 1, 'two axes or more', shape)
  part, body = _take_part(body)
  groups = _decode(part, np.dtype('u1'), shape[-1:], (RAW, PACKED))
  x = np.empty(shape, dtype)
  _check(int(groups.max()) < GROUPS, f'groups under {GROUPS}', 'more')
  for group in range(GROUPS):
    part, body = _take_part(body)
    here = groups == group
    size = (*shape[:-1], int(here.sum()))
    x[..., here] = _decode(part, dtype, size, (*PLAIN, SPARSE))
  _check(len(body) == 0, 'the end', f'{len(body)} bytes')
  return x


def _take_part(body: memoryview) -> tuple[memoryview, memoryview]:
  size, rest = take_varint(body)
  _check(size <= len(rest), f'{size} bytes', len(rest))
  return rest[:size], rest[size:]


def _check_size(body: memoryview, size: int) -> None:
  _check(len(body) == size, f'{size} bytes', len(body))


def _check(right: bool, expected: str, got: object) -> None:
  if not right:
    raise _damaged(expected, got)


def _damaged(expected: str, got: object) -> ValueError:
  return ValueError(
    f'code: expected {expected}, got {got!r}. The bytes are damaged, or '
    'belong to another array.'
  )
