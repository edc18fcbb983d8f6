"""Parallel coordinates of a search: every trial a line over all parameters."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from tsukiji.report import theme as theme_lib
from tsukiji.report.search_data import (
  Range,
  Searched,
  Trial,
  accuracy,
  short,
  word,
)
from tsukiji.report.theme import Theme

UNUSED = -0.14  # where a line passes a parameter that its trial does not have
ACCURACY = 'validation accuracy, %'


class Scale(NamedTuple):
  """A vertical axis from 0 to 1.

  Attributes:
    marks: Labels by height.
    log: Whether it is logarithmic.
    low: The value at 0; of options their first place, 0.
    high: The value at 1.
    options: Heights by label, for a choice.
  """

  marks: Mapping[float, str]
  log: bool
  low: float
  high: float
  options: tuple[str, ...] = ()

  def __call__(self, value: Any) -> float:
    """Return the height of a value, from 0 to 1 if it is between the ends."""
    if self.options:
      value = self.options.index(str(value))
    low, high = self.low, self.high
    if self.log:
      value, low, high = map(math.log, (value, low, high))
    return (value - low) / (high - low) if high > low else 0.5


def scale(span: Range, values: Sequence[Any]) -> Scale:
  """Return the axis of a parameter.

  Args:
    span: The range of the parameter.
    values: Those that were tried.

  >>> scale(Range(True, ()), [0.01, 1.0])(0.1)
  0.5
  >>> scale(Range(False, ('a', 'b', 'c')), ['a'])('c')
  1.0
  """
  if span.options:
    last = len(span.options) - 1
    heights = [i / last if last else 0.5 for i in range(last + 1)]
    marks = dict(zip(heights, map(word, span.options), strict=True))
    return Scale(marks, False, 0, last, span.options)
  low, high = min(values), max(values)
  return Scale({0.0: f'{low:.3g}', 1.0: f'{high:.3g}'}, span.log, low, high)


def draw(searched: Searched, theme: Theme) -> Figure:
  """Draw every trial as a line over its parameters to its accuracy.

  The brighter, the better; the third that is worst is as dark as its best. A
  parameter that a trial does not have is passed below its axis.

  Args:
    searched: At least one trial is feasible.
    theme: Colors.

  Returns:
    The figure.
  """
  out = theme_lib.blank(4.4, theme)
  axes = out.subplots()
  theme_lib.style_axes(axes, theme, 'What the trials tried', '', '')
  axes.grid(visible=False)
  done = sorted((t for t in searched.trials if t.values), key=accuracy)
  names = short([*searched.ranges])
  tried = {
    path: [t.params[path] for t in done if path in t.params] for path in names
  }
  scales = {
    path: scale(searched.ranges[path], values)
    for path, values in tried.items()
    if values
  }
  percents = [100 * accuracy(t) for t in done]
  floor = percents[len(done) // 3]
  last = Scale(
    {0.0: f'≤ {floor:.1f}', 1.0: f'{percents[-1]:.1f}'},
    False,
    floor,
    percents[-1],
  )
  ends = [max(0.0, last(value)) for value in percents]
  lines = [
    [*enumerate([*_heights(scales, trial), end])]
    for trial, end in zip(done, ends, strict=True)
  ]
  shades = matplotlib.colormaps['viridis']
  drawn = LineCollection(lines, alpha=0.75)
  drawn.set_color([shades(0.95 * end) for end in ends])
  drawn.set_linewidth([0.8 + end for end in ends])
  axes.add_collection(drawn)
  _put_axes(axes, [*scales.values(), last], theme)
  labels = map(theme_lib.drawable, [*(names[x] for x in scales), ACCURACY])
  # In two rows, so that long names do not meet.
  rows = ['\n' * (i % 2) + label for i, label in enumerate(labels)]
  axes.set_xticks(range(len(rows)), rows)
  return out


def _heights(scales: Mapping[str, Scale], trial: Trial) -> list[float]:
  """Return the heights of the line of a trial."""
  return [
    at(trial.params[path]) if path in trial.params else UNUSED
    for path, at in scales.items()
  ]


def _put_axes(axes: Axes, scales: Sequence[Scale], theme: Theme) -> None:
  """Draw the vertical axes with their marks."""
  axes.set_xlim(-0.3, len(scales) - 0.4)
  axes.set_ylim(UNUSED - 0.05, 1.08)
  axes.set_yticks([])
  axes.spines[:].set_visible(False)
  for i, one in enumerate(scales):
    axes.plot([i, i], [0, 1], color=theme.quiet, linewidth=1, zorder=3)
    for height, words in one.marks.items():
      text = axes.text(i + 0.04, height, theme_lib.drawable(words), zorder=4)
      text.set(color=theme.ink, fontsize=theme_lib.SMALL, parse_math=False)
      paper = {'facecolor': theme.paper, 'alpha': 0.75, 'linewidth': 0}
      text.set(va='center', bbox={'boxstyle': 'round,pad=0.1', **paper})
