"""Lossless coding of arrays as bytes: the shortest of seven codings.

The first byte names the coding:

- raw: little-endian values.
- packed: integers less their minimum, in as few bits as their range needs.
- entropy: the same, range coded under an adaptive histogram.
- sparse: a map of zeros, range coded, then the other values in one of the
  codings above. The zero of a float array is +0.0; -0.0 is a value.
- grouped: integers `[..., channels]` whose channels are sorted by the size of
  their values into a few groups, each in one of the codings above. A grid
  scaled to the largest weight of each channel makes such groups.
- exponents: floats whose exponents are range coded; read, not written.
- floats: the same, without the bits that all of them have (`float_coding`).
"""

import math
from collections.abc import Container, Iterator
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np

from tsukiji.deploy.tsk import float_coding, integer_coding, range_coder
from tsukiji.deploy.tsk.varint import check, put_varint, take_varint

Shape: TypeAlias = tuple[int, ...]

NAMES = ('raw', 'packed', 'entropy', 'sparse', 'grouped', 'exponents', 'floats')
RAW, PACKED, ENTROPY, SPARSE, GROUPED, EXPONENTS, FLOATS = range(7)
# Codings that others may contain.
PLAIN = (RAW, PACKED, ENTROPY, EXPONENTS, FLOATS)
DTYPES = {
  f'{kind}{size}': np.dtype(f'{kind}{size}')
  for kind, sizes in (('b', '1'), ('i', '1248'), ('u', '1248'), ('f', '248'))
  for size in sizes
} | {'bf2': np.dtype(jnp.bfloat16)}
GROUPS = 4
GROUPED_SIZE = 4096  # smaller arrays are not worth four histograms


def dtype_name(dtype: np.dtype) -> str:
  """Return the name of a dtype in `DTYPES`; of another, NumPy's name.

  >>> dtype_name(np.dtype('f4')), dtype_name(np.dtype(jnp.bfloat16))
  ('f4', 'bf2')
  """
  return 'bf2' if dtype == jnp.bfloat16 else dtype.str[1:]


def encode(x: np.ndarray, coded: bool = True) -> bytes:
  """Return an array as bytes.

  Args:
    x: Array of any shape, including `()` and empty, and a dtype of `DTYPES`.
    coded: Whether to code floats too. Otherwise the length of float arrays
      without zeros depends on the shape only.

  Returns:
    The shortest coding, without dtype and shape.

  Raises:
    ValueError: If the dtype is not in `DTYPES`.

  >>> [describe(encode(np.array(v))) for v in (0.5, [0.0] * 99)]
  ['raw', 'sparse raw']
  """
  x = np.asarray(x)
  if dtype_name(x.dtype) not in DTYPES:
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
  """Decode an array, bit for bit.

  Args:
    data: The result of `encode`.
    dtype: Of the array, in `DTYPES`.
    shape: Of the array.

  Returns:
    A new array.

  Raises:
    ValueError: If the bytes are not a coding of such an array.

  >>> decode(encode(np.arange(3)), np.dtype(int), (3,))
  array([0, 1, 2])
  """
  kind = np.dtype('u1') if dtype.kind == 'b' else dtype
  x = _decode(memoryview(data), kind, shape, range(len(NAMES)))
  if dtype.kind == 'b':
    check(bool(np.all(x <= 1)), 'bytes of 0 and 1', 'others')
  return x.astype(dtype, copy=False)


def most_bytes(size: int) -> int:
  """Return the maximum coded size of an array of some bytes."""
  return 1 + size


def describe(data: bytes | memoryview) -> str:
  """Return the names of the codings that an encoded array uses.

  Raises:
    ValueError: If the bytes are not a coding.
  """
  name = _name(data, 0)
  if data[0] != SPARSE:
    return name
  size, rest = take_varint(memoryview(data)[2:])
  return f'{name} {_name(rest, size)}'


def _name(data: bytes | memoryview, at: int) -> str:
  known = at < len(data) and data[at] < len(NAMES)
  check(known, 'a coding', bytes(data[at : at + 1]))
  return NAMES[data[at]]


def _decode(
  data: memoryview, dtype: np.dtype, shape: Shape, known: Container[int]
) -> np.ndarray:
  """Decode one of the known codings."""
  check(len(data) > 0 and data[0] in known, 'a coding', bytes(data[:1]))
  kind, body = data[0], data[1:]
  if kind == RAW:
    return _decode_raw(body, dtype, shape)
  check(math.prod(shape) > 0, 'no values', NAMES[kind])
  if kind == SPARSE:
    return _decode_sparse(body, dtype, shape)
  if kind in (EXPONENTS, FLOATS):
    check(float_coding.known(dtype), f'{dtype} values', NAMES[kind])
    old = kind == EXPONENTS
    floats = float_coding.decode_exponents if old else float_coding.decode
    return floats(body, dtype, shape)
  check(integer_coding.known(dtype), f'{dtype} values', NAMES[kind])
  if kind == GROUPED:
    return _decode_grouped(body, dtype, shape)
  packed = kind == PACKED
  read = (
    integer_coding.decode_packed if packed else integer_coding.decode_entropy
  )
  return read(body, dtype, math.prod(shape)).reshape(shape)


def _plain(x: np.ndarray, coded: bool = True) -> bytes:
  """Return the shortest coding without a map of zeros."""
  codings = [_raw(x)]
  if coded and float_coding.known(x.dtype) and x.size:
    codings.append(bytes([FLOATS]) + float_coding.encode(x))
  if integer_coding.known(x.dtype) and x.size:
    codings.append(bytes([PACKED]) + integer_coding.packed(x))
    ranged = integer_coding.entropy(x)
    codings += [bytes([ENTROPY]) + body for body in ranged]
  return min(codings, key=len)


def _raw(x: np.ndarray) -> bytes:
  return bytes([RAW]) + x.astype(x.dtype.newbyteorder('<')).tobytes()


def _decode_raw(body: memoryview, dtype: np.dtype, shape: Shape) -> np.ndarray:
  size = math.prod(shape) * dtype.itemsize
  check(len(body) == size, f'{size} bytes', len(body))
  flat = np.frombuffer(body, dtype.newbyteorder('<'))
  return flat.astype(dtype).reshape(shape)


def _sparse(x: np.ndarray, coded: bool = True) -> Iterator[bytes]:
  """Yield the codings with a map of zeros, one per view of the map."""
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
  check(right, f'an axis of {len(shape)}', bytes(body[:1]))
  size, rest = take_varint(body[1:])
  check(size < len(rest), f'a map of {size} bytes and values', len(rest))
  axis = body[0] - 1
  columns = 1 if axis < 0 else shape[axis]
  rows = np.empty((math.prod(shape) // columns, columns), np.uint8)
  step, exhausted = range_coder.reader(rest[:size])
  range_coder.bitmap(step, rows)
  check(exhausted(), 'the end of a map', 'more bytes')
  kept = _undo_rows(rows.view(bool), shape, axis)
  values = _decode(rest[size:], dtype, (int(kept.sum()),), PLAIN)
  x = np.zeros(shape, dtype)
  x[kept] = values
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
  """Yield the coding by groups of channels, if there are enough channels."""
  if not (
    integer_coding.known(x.dtype) and x.ndim > 1 and x.size >= GROUPED_SIZE
  ):
    return
  size = np.abs(x.reshape(-1, x.shape[-1]).astype(np.int64))
  mean = size.sum(axis=0) / np.maximum(1, np.count_nonzero(size, axis=0))
  rank = np.argsort(np.argsort(mean, kind='stable'), kind='stable')
  groups = (rank * GROUPS // len(rank)).astype(np.uint8)
  parts = [bytes([PACKED]) + integer_coding.packed(groups)]
  for group in range(GROUPS):
    inner = np.ascontiguousarray(x[..., groups == group])
    parts.append(min((_plain(inner), *_sparse(inner)), key=len))
  sized = (put_varint(len(part)) + part for part in parts)
  yield bytes([GROUPED]) + b''.join(sized)


def _decode_grouped(
  body: memoryview, dtype: np.dtype, shape: Shape
) -> np.ndarray:
  check(len(shape) > 1, 'two axes or more', shape)
  part, body = _take_part(body)
  groups = _decode(part, np.dtype('u1'), shape[-1:], (RAW, PACKED))
  x = np.empty(shape, dtype)
  check(int(groups.max()) < GROUPS, f'groups under {GROUPS}', 'more')
  for group in range(GROUPS):
    part, body = _take_part(body)
    size = (*shape[:-1], int(np.count_nonzero(groups == group)))
    values = _decode(part, dtype, size, (*PLAIN, SPARSE))
    _spread(values, groups, group, x)
  check(len(body) == 0, 'the end', f'{len(body)} bytes')
  return x


def _spread(
  values: np.ndarray, groups: np.ndarray, group: int, x: np.ndarray
) -> None:
  """Write values to the channels of a group, in blocks of channels."""
  taken = 0
  for start in range(0, len(groups), integer_coding.PART):
    at = start + np.flatnonzero(groups[start:][: integer_coding.PART] == group)
    x[..., at] = values[..., taken : taken + len(at)]
    taken += len(at)


def _take_part(body: memoryview) -> tuple[memoryview, memoryview]:
  size, rest = take_varint(body)
  check(size <= len(rest), f'{size} bytes', len(rest))
  return rest[:size], rest[size:]
