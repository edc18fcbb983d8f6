"""The figures of a report, their titles and descriptions."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from tsukiji.report import (
  interactive,
  line_plots,
  linear_probe,
  parallel_coordinates,
  scatter,
  search_data,
  search_figures,
  training_curves,
)
from tsukiji.report import theme as theme_lib
from tsukiji.report.columns import Row, digits
from tsukiji.report.search_data import Searched
from tsukiji.report.theme import Theme


class Picture(NamedTuple):
  """A figure as PNG files, for a light page and for a dark one.

  Attributes:
    path: Of the light file, relative to the report.
    title: What it shows.
    alt: Alternative text.
    light: PNG file.
    dark: PNG file.
    chart: What the page draws in its place, from `interactive`.
  """

  path: str
  title: str
  alt: str
  light: bytes
  dark: bytes
  chart: Mapping[str, Any] | None = None


def draw(
  rows: Sequence[Row],
  runs: training_curves.Runs,
  wanted: Mapping[str, Row] | None = None,
  searched: Sequence[Searched] = (),
) -> list[Picture]:
  """Draw the figures for which there are data.

  Args:
    rows: Summarized rows.
    runs: Objects of metrics.jsonl, by name of the run.
    wanted: Figures of lines by name, as `settings.figure` describes them.
    searched: The results of searches.

  Returns:
    The figures of the searches and those of lines, accuracy against size and
    against latency, what linear classifiers read, and the training curves.
  """
  costs = {'accuracy_bytes': scatter.SIZE, 'accuracy_latency': scatter.LATENCY}
  out = [_scatter(name, rows, cost) for name, cost in costs.items()]
  more = [_lines(name, rows, item) for name, item in (wanted or {}).items()]
  last = (_readings(rows), _training(training_curves.drawable(runs)))
  first = [p for one in searched if one.objectives for p in _search(one)]
  return [p for p in (*first, *more, *out, *last) if p]


def _search(searched: Searched) -> list[Picture]:
  summary = '; '.join(search_data.sentences(searched))
  words = ', '.join(search_data.short([*searched.ranges]).values())
  shares = ', '.join(
    f'{name} {100 * share:.0f} %'
    for name, share in searched.importances.items()
  )
  about = {
    'course': ('Best so far', f'{summary}.', search_figures.course),
    'front': (
      'What is traded for accuracy',
      f'Validation accuracy against {", ".join(searched.objectives[1:])}.',
      search_figures.front,
    ),
    'parallel': (
      'What the trials tried',
      f'Every trial a line over {words} and its validation accuracy.',
      parallel_coordinates.draw,
    ),
    'slices': (
      'Accuracy along each parameter',
      f'Validation accuracy of each trial along {words}.',
      search_figures.slices,
    ),
    'importances': (
      'What the accuracy depends on',
      f'Share of the variance: {shares}.',
      search_figures.importances,
    ),
  }
  if len(searched.objectives) < 2:
    del about['front']
  if not searched.importances:
    del about['importances']
  return [
    _picture(
      f'{searched.name}_{name}',
      f'{title} ({searched.recipe})' if searched.recipe else title,
      alt,
      functools.partial(make, searched),
    )
    for name, (title, alt, make) in about.items()
  ]


def _lines(name: str, rows: Sequence[Row], item: Row) -> Picture | None:
  axis, wanted = line_plots.AXES[item['x']], dict(item['lines'])
  found = line_plots.series(rows, wanted, axis)
  if not found:
    return None
  summary = '; '.join(
    f'{label}: ' + ', '.join(f'{y:.2f} % at {digits(x)}' for x, y, _ in points)
    for label, points in found.items()
  )
  measure = line_plots.WORDS[axis.measure].capitalize()
  return _picture(
    name,
    item['title'],
    f'{measure} by {axis.label}. {summary}.',
    lambda theme: line_plots.draw(rows, wanted, axis, item['title'], theme),
  )


def _readings(rows: Sequence[Row]) -> Picture | None:
  found = linear_probe.curves(rows)
  if not found:
    return None
  return _picture(
    'readings',
    'What a linear classifier reads behind each unit',
    f'Accuracy by depth of {", ".join(found)}.',
    lambda theme: linear_probe.draw(found, theme),
  )


def _scatter(
  name: str, rows: Sequence[Row], cost: scatter.Cost
) -> Picture | None:
  panels = scatter.panels(rows, cost)
  if not panels:
    return None
  fronts = '; '.join(
    _describe_front(dataset, points) for dataset, points in panels
  )
  picture = _picture(
    name,
    cost.title,
    f'Test accuracy against {cost.label}. Pareto front: {fronts}.',
    lambda theme: scatter.scatter(rows, cost, theme),
  )
  return picture._replace(chart=interactive.chart(rows, cost))


def _describe_front(dataset: str, points: Sequence[scatter.Point]) -> str:
  """Name the points on the Pareto front of a panel."""
  front = scatter.pareto([(p.cost[1], p.accuracy) for p in points])
  best = sorted((points[i] for i in front), key=lambda p: p.cost)
  words = [f'{p.name}, {digits(p.cost[1])}, {p.accuracy:.2f} %' for p in best]
  return ': '.join(filter(None, (dataset, '; '.join(words))))


def _training(runs: training_curves.Runs) -> Picture | None:
  if not runs:
    return None
  return _picture(
    'training',
    'Training',
    f'Loss and validation accuracy by epoch of {", ".join(runs)}.',
    lambda theme: training_curves.training(runs, theme),
  )


def _picture(
  name: str, title: str, alt: str, make: Callable[[Theme], Figure]
) -> Picture:
  light, dark = (
    theme_lib.png(make(t)) for t in (theme_lib.LIGHT, theme_lib.DARK)
  )
  return Picture(f'figures/{name}.png', title, alt, light, dark)
