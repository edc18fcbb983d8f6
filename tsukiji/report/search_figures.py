"""Figures of a search: progress, slices, importances, Pareto front."""

import bisect
import itertools
import math
import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator

from tsukiji.report import theme as theme_lib
from tsukiji.report.line_plots import logarithmic
from tsukiji.report.scatter import pareto
from tsukiji.report.search_data import (
  OBJECTIVES,
  Range,
  Searched,
  Trial,
  accuracy,
  courses,
  short,
  spent,
  twice,
  word,
)
from tsukiji.report.theme import Theme

ACROSS = 4  # panels in a row
DASHES = (0, (4, 2))


def colors(searched: Searched) -> dict[str, str]:
  """Return a color for each designer."""
  names = dict.fromkeys(t.designer for t in searched.trials)
  return dict(zip(names, itertools.cycle(theme_lib.COLORS), strict=False))


def course(searched: Searched, theme: Theme) -> Figure:
  """Draw the best accuracy so far: the median of the seeds and their extent."""
  out = theme_lib.blank(4.2, theme)
  axes = out.subplots()
  theme_lib.style_axes(
    axes,
    theme,
    'Best so far',
    'trials' + ' of full length' * any(t.share < 1 for t in searched.trials),
    'best validation accuracy so far, %',
  )
  handles, lowest = [], []
  found, times = courses(searched), spent(searched)
  for name, color in colors(searched).items():
    x, by_time = _together(times[name], found[name])
    low, mid, high = (
      [100 * f(values) for values in by_time]
      for f in (min, statistics.median, max)
    )
    axes.fill_between(x, low, high, step='post', color=color, alpha=0.18, lw=0)
    dot = '.' if len(x) == 1 else ''
    handles += axes.step(x, mid, dot, where='post', color=color, lw=1.6)
    handles[-1].set_label(theme_lib.drawable(name))
    lowest.append(mid[len(mid) // 8])
  if more := [100 * value for value in twice(searched)]:
    x, color = [*range(1, len(more) + 1)], colors(searched)['random']
    handles += axes.plot(x, more, color=color, linestyle=DASHES, lw=1.2)
    handles[-1].set_label('random, twice as many (expected)')
  top = max(100 * accuracy(t) for t in searched.trials)
  _limit(axes, min(lowest), top)
  theme_lib.integer_ticks(axes)
  theme_lib.legend(out, handles, theme)
  return out


def _together(
  times: list[list[float]], values: list[list[float]]
) -> tuple[list[float], list[list[float]]]:
  """Return the times at which all seeds have values, and the values.

  >>> _together([[1, 2], [0.5, 2.5]], [[7, 8], [5, 6]])
  ([1, 2], [[7, 5], [8, 5]])
  """
  first = max(of_seed[0] for of_seed in times)
  last = min(of_seed[-1] for of_seed in times)
  x = sorted({t for of_seed in times for t in of_seed if first <= t <= last})
  by_time = [
    [
      course[bisect.bisect_right(of_seed, t) - 1]
      for of_seed, course in zip(times, values, strict=True)
    ]
    for t in x
  ]
  return x, by_time


def slices(searched: Searched, theme: Theme) -> Figure:
  """Draw the accuracy of every trial along each parameter."""
  names = short([*searched.ranges])
  down = math.ceil(len(names) / ACROSS)
  out = theme_lib.blank(0.5 + 2.1 * down, theme)
  panels = out.subplots(down, ACROSS, sharey=True, squeeze=False).ravel()
  done = [t for t in searched.trials if t.values]
  values = sorted(100 * accuracy(t) for t in done)
  floor, top = values[len(values) // 3], values[-1]
  for axes in panels[len(names) :]:
    axes.set_visible(False)
  for i, (axes, (path, name)) in enumerate(
    zip(panels, names.items(), strict=False)
  ):
    label = 'validation accuracy, %' if i % ACROSS == 0 else ''
    theme_lib.style_axes(axes, theme, name, '', label)
    _slice(axes, path, searched, floor)
    _limit(axes, floor, top)
  theme_lib.legend(out, _dots(searched), theme)
  return out


def _slice(axes: Axes, path: str, searched: Searched, floor: float) -> None:
  """Draw a panel; values below the floor are drawn on it, faint."""
  span, looks = searched.ranges[path], colors(searched)
  own = [t for t in searched.trials if t.values and path in t.params]
  for trial in own:
    y = 100 * accuracy(trial)
    axes.plot(
      [_place(span, trial, path)],
      [max(y, floor)],
      marker='.' if y >= floor else '|',
      markersize=7,
      color=looks[trial.designer],
      alpha=0.75 if y >= floor else 0.3,
      markeredgewidth=0 if y >= floor else 1,
    )
  if span.options:
    axes.set_xticks(range(len(span.options)), [*map(word, span.options)])
    axes.set_xlim(-0.5, len(span.options) - 0.5)
  elif span.log:
    _logarithmic(axes)
  else:
    integral = all(isinstance(t.params[path], int) for t in own)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=integral))


def _logarithmic(axes: Axes) -> None:
  """Give a small panel a logarithmic scale, of few marks."""
  logarithmic(axes)
  low, high = axes.get_xlim()
  if high > 100 * low:
    axes.xaxis.set_major_locator(LogLocator(numticks=5))
    axes.xaxis.set_major_formatter(LogFormatterSciNotation())


def _place(span: Range, trial: Trial, path: str) -> float:
  """Return the position of a trial, with options jittered."""
  if not span.options:
    return float(trial.params[path])
  apart = 0.3 * math.sin(37.0 * trial.number)  # so that dots do not hide dots
  return span.options.index(str(trial.params[path])) + apart


def importances(searched: Searched, theme: Theme) -> Figure:
  """Draw what share of the variance each parameter explains."""
  found = sorted(searched.importances.items(), key=lambda item: item[1])
  names = short([*searched.ranges])
  out = theme_lib.blank(1.0 + 0.26 * len(found), theme)
  axes = out.subplots()
  title = 'What the accuracy depends on'
  theme_lib.style_axes(axes, theme, title, 'share of its variance, %', '')
  labels = [theme_lib.drawable(names[name]) for name, _ in found]
  shares = [100 * share for _, share in found]
  axes.barh(labels, shares, color=theme_lib.BLUE, height=0.66)
  axes.grid(visible=False, axis='y')
  return out


def front(searched: Searched, theme: Theme) -> Figure:
  """Draw accuracy against each other objective, with the Pareto front."""
  others = searched.objectives[1:]
  out = theme_lib.blank(4.2, theme)
  panels = out.subplots(1, len(others), sharey=True, squeeze=False)[0]
  done = [t for t in searched.trials if t.values]
  values = sorted(100 * accuracy(t) for t in done)
  for axes, name in zip(panels, others, strict=True):
    words, unit, scale = OBJECTIVES[name]
    label = 'validation accuracy, %' if axes is panels[0] else ''
    theme_lib.style_axes(
      axes, theme, words[0].upper() + words[1:], f'{words}, {unit}', label
    )
    logarithmic(axes)
    points = [(scale * t.values[name], 100 * accuracy(t)) for t in done]
    for trial, (x, y) in zip(done, points, strict=True):
      axes.plot([x], [y], '.', color=colors(searched)[trial.designer])
    best = sorted(points[i] for i in pareto(points))
    axes.step(
      [x for x, _ in best],
      [y for _, y in best],
      where='post',
      color=theme.quiet,
      linestyle=DASHES,
      lw=1,
    )
    _limit(axes, values[len(values) // 5], values[-1])
  theme_lib.legend(out, _dots(searched), theme)
  return out


def _dots(searched: Searched) -> Sequence[Line2D]:
  return [
    Line2D([], [], linestyle='', marker='.', color=c, label=name)
    for name, c in colors(searched).items()
  ]


def _limit(axes: Axes, low: float, high: float) -> None:
  """Show a range of accuracies, of which trials at the start are below."""
  room = 0.06 * max(high - low, 0.1)
  axes.set_ylim(low - room, high + room)
