"""Accuracy along a cost: recipes of one kind joined by a line."""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from tsukiji.report import plotting
from tsukiji.report.columns import Row, number
from tsukiji.report.plotting import Theme
from tsukiji.report.tables import recipe, role

Wanted: TypeAlias = Mapping[str, str]  # label -> pattern of network/recipe
Point: TypeAlias = tuple[float, float, float]  # cost, accuracy, deviation

MARKS = 'os^Dv>hP'


class Axis(NamedTuple):
  """What accuracy is drawn along: words, value, and whether by its log."""

  label: str
  read: Callable[[Row], float | None]
  log: bool = True


def _part(key: str) -> Callable[[Row], float | None]:
  def read(row: Row) -> float | None:
    value = number(row, key)
    return None if value is None else 100 * value

  return read


def _kept(row: Row) -> float | None:
  sparsity = number(row, 'sparsity')
  return None if sparsity is None else 100 * (1 - sparsity)


AXES = {
  'epochs': Axis('epochs of fine-tuning', lambda row: number(row, 'epochs')),
  'kept': Axis('weights that are not 0, %', _kept),
  'macs': Axis('MACs of the dense network, %', _part('mac_fraction')),
  'size': Axis(
    'size of the file, kB', lambda row: (number(row, 'bytes') or 0) / 1000
  ),
  'units': Axis('units left', lambda row: number(row, 'units'), log=False),
}


def series(
  rows: Sequence[Row], wanted: Wanted, axis: Axis
) -> dict[str, list[Point]]:
  """Return the points of each line, by rising cost.

  Args:
    rows: Summarised rows.
    wanted: By label, a regular expression for the 'network/recipe' of its
      points, as `settings.figure` takes them.
    axis: What accuracy is drawn along.

  Returns:
    By label, what there is of it; lines without points are left out.
  """
  found: dict[str, list[Point]] = {}
  for label, pattern in wanted.items():
    for row in rows:
      cost, value = axis.read(row), number(row, 'accuracy')
      if cost is None or value is None or not re.fullmatch(pattern, _name(row)):
        continue
      std = number(row, 'accuracy_std') or 0
      found.setdefault(label, []).append((cost, 100 * value, 100 * std))
  return {label: sorted(points) for label, points in found.items()}


def _name(row: Row) -> str:
  return f'{row.get("network")}/{recipe(row)}'


def draw(
  rows: Sequence[Row], wanted: Wanted, axis: Axis, title: str, theme: Theme
) -> Figure:
  """Draw a line a label, with deviations, and the dense networks as levels.

  Args:
    rows: Summarised rows, some of which `series` finds.
    wanted: See `series`.
    axis: See `series`.
    title: Of the figure.
    theme: Colours.

  Returns:
    The figure.
  """
  out = plotting.blank(5.2, theme)
  axes = out.subplots()
  plotting.dress(axes, theme, title, axis.label, 'test accuracy, %')
  _scale(axes, axis)
  handles = []
  looks = zip(itertools.cycle(MARKS), itertools.cycle(plotting.COLOURS))
  drawn = series(rows, wanted, axis)
  for (label, points), (mark, colour) in zip(
    drawn.items(), looks, strict=False
  ):
    x, y, std = zip(*points, strict=True)
    bars = axes.errorbar(x, y, std, color=colour, marker=mark, capsize=2)
    bars.lines[0].set(linewidth=1.4, markersize=5)
    bars.lines[0].set_label(plotting.drawable(label))
    handles.append(bars.lines[0])
  for row in _levels(rows, wanted):
    level = axes.axhline(
      100 * (number(row, 'accuracy') or 0), color=theme.quiet, zorder=1
    )
    level.set(linestyle=(0, (1, 2)), linewidth=1.2)
    level.set_label(plotting.drawable(f'{row.get("network")}, dense'))
    handles.append(level)
  plotting.legend(out, handles, theme)
  return out


def _levels(rows: Sequence[Row], wanted: Wanted) -> list[Row]:
  """Return the references of the networks that are drawn."""
  own = {
    row.get('network')
    for row in rows
    if any(re.fullmatch(pattern, _name(row)) for pattern in wanted.values())
  }
  return [
    row
    for row in rows
    if role(row) == 'reference' and row.get('network') in own
  ]


def _scale(axes: Axes, axis: Axis) -> None:
  if not axis.log:
    return
  axes.set_xscale('log')
  axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
  axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:,g}'))
  axes.xaxis.set_minor_locator(NullLocator())
