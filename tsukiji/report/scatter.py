"""Accuracy against a cost: every network a point, the best ones a front."""

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from tsukiji.report import labels, markers
from tsukiji.report import theme as theme_lib
from tsukiji.report.columns import Row, digits, distinct, engine, number, timing
from tsukiji.report.tables import names, role
from tsukiji.report.theme import Theme

Pair: TypeAlias = tuple[float, float]
Range: TypeAlias = tuple[float, float, float]  # low, middle, high

NOWHERE = (1.0, 1.0, 1.0)
CROWD = 24  # points that can all be named
ACCURACY = 'test accuracy, %'
GAP = 7.0  # points from the center of a mark to its name


class Cost(NamedTuple):
  """What accuracy is plotted against: words, value, how it was measured."""

  title: str
  label: str
  read: Callable[[Row], Range | None]
  where: Callable[[Row], str] = lambda _: ''


class Point(NamedTuple):
  """A network in a panel.

  Attributes:
    cost: Low, middle and high; it is drawn at the middle.
    accuracy: In percent.
    std: Standard deviation of the accuracy, in points.
    height: The accuracy, or the floor of the panel where that is higher.
    name: For the label.
    row: Where it is from.
  """

  cost: Range
  accuracy: float
  std: float
  height: float
  name: str
  row: Row


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
  """Find the points that no other point dominates.

  A point dominates another if its x is not higher, its y not lower, and one of
  the two is better; equal points do not dominate each other.

  Args:
    points: Pairs of a cost x and a merit y.

  Returns:
    Indices into `points`, ascending.

  >>> pareto([(1, 5), (2, 4), (3, 9), (3, 8)])
  [0, 2]
  """
  front: list[int] = []
  for i in sorted(range(len(points)), key=lambda i: _ascending(points[i])):
    best = points[front[-1]] if front else (0, -np.inf)
    if points[i][1] > best[1] or tuple(points[i]) == tuple(best):
      front.append(i)
  return sorted(front)


def panels(rows: Sequence[Row], cost: Cost) -> list[tuple[str, list[Point]]]:
  """Group what can be drawn by dataset, for accuracies of two do not compare.

  Args:
    rows: Summarized rows.
    cost: What to plot accuracy against.

  Returns:
    Pairs of a dataset and its points, none of them empty.
  """
  out = []
  for dataset in dict.fromkeys(row.get('dataset') for row in rows):
    own = [row for row in rows if row.get('dataset') == dataset]
    if found := _points(own, cost):
      out.append((str(dataset or ''), found))
  return out


def scatter(rows: Sequence[Row], cost: Cost, theme: Theme) -> Figure:
  """Draw marks, deviations, names and the Pareto front, a panel per dataset.

  Args:
    rows: Summarized rows, at least one of which has an accuracy and a cost.
    cost: What to plot accuracy against.
    theme: Colors.

  Returns:
    The figure.
  """
  drawn = panels(rows, cost)
  out = theme_lib.blank(1 + 4.2 * len(drawn), theme)
  every = out.subplots(len(drawn), 1, squeeze=False)[:, 0]
  for axes, (dataset, points) in zip(every, drawn, strict=True):
    words = title(cost, dataset, points)
    theme_lib.style_axes(axes, theme, words, cost.label, ACCURACY)
    _scale(axes, points)
    _draw(axes, points, theme)
  shown = [point.row for _, points in drawn for point in points]
  theme_lib.legend(out, markers.handles(shown, theme), theme)
  out.draw_without_rendering()  # settles the layout that names must fit
  for axes, (_, points) in zip(every, drawn, strict=True):
    _write(axes, points, theme)
  out.set_layout_engine('none')
  return out


def title(cost: Cost, dataset: str, points: Sequence[Point]) -> str:
  """Return the title of a panel: the cost, data, how it was measured."""
  settings = distinct(cost.where(point.row) for point in points)
  where = 'each in its own engine' if settings[1:] else ''.join(settings)
  return ', '.join(distinct([cost.title, dataset, where]))


def limits(points: Sequence[Point]) -> tuple[Pair, Pair]:
  """Return the ends of both axes of a panel, with room for names."""
  low, high = min(p.cost[0] for p in points), max(p.cost[2] for p in points)
  room = max((high / low) ** 0.12, 1.3)
  bottom = min(point.height - point.std for point in points)
  top = max(point.height + point.std for point in points)
  margin = max(0.12 * (top - bottom), 0.3)
  return (low / room, high * room), (bottom - margin, top + margin)


def size(row: Row) -> Range | None:
  """Read the bytes of a row, in kB."""
  value = (number(row, 'bytes') or 0) / 1000
  return (value, value, value) if value > 0 else None


def latency(row: Row) -> Range | None:
  """Read the quartiles of the latency of a row at batch 1, in ms."""
  quartiles = timing(row, 1)
  low, middle, high = (number(quartiles, k) or 0 for k in ('p25', 'p50', 'p75'))
  return (low or middle, middle, high or middle) if middle > 0 else None


SIZE = Cost('Accuracy against size', 'size of the file, kB, log scale', size)
LATENCY = Cost(
  'Accuracy against latency',
  'latency at batch 1, ms, log scale',
  latency,
  engine,
)


def _ascending(point: tuple[float, float]) -> tuple[float, float]:
  return point[0], -point[1]


def _points(rows: Sequence[Row], cost: Cost) -> list[Point]:
  """Return points for the rows that have both accuracy and cost."""
  found = [
    r for r in rows if number(r, 'accuracy') is not None and cost.read(r)
  ]
  floor = _floor([100 * (number(row, 'accuracy') or 0) for row in found])
  out = []
  for name, row in zip(names(found), found, strict=True):
    accuracy = 100 * (number(row, 'accuracy') or 0)
    std = 100 * (number(row, 'accuracy_std') or 0)
    point = Point(cost.read(row) or NOWHERE, accuracy, std, accuracy, name, row)
    out.append(_raise(point, floor) if accuracy < floor else point)
  return out


def _raise(point: Point, floor: float) -> Point:
  """Put a point on the floor of its panel, with its accuracy in words."""
  name = f'{point.name} ↓ {digits(point.accuracy)} %'
  return point._replace(std=0, height=floor, name=name)


def _floor(accuracies: Sequence[float]) -> float:
  """Choose the least accuracy to show, so that an outlier hides no detail."""
  if not accuracies:
    return 0
  top = max(accuracies)
  reach = max(10 * (top - statistics.median(accuracies)), 5)
  low = min(value for value in accuracies if value >= top - reach)
  return low - max(0.15 * (top - low), 0.3) if low > min(accuracies) else low


def _scale(axes: Axes, points: Sequence[Point]) -> None:
  """Set limits, and ticks at 1, 2 and 5 times 10^n."""
  across, along = limits(points)
  axes.set_xscale('log')
  axes.set(xlim=across, ylim=along)
  axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
  axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:,g}'))
  axes.xaxis.set_minor_locator(NullLocator())


def _draw(axes: Axes, points: Sequence[Point], theme: Theme) -> None:
  """Draw the front, the deviations and the marks, in this order."""
  front = pareto([(point.cost[1], point.accuracy) for point in points])
  steps = sorted((points[i].cost[1], points[i].height) for i in front)
  x, y = np.array([*steps, (axes.get_xlim()[1], steps[-1][1])]).T
  [line] = axes.step(x, y, where='post', color=theme.quiet, zorder=1)
  line.set(**markers.FRONT)
  for cost, _, std, height, _, row in points:
    across = axes.plot([cost[0], cost[2]], [height, height])
    along = axes.plot([cost[1]] * 2, [height - std, height + std])
    for bar in across + along:
      bar.set(color=theme.quiet, linewidth=1, alpha=0.7, zorder=2)
    axes.add_line(markers.mark(row, theme, cost[1], height))


def labeled(points: Sequence[Point]) -> Sequence[Point]:
  """Return the points to name: where there are many, those of the front."""
  if len(points) <= CROWD:
    return points
  front = pareto([(point.cost[1], point.accuracy) for point in points])
  return [
    point
    for i, point in enumerate(points)
    if i in front or role(point.row) == 'reference'
  ]


def _write(axes: Axes, points: Sequence[Point], theme: Theme) -> None:
  """Write the name of each point where it covers the least."""
  points = labeled(points)
  at = axes.transData.transform([(p.cost[1], p.height) for p in points])
  names = [theme_lib.drawable(point.name) for point in points]
  obstacles = np.concatenate([_boxes(axes, line) for line in axes.lines])
  labels.write(axes, names, at, obstacles, GAP * theme_lib.PIXEL, theme)


def _boxes(axes: Axes, line: Line2D) -> np.ndarray:
  """Return boxes around the marks and the segments of a line, in pixels."""
  path = axes.transData.transform(line.get_path().vertices)
  near = theme_lib.PIXEL * (markers.SIZE / 2 if len(path) == 1 else 1.5)
  ends = path if len(path) == 1 else path[1:]
  starts = path if len(path) == 1 else path[:-1]
  low, high = np.minimum(starts, ends) - near, np.maximum(starts, ends) + near
  return np.concatenate([low, high], axis=-1)
