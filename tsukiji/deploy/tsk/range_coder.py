"""Small integers to bytes under models that adapt: range coding.

A model is a function of the symbols already coded, so none is stored. Its
probabilities are ratios of integer counts, turned into fixed point by
`constriction` (`perfect=False`) with IEEE additions, products and quotients
alone: every machine decodes the same.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from constriction import stream

Symbols: TypeAlias = np.ndarray  # int32 [n], contiguous
# Writes the symbols it is given, or fills them in from what was written: one
# walk over the models serves both sides, which therefore cannot disagree.
Step: TypeAlias = Callable[..., None]
FIRST = 16  # symbols coded before a model adapts for the first time
PULL = 4.0  # rows that the overall density counts for in that of a column


def histogram(step: Step, symbols: Symbols, values: int) -> None:
  """Code symbols in `[0, values)` under the histogram of those before them.

  The estimate is (count + 1/2) / (n + values/2) (Krichevsky & Trofimov 1981,
  IEEE Transactions on Information Theory 27(2), equation 2.8).

  Args:
    step: Writes or reads.
    symbols: What to write, or where to.
    values: At least 2.
  """
  counts = np.full(values, 0.5)
  for part in _parts(len(symbols), FIRST):
    step(symbols[part], stream.model.Categorical(counts, perfect=False))
    counts += np.bincount(symbols[part], minlength=values)


def uniform(step: Step, symbols: Symbols, bits: int) -> None:
  """Code symbols in `[0, 2**bits)`, all equally likely; 0 bits are no bytes."""
  if bits:
    step(symbols, stream.model.Uniform(1 << bits))


def bitmap(step: Step, rows: np.ndarray) -> None:
  """Code zeros and ones under the density of their column so far.

  Pruned networks lose whole inputs and filters: densities differ by column.

  Args:
    step: Writes or reads.
    rows: int32 `[rows, columns]`, contiguous.
  """
  columns = rows.shape[1]
  ones = np.zeros(columns)
  for part in _parts(len(rows), max(1, FIRST // columns)):
    seen, block = part.start, rows[part]
    overall = (ones.sum() + 0.5) / (seen * columns + 1)
    density = (ones + PULL * overall) / (seen + PULL)
    model = stream.model.Bernoulli(perfect=False)
    step(block.reshape(-1), model, np.tile(density, len(block)))
    ones += block.sum(axis=0)


def writer() -> tuple[Step, Callable[[], bytes]]:
  """Return what writes symbols, and what then returns the bytes.

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
    # The decoder reads zeros past the end, so those at the end go unsaid.
    return encoder.get_compressed().astype('>u4').tobytes().rstrip(b'\0')

  return step, finish


def reader(data: bytes | memoryview) -> tuple[Step, Callable[[], bool]]:
  """Return what reads symbols, and what then tells whether none is left.

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
  """Yield growing slices of `range(size)`: each a quarter of those before."""
  start = 0
  while start < size:
    stop = min(size, start + max(first, start // 4))
    yield slice(start, stop)
    start = stop
