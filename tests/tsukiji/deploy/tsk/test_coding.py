"""Arrays come back bit for bit, close to their entropy; damage is refused."""

import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from tsukiji.deploy.tsk import coding

DTYPES = list(coding.DTYPES.values())
LOUD = np.arange(64) % 2 * 8  # what every other channel is divided by, less 1
FEW = settings(max_examples=60, deadline=None)


def same(a: np.ndarray, b: np.ndarray) -> bool:
  return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def survives(x: np.ndarray) -> bool:
  return same(coding.decode(coding.encode(x), x.dtype, x.shape), x)


def entropy_bytes(x: np.ndarray) -> float:
  """Return the zeroth-order empirical entropy."""
  count = np.unique(x, return_counts=True)[1]
  return float((count * np.log2(x.size / count)).sum()) / 8


def gaussian_codes(shape: tuple[int, ...], kept: float = 1.0) -> np.ndarray:
  """Return int8 codes of random-normal weights, pruned by magnitude."""
  w = np.random.default_rng(sum(shape)).normal(size=shape)
  w = np.where(np.abs(w) >= np.quantile(np.abs(w), 1 - kept), w, 0)
  scale = np.abs(w).reshape(-1, shape[-1]).max(axis=0) / 127
  return np.round(w / np.where(scale > 0, scale, 1)).astype(np.int8)


def gaussian(shape: tuple[int, ...], dtype: str) -> np.ndarray:
  return np.random.default_rng(5).normal(0, 0.05, shape).astype(dtype)


def integers(values: int, shape: tuple[int, ...]) -> np.ndarray:
  return np.random.default_rng(values).integers(0, values, shape)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
  dtype = draw(st.sampled_from(DTYPES))
  shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))
  if dtype.kind == 'V':  # bfloat16, which hypothesis does not know
    return draw(hnp.arrays(np.uint16, shape)).view(dtype)
  fill = st.just(np.zeros((), dtype)[()])
  elements = hnp.from_dtype(dtype)
  if draw(st.booleans()):  # few values, as weights have
    elements = st.sampled_from(draw(st.lists(elements, min_size=1, max_size=3)))
  return draw(hnp.arrays(dtype, shape, elements=elements, fill=fill))


@FEW
@given(arrays())
def test_any_array_survives(x: np.ndarray) -> None:
  assert survives(x)


@pytest.mark.parametrize('name', ['f2', 'bf2', 'f4', 'f8'])
def test_odd_floats_keep_their_bits(name: str) -> None:
  dtype = coding.DTYPES[name]
  odd = np.array([-0.0, np.nan, -np.nan, np.inf, -np.inf, 0.0, 1e-7], dtype)
  quiet = np.zeros((50, 7), dtype)
  quiet[3] = odd
  payload = odd.view(f'u{dtype.itemsize}').copy()
  payload[1] |= 5
  for x in (odd, quiet, payload.view(dtype)):
    assert survives(x)
  assert coding.describe(coding.encode(quiet)) in (
    'sparse raw',
    'sparse floats',
  )


def test_layout_in_memory_does_not_matter() -> None:
  x = gaussian_codes((70, 80))
  want = coding.encode(x)
  assert coding.encode(np.asfortranarray(x)) == want
  assert coding.encode(np.repeat(x, 2, axis=1)[:, ::2]) == want
  wide = x.astype('f4')
  assert coding.encode(wide.astype('>f4')) == coding.encode(wide)
  decoded = coding.decode(want, x.dtype, x.shape)
  decoded += 1  # a new array, not a view of the file


@pytest.mark.parametrize(
  'want, x',
  [
    ('raw', np.linspace(-1, 1, 30)),
    ('floats', np.float32(0.5)),
    ('raw', np.float32(0.1)),
    ('raw', np.zeros((0, 3), np.int8)),
    ('raw', integers(2**62, (40,))),
    ('packed', integers(16, (100,)).astype(np.int8)),
    ('packed', integers(2, (500,)).astype(bool)),
    ('packed', integers(2**20, (400,)).astype(np.int32) - 7),
    ('entropy', gaussian_codes((40, 64))),
    ('entropy', gaussian_codes((40, 64)).astype(np.int16) * 99 + 50),
    ('entropy', gaussian_codes((40, 64)).astype(np.uint8)),
    ('entropy', integers(10, (4000,)).astype(bool)),
    ('sparse raw', np.where(integers(9, (50, 9)) == 0, 0.7, 0)),
    ('sparse packed', np.eye(60, dtype=np.int16)[:, :3] * 3),
    ('sparse entropy', gaussian_codes((64, 60)) * (np.arange(60) < 30)),
    ('floats', gaussian((40, 64), 'f4')),
    ('floats', gaussian((40, 64), 'f2')),
    ('floats', gaussian((40, 64), 'bfloat16')),
    ('raw', gaussian((40, 64), 'f8')),
    ('sparse floats', gaussian((70, 64), 'f4') * (np.arange(64) < 30)),
    ('grouped', (gaussian_codes((128, 64)) / (1 + LOUD)).astype(np.int8)),
  ],
)
def test_each_coding_is_chosen_and_survives(want: str, x: np.ndarray) -> None:
  x = np.asarray(x)
  assert coding.describe(coding.encode(x)) == want
  assert survives(x)


@pytest.mark.parametrize('shape', [(2000,), (80, 32), (5, 5, 32, 64)])
@pytest.mark.parametrize(
  'name, make',
  [
    ('int8', gaussian_codes),
    ('pruned int8', lambda shape: gaussian_codes(shape, kept=0.1)),
    ('ternary', lambda shape: np.sign(gaussian_codes(shape, kept=0.3))),
    ('binary', lambda shape: np.sign(gaussian_codes(shape))),
    ('mask', lambda shape: gaussian_codes(shape, kept=0.05) != 0),
    ('constant', lambda shape: np.full(shape, 7, np.int32)),
  ],
)
def test_size_is_near_the_entropy(name: str, make, shape) -> None:
  x = make(shape)
  assert len(coding.encode(x)) <= 1.03 * entropy_bytes(x) + 300, name


def test_floats_as_they_are_have_one_length() -> None:
  for x in (gaussian((80, 64), 'f4'), np.full((80, 64), 0.5, np.float32)):
    assert len(coding.encode(x, coded=False)) == 1 + x.nbytes
    assert len(coding.encode(x)) < x.nbytes
  few = np.where(integers(9, (50, 9)) == 0, gaussian((50, 9), 'f4'), 0)
  assert coding.describe(coding.encode(few, coded=False)) == 'sparse raw'


def test_small_histograms_cost_few_bytes() -> None:
  x = np.sign(gaussian_codes((5, 5, 32, 64), kept=0.3))
  assert len(coding.encode(x)) <= 1.002 * entropy_bytes(x) + 8


@pytest.mark.parametrize('axis', [0, 1])
def test_lost_rows_and_columns_cost_little(axis: int) -> None:
  lost = np.arange(256) % 8 > 0
  mask = np.where(np.expand_dims(lost, axis), 0, integers(2, (256, 256))) > 0
  assert len(coding.encode(mask)) < 0.5 * entropy_bytes(mask)


@pytest.mark.parametrize(
  'x',
  [np.array(['a']), np.array([object()]), np.array([1j]), np.zeros(1, 'M8')],
)
def test_other_dtypes_are_refused(x: np.ndarray) -> None:
  with pytest.raises(ValueError, match='code: expected an array of bool'):
    coding.encode(x)


FLOATS = np.float32([1.5, -2, 3, 0.5] * 5)
HALVES = np.float16([1.5, -2, 3, 0.5] * 9)
# Written once: a change in these bytes, or in the models of the range coder,
# is a new version of the format.
WRITTEN = [
  (np.float32([1.5, -0.0]), '06a1007ffe0180'),
  (np.float32([0.3, 0.1, -7]), '009a99993ecdcccc3d0000e0c0'),
  (np.int8([0, 1, 2, -1] * 3), '0101036c6c6c'),
  (np.int8([0, 1] + [0] * 60), '02000140'),
  (
    np.int8([3] * 40 + [4, 5, 3, 3, 3, 1] + [3] * 20),
    '0202047fffff5ffb8c43a6',
  ),
  (np.float32([0.0] * 60 + [2.0]), '0300040000e071060080'),
  (FLOATS, '06a17e02a333325beaefb67c1378'),
  (HALVES, '06a10e02a333325c064293041c80a07ce6e6e6e7'),
  (
    np.int8([[5, 0, 0, 0], [0, 0, 0, -7]] * 9),
    '0300088181c9e6c67c81ab020d0cedb6da8f8d28bb49',
  ),
]
# Written by earlier versions.
READ = [
  (np.float32([1.5, -0.0]), '000000c03f00000080'),
  (np.float32([0.0] * 60 + [2.0]), '0300040000e0710000000040'),
  (
    FLOATS,
    '057f80807e7d8300fdff0200fdff0200fdfbc1260a14b1c31f0e45448000000e45'
    '401c8a800e45400000000e45401c8a800e45400000000e45401c8a800e45400000'
    '000e45401c8a800e4540',
  ),
  (
    HALVES,
    '057c20e7c20b1881df881defe29e9e4b2a51097479000fcbf23f2000fcbf23f200'
    '0fcbf23f2000fcbf23f2000fcbf23f2000fcbf23f2000fcbf23f2000fcbf23f2',
  ),
]


@pytest.mark.parametrize('x, text', WRITTEN)
def test_bytes_are_as_they_were(x: np.ndarray, text: str) -> None:
  assert coding.encode(x).hex() == text


@pytest.mark.parametrize('x, text', [*WRITTEN, *READ])
def test_written_bytes_still_read(x: np.ndarray, text: str) -> None:
  assert same(coding.decode(bytes.fromhex(text), x.dtype, x.shape), x)


def test_written_groups_still_read() -> None:
  x = np.int8([[1, 0, 9, -30], [0, 3, 9, 0], [1, 4, 8, 0]])
  text = '04040100031b0400010001040000030404000909080400e20000'
  assert same(coding.decode(bytes.fromhex(text), x.dtype, x.shape), x)


@FEW
@given(st.data())
def test_damaged_bytes_give_an_error_or_an_array(data: st.DataObject) -> None:
  x = gaussian_codes((70, 64), kept=data.draw(st.sampled_from([0.1, 1.0])))
  wide = gaussian(x.shape, 'f4')
  x = data.draw(
    st.sampled_from([x, x.astype('f4'), x != 0, x[:9].astype('i4'), wide])
  )
  blob = bytearray(coding.encode(x))
  for _ in range(data.draw(st.integers(1, 3))):
    # The first bytes say most: choose them as often as all the others.
    end = data.draw(st.sampled_from([8, len(blob)]))
    at = data.draw(st.integers(0, min(end, len(blob)) - 1))
    blob[at] = data.draw(st.integers(0, 255))
  cut = data.draw(st.sampled_from([0, 0, 1, len(blob) // 2]))
  try:
    y = coding.decode(bytes(blob[: len(blob) - cut]), x.dtype, x.shape)
  except ValueError as e:
    assert 'expected' in str(e)
  else:
    assert (y.dtype, y.shape) == (x.dtype, x.shape)


@pytest.mark.parametrize(
  'data', [b'', b'\5', b'\xff', b'\1', b'\2\0\0', b'\3\7']
)
def test_bytes_that_are_no_coding_are_refused(data: bytes) -> None:
  with pytest.raises(ValueError, match='expected'):
    coding.decode(data, np.dtype('i1'), (4, 4))


@pytest.mark.parametrize(
  'kind', ['constant', 'packed', 'entropy', 'sparse', 'row']
)
def test_decoding_takes_little_more_memory_than_the_array(kind: str) -> None:
  size = 2**21
  x = np.full((size // 64, 64), 3, np.int8)
  if kind != 'constant':
    x[::3] = 7
    x[1, 1] = 0 if kind == 'packed' else -90
  if kind in ('sparse', 'row'):
    x = np.where(np.arange(size).reshape(x.shape) % 5, 0, x)
  x = x.reshape(1, -1) if kind == 'row' else x
  blob = coding.encode(x)
  coding.decode(blob, x.dtype, x.shape)  # what is made once
  tracemalloc.start()
  y = coding.decode(blob, x.dtype, x.shape)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert same(x, y)
  assert peak < 10 * x.nbytes


@pytest.mark.parametrize('data', [b'', b'\x07', b'\3\0\5', b'\3\0\1\0\x63'])
def test_only_codings_are_described(data: bytes) -> None:
  with pytest.raises(ValueError, match='expected a'):
    coding.describe(data)
