"""Lines: which points they have, in which order, at which level."""

from typing import Any

import numpy as np
import pytest

from tsukiji import report
from tsukiji.config import settings
from tsukiji.report import figures, line_plots, linear_probe, theme


def row(recipe: str, network: str = 'big', **more: Any) -> dict[str, Any]:
  """Return a summary row."""
  return {
    'recipe': recipe,
    'network': network,
    'role': 'summary',
    'of': 'compressed',
    **more,
  }


ROWS = [
  row('dense', of='reference', accuracy=0.9, bytes=4000, sparsity=0.0),
  row('half', accuracy=0.8, accuracy_std=0.01, bytes=2000, sparsity=0.5),
  row('most', accuracy=0.7, bytes=1000, sparsity=0.75),
  row('most', 'other', accuracy=0.6, bytes=900, sparsity=0.9),
  row(
    'dense',
    'small',
    of='control_scratch',
    accuracy=0.75,
    bytes=1500,
    sparsity=0.0,
  ),
]
WANTED = {
  'pruned': 'big/(half|most)',
  'other': 'other/.*',
  'scratch': 'small/dense',
  'nothing': 'half',
}


def test_axes_are_those_of_the_settings() -> None:
  assert sorted(line_plots.AXES) == sorted(settings.AXES)


def test_points_are_found_by_recipe_and_network() -> None:
  found = line_plots.series(ROWS, WANTED, line_plots.AXES['size'])
  assert found == {
    'pruned': [(1.0, 70.0, 0.0), (2.0, 80.0, 1.0)],
    'other': [(0.9, 60.0, 0.0)],
    'scratch': [(1.5, 75.0, 0.0)],
  }


def test_what_was_not_measured_is_no_point() -> None:
  assert line_plots.series(ROWS, WANTED, line_plots.AXES['epochs']) == {}
  kept = line_plots.series(ROWS, WANTED, line_plots.AXES['kept'])
  assert [x for x, _, _ in kept['pruned']] == pytest.approx([25, 50])


def test_a_line_a_label_and_a_level_a_network() -> None:
  wanted = {'pruned': 'big/[hm].*'}
  axis = line_plots.AXES['kept']
  figure = line_plots.draw(ROWS, wanted, axis, 'Title', theme.LIGHT)
  [axes] = figure.axes
  assert axes.get_xscale() == 'log'
  names = [text.get_text() for text in figure.legends[0].get_texts()]
  assert names == ['pruned', 'big, dense']
  assert list(axes.lines[0].get_ydata()) == [70, 80]


def test_a_level_is_not_drawn_of_what_is_a_point() -> None:
  wanted = {'all': 'big/.*'}
  figure = line_plots.draw(
    ROWS, wanted, line_plots.AXES['kept'], '', theme.DARK
  )
  assert [t.get_text() for t in figure.legends[0].get_texts()] == ['all']
  others = [{**r, 'reference': 'other'} for r in ROWS]
  wanted = {'pruned': 'big/half'}
  figure = line_plots.draw(
    others, wanted, line_plots.AXES['kept'], '', theme.DARK
  )
  assert [t.get_text() for t in figure.legends[0].get_texts()] == ['pruned']


def test_the_course_of_a_run_is_its_validation_accuracy_by_epoch() -> None:
  axis = line_plots.AXES['course']
  seeds = [
    row('late', role='compressed', val_course=course, accuracy=0.5)
    for course in ([0.25, 0.5], [0.75, 0.5])
  ]
  means = report.summarize([*seeds, row('ptq', role='compressed')])
  found = line_plots.series(means, {'a': 'big/late', 'b': 'big/ptq'}, axis)
  assert list(found) == ['a']
  spread = 100 * np.std([0.25, 0.75], ddof=1)
  assert found['a'] == [(1, 50.0, pytest.approx(spread)), (2, 50.0, 0.0)]
  figure = line_plots.draw(means, {'a': 'big/late'}, axis, '', theme.LIGHT)
  [axes] = figure.axes
  assert axes.get_ylabel() == 'validation accuracy, %'
  assert axes.get_xscale() == 'linear'


def test_figures_of_lines_have_words() -> None:
  item = settings.figure('Title', 'kept', {'pruned': 'big/half'})
  found = figures.draw(ROWS, {}, {'mine': item, 'none': {**item, 'lines': ()}})
  assert [p.path for p in found][:1] == ['figures/mine.png']
  assert 'pruned: 80.00 % at 50.0' in found[0].alt
  assert all(p.path != 'figures/none.png' for p in found)


def test_readings_are_drawn_once_a_network() -> None:
  reported = [
    {'name': 'input', 'accuracy': 0.5},
    {'name': 'conv1', 'accuracy': 0.75},
  ]
  rows = [row('a', readings=reported), row('b', readings=reported[:1]), *ROWS]
  found = linear_probe.curves(rows)
  assert found == {'big': [('input', 50.0), ('conv1', 75.0)]}
  [axes] = linear_probe.draw(found, theme.DARK).axes
  assert [t.get_text() for t in axes.get_xticklabels()] == ['input', 'conv1']
  pictures = figures.draw(rows, {})
  assert 'figures/readings.png' in [p.path for p in pictures]
