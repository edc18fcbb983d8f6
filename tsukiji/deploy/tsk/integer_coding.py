"""Coding of integers of up to 32 bits: packed, or range coded.

Decoding proceeds in parts, so that it needs little more memory than its result.
"""

from collections.abc import Iterator

import numpy as np

from tsukiji.deploy.tsk import range_coder
from tsukiji.deploy.tsk.varint import check, put_varint, take_varint

HISTOGRAM_BITS = 8  # of 16 bits, the lower 8 are taken to be uniform
ENTROPY_BITS = 16  # wider integers are not range coded
PART = 2**16  # values decoded at a time; a multiple of 8


def known(dtype: np.dtype) -> bool:
  """Return whether values of a dtype have these codings."""
  return dtype.kind in 'iu' and dtype.itemsize <= 4


def packed(x: np.ndarray) -> bytes:
  """Return integers minus their minimum, in the bits that their range needs."""
  codes, top, head = _put_range(x)
  width = top.bit_length()
  octets = codes.astype('>u4').view(np.uint8).reshape(-1, 4)
  octets = octets[:, 4 - -(-width // 8) :]
  bits = np.unpackbits(octets, axis=1)[:, -width % 8 :]
  return head + np.packbits(bits).tobytes()


def decode_packed(body: memoryview, dtype: np.dtype, size: int) -> np.ndarray:
  """Decode the integers of `packed`, flat."""
  low, top, body = _take_range(body, dtype)
  width = top.bit_length()
  wanted = -(-size * width // 8)
  check(len(body) == wanted, f'{wanted} bytes', len(body))
  x = np.full(size, low, dtype)
  octets = np.frombuffer(body, np.uint8)
  for start in range(0, size if width else 0, PART):
    count = min(PART, size - start)
    part = octets[start // 8 * width :][: -(-count * width // 8)]
    bits = np.unpackbits(part, count=count * width).reshape(count, width)
    codes = np.zeros(count, np.int64)
    for place in bits.T:
      codes = 2 * codes + place
    _put(x, start, codes, low, top)
  return x


def entropy(x: np.ndarray) -> Iterator[bytes]:
  """Yield integers range coded under a histogram, if they have this coding.

  The upper bits are coded first, then the lower ones, which are taken to be
  uniform.
  """
  codes, top, head = _put_range(x)
  if 0 < top < 2**ENTROPY_BITS:
    shift = max(0, top.bit_length() - HISTOGRAM_BITS)
    high, low = codes >> shift, codes & (1 << shift) - 1
    step, finish = range_coder.writer()
    range_coder.histogram(step, high.astype(np.int32), (top >> shift) + 1)
    range_coder.uniform(step, low.astype(np.int32), shift)
    yield head + finish()


def decode_entropy(body: memoryview, dtype: np.dtype, size: int) -> np.ndarray:
  """Decode the integers of `entropy`, flat."""
  low, top, body = _take_range(body, dtype)
  check(0 < top < 2**ENTROPY_BITS, f'{ENTROPY_BITS}-bit codes', top)
  shift = max(0, top.bit_length() - HISTOGRAM_BITS)
  high, x = np.empty(size, np.uint8), np.empty(size, dtype)
  step, exhausted = range_coder.reader(body)
  range_coder.histogram(step, high, (top >> shift) + 1)
  for start in range(0, size, PART):
    fine = np.zeros(min(PART, size - start), np.int32)
    range_coder.uniform(step, fine, shift)
    codes = high[start : start + PART].astype(np.int64) << shift | fine
    _put(x, start, codes, low, top)
  check(exhausted(), 'the end of a stream', 'more bytes')
  return x


def _put(
  x: np.ndarray, start: int, codes: np.ndarray, low: int, top: int
) -> None:
  """Write codes as the values that they represent."""
  check(int(codes.max()) <= top, f'codes up to {top}', 'larger ones')
  x[start : start + len(codes)] = codes + low


def _put_range(x: np.ndarray) -> tuple[np.ndarray, int, bytes]:
  """Return values minus their minimum, their maximum, and both coded."""
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
  check(inside, f'a range inside {dtype}', (low, low + top))
  return low, top, body
