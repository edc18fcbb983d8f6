"""Place labels next to points without covering points or other labels."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.transforms import IdentityTransform

from tsukiji.report import theme as theme_lib
from tsukiji.report.theme import Theme

Boxes = np.ndarray  # [n, 4]: left, bottom, right, top, in pixels

ANGLES = np.linspace(0, 2 * np.pi, 16, endpoint=False)
REACHES = (1.0, 1.8, 3.0, 4.5, 6.5)  # distances to try, in gaps
SWEEPS = 4


def place(
  anchors: np.ndarray,
  sizes: np.ndarray,
  obstacles: Boxes,
  frame: Sequence[float],
  gap: float,
) -> np.ndarray:
  """Choose a box for each label, near its anchor and clear of the rest.

  Every label in turn takes the cheapest of a ring of places, given where the
  others are; a few sweeps let early labels make room for later ones.

  Args:
    anchors: `[n, 2]`, the points, in pixels.
    sizes: `[n, 2]`, width and height of each label.
    obstacles: `[m, 4]`, boxes to stay clear of.
    frame: Left, bottom, right and top of the area to stay inside.
    gap: Distance between a point and the nearest edge of its label.

  Returns:
    `[n, 4]`, left, bottom, right and top of each label.

  >>> place([[5, 5]], [[2, 1]], np.zeros((0, 4)), (0, 0, 10, 10), gap=1)
  array([[6. , 4.5, 8. , 5.5]])
  """
  pairs = zip(np.asarray(anchors), np.asarray(sizes), strict=True)
  rings = [_ring(anchor, size, gap) for anchor, size in pairs]
  fixed = [_cost(ring, obstacles, frame, gap) for ring in rings]
  boxes = np.array([ring[0] for ring in rings]).reshape(-1, 4)
  for _ in range(SWEEPS):
    for i, ring in enumerate(rings):
      shared = overlap(ring, np.delete(boxes, i, axis=0))
      boxes[i] = ring[np.argmin(fixed[i] + shared / gap**2)]
  return boxes


def write(
  axes: Axes,
  names: Sequence[str],
  anchors: np.ndarray,
  obstacles: Boxes,
  gap: float,
  theme: Theme,
) -> None:
  """Write a name near each anchor, joined by a thin line where it is far.

  Args:
    axes: Where to write; names stay inside.
    names: What to write.
    anchors: `[n, 2]`, the points, in pixels.
    obstacles: `[m, 4]`, boxes to stay clear of.
    gap: Distance between a point and the nearest edge of its name.
    theme: Colors.
  """
  texts = [_text(axes, name, theme) for name in names]
  extents = [text.get_window_extent() for text in texts]
  sizes = np.array([extent.size for extent in extents]).reshape(-1, 2)
  boxes = place(anchors, sizes, obstacles, axes.bbox.extents, gap)
  for text, box, anchor in zip(texts, boxes, anchors, strict=True):
    text.set_position(box[:2])
    _lead(axes, anchor, np.clip(anchor, box[:2], box[2:]), gap, theme)


def _text(axes: Axes, name: str, theme: Theme) -> Text:
  out = axes.text(0, 0, name, transform=IdentityTransform())
  out.set(color=theme.ink, fontsize=theme_lib.SMALL, parse_math=False, zorder=4)
  out.set_path_effects([withStroke(linewidth=2, foreground=theme.paper)])
  out.set_in_layout(False)
  return out


def _lead(
  axes: Axes, start: np.ndarray, end: np.ndarray, gap: float, theme: Theme
) -> None:
  """Draw a thin line from a point to its name, unless they are close."""
  if np.hypot(*(end - start)) > 1.5 * gap:
    line = Line2D(*zip(start, end, strict=True), transform=IdentityTransform())
    line.set(color=theme.quiet, linewidth=0.5, zorder=1, in_layout=False)
    axes.add_artist(line)


def overlap(boxes: Boxes, others: Boxes) -> np.ndarray:
  """Sum the area that each box shares with the others.

  >>> overlap(np.array([[0, 0, 2, 2]]), np.array([[1, 1, 3, 3], [1, 0, 2, 1]]))
  array([2])
  """
  low = np.maximum(boxes[:, None, :2], others[None, :, :2])
  high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
  return np.prod(np.maximum(high - low, 0), axis=-1).sum(axis=1)


def _ring(anchor: np.ndarray, size: np.ndarray, gap: float) -> Boxes:
  """List places around an anchor, [places, 4], the nearest to the right."""
  way = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=-1)
  reach = gap * np.array(REACHES)[:, None, None]
  center = (anchor + way * (reach + size / 2)).reshape(-1, 2)
  return np.concatenate([center - size / 2, center + size / 2], axis=-1)


def _cost(
  ring: Boxes, obstacles: Boxes, frame: Sequence[float], gap: float
) -> np.ndarray:
  """Return the cost of each place: overlap, overhang and distance."""
  area = np.prod(ring[:, 2:] - ring[:, :2], axis=-1)
  outside = area - overlap(ring, np.array([frame]))
  covered = overlap(ring, obstacles)
  far = np.repeat(REACHES, len(ANGLES))
  return (4 * outside + covered) / gap**2 + 0.3 * far
