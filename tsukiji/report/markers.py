"""Markers of networks: the shape encodes family and role."""

from collections.abc import Iterable

from matplotlib.lines import Line2D

from tsukiji.report import theme as theme_lib
from tsukiji.report.columns import Row
from tsukiji.report.tables import CONTROLS, role
from tsukiji.report.theme import Theme

SIZE = 7.0  # points across
FAMILIES = {  # shape, color
  'prune': ('o', theme_lib.BLUE),
  'channels': ('>', theme_lib.SKY),
  'layers': ('h', theme_lib.PURPLE),
  'quantize': ('^', theme_lib.VERMILION),
  'binary': ('v', theme_lib.ORANGE),
  'lowrank': ('D', theme_lib.GREEN),
  'share': ('X', theme_lib.PURPLE),
  'structured': ('p', theme_lib.ORANGE),
  'filters': ('P', theme_lib.SKY),
  'distill': ('<', theme_lib.GREEN),
  'combined': ('*', theme_lib.VERMILION),
}
OTHER = ('o', theme_lib.GREEN)
HOLLOW = {'control_scratch': 's', 'control_random': 'o'}
FRONT = {'linestyle': (0, (4, 2)), 'linewidth': 1.0}


def kind(row: Row) -> str:
  """Return what a marker represents: a role, or the family of a method.

  >>> kind({'role': 'compressed', 'family': 'prune'})
  'prune'
  """
  if role(row) in ('reference', 'searched'):
    return role(row)
  word = CONTROLS.get(role(row))
  return f'control, {word}' if word else str(row.get('family') or 'compressed')


def mark(row: Row, theme: Theme, x: float = 0, y: float = 0) -> Line2D:
  """Make the mark of a row: in ink for a reference, hollow for a control."""
  shape, color = FAMILIES.get(str(row.get('family')), OTHER)
  if role(row) == 'reference':
    shape, color = 's', theme.ink
  elif role(row) == 'searched':
    shape, color = 's', theme_lib.GREEN
  hollow = role(row) in HOLLOW
  return Line2D(
    [x],
    [y],
    linestyle='',
    marker=HOLLOW.get(role(row), shape),
    markersize=SIZE * (1.6 if shape == '*' and not hollow else 1),
    markerfacecolor=theme.paper if hollow else color,
    markeredgecolor=theme.quiet if hollow else theme.paper,
    markeredgewidth=1.4 if hollow else 0.7,
    zorder=3,
  )


def _rank(entry: tuple[str, Row]) -> tuple[int, str]:
  """Sort a reference first, then controls, then families by name."""
  name, row = entry
  order = ('reference', 'searched', *HOLLOW)
  found = role(row) in order
  return (order.index(role(row)) if found else len(order)), name


def kinds(rows: Iterable[Row]) -> dict[str, Row]:
  """Return the kinds of marks in the order of a legend, each with a row."""
  found = {kind(row): row for row in rows}
  return dict(sorted(found.items(), key=_rank))


def handles(rows: Iterable[Row], theme: Theme) -> list[Line2D]:
  """Make a legend entry per kind of mark, and one for the Pareto front."""
  out = []
  for name, row in kinds(rows).items():
    out.append(mark(row, theme))
    out[-1].set_label(theme_lib.drawable(name))
  front = Line2D([], [], color=theme.quiet, label='Pareto front')
  front.set(**FRONT)
  return [*out, front]
