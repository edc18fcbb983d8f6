"""Training curves: loss and validation accuracy by epoch, a color per run."""

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tsukiji.report import theme as theme_lib
from tsukiji.report.columns import Row, number
from tsukiji.report.theme import Theme

Runs: TypeAlias = Mapping[str, Sequence[Row]]  # objects of metrics.jsonl


def by_epoch(metrics: Iterable[Row], split: str, key: str) -> list[list[float]]:
  """Average a metric of a split over each epoch.

  Args:
    metrics: Objects of metrics.jsonl.
    split: 'train' or 'validation'.
    key: 'loss' or 'accuracy'.

  Returns:
    Pairs of an epoch and a mean, by epoch; what is not finite is left out.

  >>> step = {'epoch': 1, 'split': 'train'}
  >>> by_epoch([step | {'loss': 2.0}, step | {'loss': 1.0}], 'train', 'loss')
  [[1.0, 1.5]]
  """
  found: dict[float, list[float]] = {}
  for row in metrics:
    epoch, value = number(row, 'epoch'), number(row, key)
    if row.get('split') == split and epoch is not None and value is not None:
      found.setdefault(epoch, []).append(value)
  return [[epoch, statistics.fmean(found[epoch])] for epoch in sorted(found)]


def drawable(runs: Runs) -> Runs:
  """Keep the runs that have a loss or a validation accuracy to draw.

  Of more than there are looks, only those of dense networks are kept, and of
  these the first.
  """
  keys = (('train', 'loss'), ('validation', 'loss'), ('validation', 'accuracy'))
  found = {
    name: metrics
    for name, metrics in runs.items()
    if any(by_epoch(metrics, *key) for key in keys)
  }
  if len(found) > len(theme_lib.STYLES):
    found = {n: m for n, m in found.items() if n.endswith('-dense')} or found
  return dict(itertools.islice(found.items(), len(theme_lib.STYLES)))


def training(runs: Runs, theme: Theme) -> Figure:
  """Draw loss, faint on training data, and validation accuracy by epoch.

  Args:
    runs: At least one that is `drawable`.
    theme: Colors.

  Returns:
    The figure.
  """
  out = theme_lib.blank(3.6 + 0.2 * (len(runs) // 5), theme)
  loss, accuracy = out.subplots(1, 2)
  title = 'Loss (faint: training, full: validation)'
  theme_lib.style_axes(loss, theme, title, 'epoch', 'loss')
  theme_lib.style_axes(
    accuracy, theme, 'Accuracy', 'epoch', 'validation accuracy, %'
  )
  handles = []
  for metrics, style in zip(
    runs.values(), itertools.cycle(theme_lib.STYLES), strict=False
  ):
    _plot(loss, by_epoch(metrics, 'train', 'loss'), style, alpha=0.4)
    _plot(loss, by_epoch(metrics, 'validation', 'loss'), style)
    found = by_epoch(metrics, 'validation', 'accuracy')
    line = _plot(
      accuracy, [[epoch, 100 * value] for epoch, value in found], style
    )
    handles.append(line)
  for name, line in zip(runs, handles, strict=True):
    line.set_label(theme_lib.drawable(name))
  for axes in (loss, accuracy):
    theme_lib.integer_ticks(axes)
  theme_lib.legend(out, handles, theme)
  return out


def _plot(
  axes: Axes,
  curve: Sequence[Sequence[float]],
  style: tuple[str, str],
  alpha: float = 1,
) -> Line2D:
  """Draw a curve, a lone point as a dot."""
  x, y = zip(*curve, strict=True) if curve else ((), ())
  marker = '.' if len(curve) == 1 else ''
  dashes, color = style
  [line] = axes.plot(x, y, dashes, color=color, marker=marker, alpha=alpha)
  line.set_linewidth(1.6 if alpha == 1 else 1.0)
  return line
