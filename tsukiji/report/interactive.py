"""What the page draws where scripts run: accuracy against a cost, to explore.

The same panels, marks and names as the figures of `scatter`, as JSON. The page
carries it beside the figure that it replaces; `templates/front.js` draws it.
"""

from collections.abc import Sequence
from typing import Any

from matplotlib.markers import MarkerStyle
from matplotlib.path import Path

from tsukiji.report import markers, scatter
from tsukiji.report.columns import (
  DASH,
  WARNING,
  Cell,
  Row,
  columns,
  distinct,
  fill,
)
from tsukiji.report.scatter import Cost, Point
from tsukiji.report.tables import heading
from tsukiji.report.theme import Theme

# Colors of the style sheet, which knows whether the page is light or dark.
PAGE = Theme('var(--paper)', 'var(--ink)', 'var(--quiet)', 'var(--line)')
PIXEL = 100 / 72  # pixels of the page in a point of the figures
COMMANDS = {
  Path.MOVETO: 'M',
  Path.LINETO: 'L',
  Path.CURVE3: 'Q',
  Path.CURVE4: 'C',
  Path.CLOSEPOLY: 'Z',
}


def chart(rows: Sequence[Row], cost: Cost) -> dict[str, Any] | None:
  """Return accuracy against a cost as JSON types.

  Args:
    rows: Summarized rows.
    cost: What accuracy is drawn against.

  Returns:
    Labels of the axes; how many points can all be named (`crowd`); the kinds
    of marks, the outline of each as an SVG path in pixels; and the panels, one
    a dataset, each with its limits and points. A point has its place (`cost`
    in the unit of the axis, `accuracy` in %, `height` where it is drawn), its
    kind, and in words its name, what it is, its recipe and its numbers. None
    where there is nothing to draw.

  >>> row = {'recipe': 'int8', 'accuracy': 0.5, 'bytes': 9}
  >>> made = chart([row], scatter.SIZE)
  >>> [point['name'] for point in made['panels'][0]['points']]
  ['int8']
  """
  panels = scatter.panels(rows, cost)
  drawn = [point.row for _, points in panels for point in points]
  kinds = markers.kinds(drawn)
  if not drawn:
    return None
  return {
    'x': cost.label,
    'y': scatter.ACCURACY,
    'crowd': scatter.CROWD,
    'kinds': [_kind(name, row) for name, row in kinds.items()],
    'panels': [
      _panel(scatter.title(cost, dataset, points), points, [*kinds])
      for dataset, points in panels
    ],
  }


def _kind(name: str, row: Row) -> dict[str, Any]:
  """Return a kind of mark: its outline and its colors."""
  mark = markers.mark(row, PAGE)
  return {
    'name': name,
    'path': outline(str(mark.get_marker()), PIXEL * mark.get_markersize()),
    'fill': mark.get_markerfacecolor(),
    'edge': mark.get_markeredgecolor(),
    'width': mark.get_markeredgewidth(),
  }


def outline(shape: str, size: float) -> str:
  """Return a mark of Matplotlib as an SVG path around the origin.

  Args:
    shape: Of the mark, as 'o'.
    size: Across, in pixels.

  >>> outline('s', 8)
  'M-4 4L4 4L4 -4L-4 -4Z'
  """
  style = MarkerStyle(shape)
  path = style.get_path().transformed(style.get_transform())
  parts = []
  for ends, code in path.iter_segments(simplify=False):
    values = (size * ends.reshape(-1, 2) * (1, -1)).round(2) + 0.0  # y is down
    closes = code == Path.CLOSEPOLY
    numbers = [] if closes else [f'{value:g}' for value in values.ravel()]
    parts.append(COMMANDS[code] + ' '.join(numbers))
  return ''.join(parts)


def _panel(
  title: str, points: Sequence[Point], kinds: Sequence[str]
) -> dict[str, Any]:
  """Return a panel: its title, the ends of its axes and its points."""
  across, along = scatter.limits(points)
  facts = _facts([point.row for point in points])
  return {
    'title': title,
    'across': across,
    'along': along,
    'points': [
      {
        'name': point.name,
        'kind': kinds.index(markers.kind(point.row)),
        'cost': point.cost,
        'accuracy': point.accuracy,
        'height': point.height,
        'std': point.std,
        'about': _about(point.row),
        'recipe': str(point.row.get('method') or ''),
        'facts': numbers,
      }
      for point, numbers in zip(points, facts, strict=True)
    ],
  }


def _about(row: Row) -> str:
  """Say what a row is: its kind, its mode, and of how many seeds."""
  seeds = row.get('n_seeds')
  count = f'{seeds} seed{"s" * (seeds != 1)}' if seeds else ''
  return ' · '.join(
    distinct([markers.kind(row), str(row.get('mode') or ''), count])
  )


def _facts(rows: Sequence[Row]) -> list[list[tuple[str, str]]]:
  """Return the numbers of each row as pairs of words, as the table has them."""
  shown = columns(rows)
  cells = [fill(column, rows) for column in shown]
  return [
    [
      (heading(column), _words(of[i]))
      for column, of in zip(shown, cells, strict=True)
      if of[i].value is not None
    ]
    for i in range(len(rows))
  ]


def _words(cell: Cell) -> str:
  """Return a cell in words, without a deviation that is not known."""
  minor = '' if cell.minor.endswith(DASH) else cell.minor
  return ' '.join(filter(None, (cell.warning and WARNING, cell.text, minor)))
