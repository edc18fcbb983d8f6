"""Variable-length integers, and the error of damaged bytes."""


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
  """Return an integer written by `put_varint`, and the bytes behind it.

  Raises:
    ValueError: If there is none, or it does not fit in 63 bits.
  """
  n = 0
  for i, byte in enumerate(data[:9]):
    n |= (byte & 127) << 7 * i
    if byte < 128:
      return n, data[i + 1 :]
  raise damaged('an integer of at most 9 bytes', bytes(data[:9]))


def check(right: bool, expected: str, got: object) -> None:
  """Raise the error of damaged bytes unless a condition holds."""
  if not right:
    raise damaged(expected, got)


def damaged(expected: str, got: object) -> ValueError:
  """Return the error of damaged bytes."""
  return ValueError(
    f'code: expected {expected}, got {got!r}. The bytes are damaged, or '
    'belong to another array.'
  )
