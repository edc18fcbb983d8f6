"""Labels keep clear of each other, of the points, and of the edge."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tsukiji.report.labels import overlap, place

FRAME = (0, 0, 1000, 600)
NONE = np.zeros((0, 4))


def _marks(anchors: np.ndarray) -> np.ndarray:
  return np.concatenate([anchors - 5, anchors + 5], axis=-1)


def _outside(boxes: np.ndarray) -> float:
  area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
  return float((area - overlap(boxes, np.array([FRAME]))).sum())


@given(seed=st.integers(0, 10**6), count=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_scattered_points_have_clear_labels(seed: int, count: int) -> None:
  rng = np.random.default_rng(seed)
  grid = np.stack(np.meshgrid(np.arange(5), np.arange(4)), -1).reshape(-1, 2)
  cells = rng.permutation(grid)[:count]
  anchors = (cells + rng.uniform(0.3, 0.7, cells.shape)) * (200, 150)
  sizes = np.stack([rng.uniform(30, 90, count), np.full(count, 14)], -1)
  boxes = place(anchors, sizes, _marks(anchors), FRAME, gap=12)
  assert np.allclose(boxes[:, 2:] - boxes[:, :2], sizes)
  assert np.allclose(overlap(boxes, _marks(anchors)), 0)
  own = np.prod(sizes, axis=-1)
  assert np.allclose(overlap(boxes, boxes), own)  # each meets only itself
  assert np.isclose(_outside(boxes), 0)


def test_a_crowd_spreads() -> None:
  anchors = np.full((6, 2), 300.0) + np.arange(6)[:, None]
  boxes = place(anchors, np.full((6, 2), (60, 14)), _marks(anchors), FRAME, 12)
  assert np.allclose(overlap(boxes, boxes), 60 * 14)


def test_a_label_at_the_edge_turns_inwards() -> None:
  [box] = place(np.array([[995, 300]]), np.array([[80, 14]]), NONE, FRAME, 12)
  assert 0 <= box[0] < box[2] <= 1000


def test_no_labels() -> None:
  assert place(NONE[:, :2], NONE[:, :2], NONE, FRAME, 12).shape == (0, 4)
