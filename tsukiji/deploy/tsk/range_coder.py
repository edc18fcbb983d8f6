"""Range coding of small integers under adaptive models.

A model is a function of the symbols already coded, so it is not stored. Its
probabilities are ratios of integer counts, converted to fixed point by
`constriction` (`perfect=False`) with IEEE additions, products and quotients
only, so that every machine decodes the same.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from constriction import stream

Symbols: TypeAlias = np.ndarray  # [n], contiguous; int32 to write
# Writes the symbols it is given, or fills them in from what was written: one
# walk over the models serves both sides, which therefore cannot disagree.
Step: TypeAlias = Callable[..., None]
FIRST = 16  # symbols coded before a model adapts for the first time
PULL = 4.0  # rows that the overall density counts for in that of a column
PIECE = 2**16  # symbols with densities of their own at a time


def histogram(step: Step, symbols: Symbols, values: int) -> None:
  """Code symbols in `[0, values)` under the histogram of those before them.

  The estimate is (count + 1/2) / (n + values/2) (Krichevsky & Trofimov 1981,
  IEEE Transactions on Information Theory 27(2), equation 2.8).

  Args:
    step: Writes or reads.
    symbols: int32 to write, or an array of integers to read into.
    values: At least 2.
  """
  counts = np.full(values, 0.5)
  for part in _parts(len(symbols), FIRST):
    step(symbols[part], stream.model.Categorical(counts, perfect=False))
    counts += np.bincount(symbols[part], minlength=values)


def uniform(step: Step, symbols: Symbols, bits: int) -> None:
  """Code equally likely symbols in `[0, 2**bits)`; 0 bits need no bytes."""
  if bits:
    step(symbols, stream.model.Uniform(1 << bits))


def bitmap(step: Step, rows: np.ndarray) -> None:
  """Code zeros and ones under the density of their column so far.

  Pruned networks lose all of some inputs and filters: densities differ by
  column.

  Args:
    step: Writes or reads.
    rows: int32 `[rows, columns]`, contiguous; uint8 will do to read.
  """
  columns = rows.shape[1]
  ones = np.zeros(columns, np.uint32)
  for part in _parts(len(rows), max(1, FIRST // columns)):
    before, block = part.start, rows[part]
    overall = (ones.sum() + 0.5) / (before * columns + 1)
    for piece, at in _pieces(block):
      density = (ones[at] + PULL * overall) / (before + PULL)
      model = stream.model.Bernoulli(perfect=False)
      step(piece.reshape(-1), model, np.tile(density, len(piece)))
    for at in _slices(columns, PIECE):
      ones[at] += block[:, at].sum(axis=0, dtype=np.uint32)


def _pieces(block: np.ndarray) -> Iterator[tuple[np.ndarray, slice]]:
  """Yield contiguous pieces of a block in order, and their columns."""
  columns = block.shape[1]
  for lines in _slices(len(block), max(1, PIECE // columns)):
    for at in _slices(columns, PIECE):
      yield block[lines, at], at


def _slices(size: int, step: int) -> Iterator[slice]:
  """Yield slices of `range(size)` that are equally long."""
  for start in range(0, size, step):
    yield slice(start, min(size, start + step))


def writer() -> tuple[Step, Callable[[], bytes]]:
  """Return a function that writes symbols, and one that returns the bytes.

  >>> write, finish = writer()
  >>> histogram(write, np.array([0, 1, 2, 2], np.int32), 3)
  >>> read, exhausted = reader(finish())
  >>> symbols = np.empty(4, np.int32)
  >>> histogram(read, symbols, 3)
  >>> symbols, exhausted()
  (array([0, 1, 2, 2], dtype=int32), True)
  """
  encoder = stream.queue.RangeEncoder()

  def step(symbols: Symbols, model: Any, *densities: np.ndarray) -> None:
    encoder.encode(symbols, model, *densities)

  def finish() -> bytes:
    # The decoder reads zeros past the end, so those at the end are left out.
    return encoder.get_compressed().astype('>u4').tobytes().rstrip(b'\0')

  return step, finish


def reader(data: bytes | memoryview) -> tuple[Step, Callable[[], bool]]:
  """Return a function that reads symbols, and one that checks for the end.

  The step raises ValueError where no symbols have these bytes.
  """
  words = np.frombuffer(bytes(data) + bytes(-len(data) % 4), '>u4')
  decoder = stream.queue.RangeDecoder(words.astype(np.uint32))

  def step(symbols: Symbols, model: Any, *densities: np.ndarray) -> None:
    try:
      symbols[:] = decoder.decode(model, *(densities or (len(symbols),)))
    except AssertionError as e:
      raise ValueError(
        f'symbols: expected a range coded stream, got {bytes(data[:16])!r}. '
        'The bytes are damaged.'
      ) from e

  return step, decoder.maybe_exhausted


def _parts(size: int, first: int) -> Iterator[slice]:
  """Yield growing slices of `range(size)`, each a quarter of those before."""
  start = 0
  while start < size:
    stop = min(size, start + max(first, start // 4))
    yield slice(start, stop)
    start = stop
