"""Accuracy of a linear classifier behind each unit, by depth."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from matplotlib.figure import Figure

from tsukiji.report import theme as theme_lib
from tsukiji.report.columns import Row, number
from tsukiji.report.theme import Theme

Curve: TypeAlias = list[tuple[str, float]]  # unit, accuracy in percent


def curves(rows: Sequence[Row]) -> dict[str, Curve]:
  """Return the readings of each network, those of its first row that has any.

  >>> reading = {'name': 'conv1', 'accuracy': 0.5}
  >>> curves([{'network': 'net', 'readings': [reading]}])
  {'net': [('conv1', 50.0)]}
  """
  found: dict[str, Curve] = {}
  for row in rows:
    readings = row.get('readings')
    if readings:
      curve = [
        (str(r['name']), 100 * (number(r, 'accuracy') or 0)) for r in readings
      ]
      found.setdefault(str(row.get('network')), curve)
  return found


def draw(found: Mapping[str, Curve], theme: Theme) -> Figure:
  """Draw a panel per network, a point per unit.

  Args:
    found: At least one curve, by network.
    theme: Colors.

  Returns:
    The figure.
  """
  out = theme_lib.blank(3.6, theme)
  every = out.subplots(1, len(found), squeeze=False)[0]
  for axes, (network, curve) in zip(every, found.items(), strict=True):
    title = f'Linear classifier behind each unit, {network}'
    theme_lib.style_axes(axes, theme, title, '', 'validation accuracy, %')
    names, accuracies = zip(*curve, strict=True)
    axes.plot(accuracies, color=theme_lib.BLUE, marker='o', markersize=4)
    axes.set_xticks(range(len(names)), map(theme_lib.drawable, names))
    axes.tick_params(axis='x', rotation=45 if len(names) > 5 else 0)
  return out
