"""Both sides of a stream walk the same models, near the ideal length."""

import numpy as np
import pytest

from tsukiji.deploy.tsk import range_coder


def draw(density: np.ndarray, rows: int) -> np.ndarray:
  rng = np.random.default_rng(rows)
  return (rng.random((rows, len(density))) < density).astype(np.int32)


def bits(p: np.ndarray) -> float:
  """Return the entropy of independent coins."""
  return float(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)).sum())


def test_three_models_share_a_stream() -> None:
  rng = np.random.default_rng(0)
  small = rng.integers(0, 5, 70, np.int32)
  wide = rng.integers(0, 2**13, 30, np.int32)
  grid = draw(np.linspace(0.1, 0.9, 6), 20)
  write, finish = range_coder.writer()
  range_coder.histogram(write, small, 5)
  range_coder.uniform(write, wide, 13)
  range_coder.bitmap(write, grid)
  read, exhausted = range_coder.reader(finish())
  got = [np.empty_like(x) for x in (small, wide, grid)]
  range_coder.histogram(read, got[0], 5)
  assert not exhausted()
  range_coder.uniform(read, got[1], 13)
  range_coder.bitmap(read, got[2])
  assert exhausted()
  for a, b in zip(got, (small, wide, grid), strict=True):
    np.testing.assert_array_equal(a, b)


def test_no_bits_take_no_bytes() -> None:
  write, finish = range_coder.writer()
  range_coder.uniform(write, np.zeros(9, np.int32), 0)
  assert finish() == b''


def test_columns_are_learnt() -> None:
  density = np.repeat([0.01, 0.5], 32)
  write, finish = range_coder.writer()
  range_coder.bitmap(write, draw(density, 2000))
  ideal = 2000 * bits(density) / 8
  assert ideal * 0.98 < len(finish()) < ideal * 1.02


def test_a_histogram_is_learnt() -> None:
  x = np.random.default_rng(0).binomial(20, 0.3, 20_000).astype(np.int32)
  write, finish = range_coder.writer()
  range_coder.histogram(write, x, 21)
  count = np.bincount(x)
  share = count[count > 0] / len(x)
  ideal = -len(x) * (share * np.log2(share)).sum() / 8
  assert ideal < len(finish()) < ideal + 40


def test_impossible_streams_are_refused() -> None:
  step, _ = range_coder.reader(b'\xff' * 400)
  with pytest.raises(ValueError, match='range coded stream'):
    range_coder.histogram(step, np.empty(10_000, np.int32), 3)
