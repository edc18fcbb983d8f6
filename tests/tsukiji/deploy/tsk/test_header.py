"""A file is what its first bytes say, or it is refused."""

import json
import zlib
from typing import Any

import pytest

from tsukiji.deploy.tsk import header
from tsukiji.deploy.tsk.varint import put_varint
from tsukiji.models import spec as sp
from tsukiji.models import zoo

FIELDS = {'a': [3, 4], 'm': {'note': 'µ'}, 's': None}
BLOB = header.seal(FIELDS, 99, [b'abc', b'defg'])


def reseal(body: bytes) -> bytes:
  """Return a file with a right checksum over any bytes."""
  crc = zlib.crc32(body).to_bytes(4, 'little')
  return header.MAGIC + bytes([header.LAYERS]) + crc + body


@pytest.mark.parametrize('text', ['f4 100 1048576 0', 'f4 1048576 1048576'])
def test_arrays_are_bounded_also_where_they_are_empty(text: str) -> None:
  """XLA takes seconds and gigabytes for the other axes of an empty array."""
  assert header.slot('w', 'f4 1048576 0').bytes == 0
  with pytest.raises(ValueError, match='a smaller array at w'):
    header.slot('w', text)


@pytest.mark.parametrize('version', header.READABLE)
def test_what_was_sealed_comes_back(version: int) -> None:
  blob = header.seal(FIELDS, 99, [b'abc', b'defg'], version)
  assert header.unseal(blob) == (FIELDS, 99, b'abcdefg')
  assert blob[:4] == b'TSK' + bytes([version])


@pytest.mark.parametrize(
  'blob, message',
  [
    (b'', 'begins with TSK, got b'),
    (b'TSK\1', 'begins with TSK'),
    (b'PK\3\4' + bytes(99), 'begins with TSK'),
    (BLOB[:-1], 'checksum'),
    (BLOB + b'\0', 'checksum'),
    (BLOB[:20] + b'!' + BLOB[21:], 'checksum'),
    (BLOB[:3] + b'\5' + BLOB[4:], '1 to 4, got 5. Read it with the release'),
    (reseal(b''), 'an integer'),
    (reseal(b'\0\x7f{}'), 'a header of 127 bytes, got 2'),
    (reseal(b'\xff\xff\xff\xff\xff\x7f\0'), 'a smaller total'),
    (reseal(b'\0\2{}'), 'a header of at most'),
  ],
)
def test_other_files_are_refused(blob: bytes, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    header.unseal(blob)


def test_every_flipped_bit_is_noticed() -> None:
  for at in range(len(BLOB) * 8):
    damaged = bytearray(BLOB)
    damaged[at // 8] ^= 1 << at % 8
    with pytest.raises(ValueError, match='^artefact: expected'):
      header.unseal(bytes(damaged))


def deflated(text: bytes) -> bytes:
  deflate = zlib.compressobj(9, wbits=-15, zdict=header.typical(header.LAYERS))
  head = deflate.compress(text) + deflate.flush()
  return reseal(b'\0' + put_varint(len(head)) + head)


@pytest.mark.parametrize(
  'text',
  [
    b'[]',
    b'{"a":NaN}',
    b'{"a":1' + b'0' * 5000 + b'}',
    b'{"a":"' + b' ' * header.JSON_LIMIT + b'"}',
    b'{"a":[' + b'[],' * header.JSON_NODES + b'0]}',
    b'{"a":[' + b'0,' * header.JSON_NODES + b'0]}',
    b'[' * 200_000,
    b'\xff',
  ],
)
def test_other_headers_are_refused(text: bytes) -> None:
  with pytest.raises(ValueError, match='^artefact: expected'):
    header.unseal(deflated(text))


def test_json_must_be_able_to_say_it() -> None:
  for odd in (float('nan'), b'bytes', {1, 2}, {1: 0, 'a': 0}):
    with pytest.raises(ValueError, match='that JSON can express'):
      header.seal({'m': odd}, 0, [])
  for much in ('a' * header.JSON_LIMIT, [0] * header.JSON_NODES):
    with pytest.raises(ValueError, match='Store less in meta'):
      header.seal({'m': much}, 0, [])


@pytest.mark.parametrize(
  'text',
  [
    '',
    'f4 ',
    'f4  3',
    'f4 -1',
    'f4 1_0',
    'f4 ٣',
    'O 3',
    'V2 3',
    'f4 99999999999',
    'f4 9999999999',
    'f4 0 70000 70000',
    'f4' + ' 1' * 33,
  ],
)
def test_other_slots_are_refused(text: str) -> None:
  with pytest.raises(ValueError, match='at conv1/kernel, got'):
    header.slot('conv1/kernel', text)


@pytest.mark.parametrize('name', sorted(zoo.NETWORKS))
def test_networks_come_back(name: str) -> None:
  spec = zoo.build(name, (28, 28, 1), 10)
  assert header.network(json.loads(sp.dumps(spec))) == spec


@pytest.mark.parametrize(
  'old, new',
  [
    ('"relu"', '"Module"'),
    ('"strides":[1,1]', '"strides":[0,1]'),
    ('"features":32', '"features":"32"'),
    ('"features":32', '"features":[32]'),
    ('"input_shape":[28,28,1]', '"input_shape":["a",99999999999,1]'),
    ('"input_shape":[28,28,1]', '"input_shape":[]'),
    ('"layer":"Conv"', '"layer":"Convex"'),
    ('"layer":"Conv",', ''),
    ('"kernel":[5,5]', '"kernel":5'),
    ('"kernel":[5,5]', '"kernel":[5]'),
  ],
)
def test_other_networks_are_refused(old: str, new: str) -> None:
  text = sp.dumps(zoo.tsukijinet((28, 28, 1), 10))
  assert old in text
  plain: Any = json.loads(text.replace(old, new, 1))
  with pytest.raises(ValueError, match='expected'):
    header.network(plain)
