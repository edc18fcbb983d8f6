"""Accuracy along a cost: recipes of one kind joined by a line."""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from tsukiji.report import theme as theme_lib
from tsukiji.report.columns import Row, number
from tsukiji.report.tables import recipe, role
from tsukiji.report.theme import Theme

Wanted: TypeAlias = Mapping[str, str]  # label -> pattern of network/recipe
Point: TypeAlias = tuple[float, float, float]  # cost, accuracy, deviation

MARKS = 'os^Dv>hP'


class Axis(NamedTuple):
  """The horizontal axis of a plot of accuracies.

  Attributes:
    label: Its label.
    points: Row -> its points, none if something was not measured.
    log: Whether it is drawn by its logarithm.
    measure: The key of the accuracy.
  """

  label: str
  points: Callable[[Row], list[Point]]
  log: bool = True
  measure: str = 'accuracy'


def _at(read: Callable[[Row], float | None]) -> Callable[[Row], list[Point]]:
  """Return the function from a row to its point, at a cost."""

  def points(row: Row) -> list[Point]:
    cost, value = read(row), number(row, 'accuracy')
    if cost is None or value is None:
      return []
    return [(cost, 100 * value, 100 * (number(row, 'accuracy_std') or 0))]

  return points


def _of(key: str, scale: float = 1) -> Callable[[Row], float | None]:
  """Return the function that reads a number of a row."""

  def read(row: Row) -> float | None:
    value = number(row, key)
    return None if value is None else scale * value

  return read


def _kept(row: Row) -> float | None:
  sparsity = number(row, 'sparsity')
  return None if sparsity is None else 100 * (1 - sparsity)


def _course(row: Row) -> list[Point]:
  """Return the validation accuracy after each epoch."""
  values = row.get('val_course') or []
  spread = row.get('val_course_std') or itertools.repeat(0.0)
  pairs = zip(values, spread, strict=False)
  return [
    (i, 100 * value, 100 * std) for i, (value, std) in enumerate(pairs, 1)
  ]


AXES = {
  'course': Axis('epoch', _course, log=False, measure='val_accuracy'),
  'epochs': Axis('epochs of fine-tuning', _at(_of('epochs')), log=False),
  'kept': Axis('weights that are not 0, %', _at(_kept)),
  'macs': Axis('MACs of the dense network, %', _at(_of('mac_fraction', 100))),
  'size': Axis('size of the file, kB', _at(_of('bytes', 1e-3))),
  'units': Axis('units left', _at(_of('units')), log=False),
  'width': Axis('filters of the widest layer', _at(_of('width'))),
}
WORDS = {
  'accuracy': 'test accuracy, %',
  'val_accuracy': 'validation accuracy, %',
}


def series(
  rows: Sequence[Row], wanted: Wanted, axis: Axis
) -> dict[str, list[Point]]:
  """Return the points of each line, by rising cost.

  Args:
    rows: Summarized rows.
    wanted: By label, a regular expression for the 'network/recipe' of its
      points, as `settings.figure` takes them.
    axis: What accuracy is drawn along.

  Returns:
    Points by label; lines without points are left out.
  """
  found: dict[str, list[Point]] = {}
  for label, pattern in wanted.items():
    for row in rows:
      if re.fullmatch(pattern, _name(row)):
        found.setdefault(label, []).extend(axis.points(row))
  return {label: sorted(points) for label, points in found.items() if points}


def _name(row: Row) -> str:
  return f'{row.get("network")}/{recipe(row)}'


def draw(
  rows: Sequence[Row], wanted: Wanted, axis: Axis, title: str, theme: Theme
) -> Figure:
  """Draw a line per label, with deviations, and dense networks as levels.

  Args:
    rows: Summarized rows, some of which `series` finds.
    wanted: See `series`.
    axis: See `series`.
    title: Of the figure.
    theme: Colors.

  Returns:
    The figure.
  """
  out = theme_lib.blank(5.2, theme)
  axes = out.subplots()
  theme_lib.style_axes(axes, theme, title, axis.label, WORDS[axis.measure])
  (logarithmic if axis.log else theme_lib.integer_ticks)(axes)
  handles = []
  looks = zip(itertools.cycle(MARKS), itertools.cycle(theme_lib.STYLES))
  drawn = series(rows, wanted, axis)
  for (label, points), (mark, (dashes, color)) in zip(
    drawn.items(), looks, strict=False
  ):
    x, y, std = zip(*points, strict=True)
    bars = axes.errorbar(x, y, std, color=color, marker=mark, capsize=2)
    bars.lines[0].set(linestyle=dashes, linewidth=1.4, markersize=5)
    bars.lines[0].set_label(theme_lib.drawable(label))
    handles.append(bars.lines[0])
  for row in _levels(rows, wanted):
    level = axes.axhline(
      100 * (number(row, axis.measure) or 0), color=theme.quiet, zorder=1
    )
    level.set(linestyle=(0, (1, 2)), linewidth=1.2)
    level.set_label(theme_lib.drawable(f'{row.get("network")}, dense'))
    handles.append(level)
  theme_lib.legend(out, handles, theme)
  return out


def _levels(rows: Sequence[Row], wanted: Wanted) -> list[Row]:
  """Return the references of the points that are not points themselves.

  References of other networks are left out.
  """
  drawn: list[Row] = []
  rest: list[Row] = []
  for row in rows:
    on = any(re.fullmatch(pattern, _name(row)) for pattern in wanted.values())
    (drawn if on else rest).append(row)
  own = {row.get('network') for row in drawn}
  return [
    row
    for row in rest
    if role(row) == 'reference'
    and row.get('network') in own
    and row.get('reference', row.get('network')) == row.get('network')
  ]


def logarithmic(axes: Axes) -> None:
  """Give axes a logarithmic cost, with numbers that read as numbers."""
  axes.set_xscale('log')
  axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
  axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:,g}'))
  axes.xaxis.set_minor_locator(NullLocator())
