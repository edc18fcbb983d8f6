"""The figures of a report: which there are data for, and their words."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from tsukiji.report import curves, plotting, scatter
from tsukiji.report.columns import Row, digits
from tsukiji.report.plotting import Theme


class Picture(NamedTuple):
  """A figure as PNG files, for a light page and for a dark one.

  Attributes:
    path: Of the light file, relative to the report.
    title: What it shows.
    alt: The same for those who cannot see it.
    light: PNG file.
    dark: PNG file.
  """

  path: str
  title: str
  alt: str
  light: bytes
  dark: bytes


def draw(rows: Sequence[Row], runs: curves.Runs) -> list[Picture]:
  """Draw the figures for which there are data.

  Args:
    rows: Summarised rows.
    runs: Objects of metrics.jsonl, by name of the run.

  Returns:
    Accuracy against size and against latency, and the training curves.
  """
  costs = {'accuracy_bytes': scatter.SIZE, 'accuracy_latency': scatter.LATENCY}
  out = [_scatter(name, rows, cost) for name, cost in costs.items()]
  return [p for p in (*out, _training(curves.drawable(runs))) if p]


def _scatter(
  name: str, rows: Sequence[Row], cost: scatter.Cost
) -> Picture | None:
  panels = scatter.panels(rows, cost)
  if not panels:
    return None
  fronts = '; '.join(_tell(dataset, points) for dataset, points in panels)
  return _picture(
    name,
    cost.title,
    f'Test accuracy against {cost.label}. Pareto front: {fronts}.',
    lambda theme: scatter.scatter(rows, cost, theme),
  )


def _tell(dataset: str, points: Sequence[scatter.Point]) -> str:
  """Name the points on the Pareto front of a panel."""
  front = scatter.pareto([(p.cost[1], p.accuracy) for p in points])
  best = sorted((points[i] for i in front), key=lambda p: p.cost)
  told = [f'{p.name}, {digits(p.cost[1])}, {p.accuracy:.2f} %' for p in best]
  return ': '.join(filter(None, (dataset, '; '.join(told))))


def _training(runs: curves.Runs) -> Picture | None:
  if not runs:
    return None
  return _picture(
    'training',
    'Training',
    f'Loss and validation accuracy by epoch of {", ".join(runs)}.',
    lambda theme: curves.training(runs, theme),
  )


def _picture(
  name: str, title: str, alt: str, make: Callable[[Theme], Figure]
) -> Picture:
  light, dark = (plotting.png(make(t)) for t in (plotting.LIGHT, plotting.DARK))
  return Picture(f'figures/{name}.png', title, alt, light, dark)
