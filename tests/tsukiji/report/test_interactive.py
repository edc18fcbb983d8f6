"""What the page is given to draw: panels, marks and names as in the figures."""

import json
import re

import pytest

from tests.tsukiji.report.test_report import Page, study_rows
from tsukiji.report import html as report_html
from tsukiji.report import interactive, markers, scatter
from tsukiji.report.columns import Row
from tsukiji.report.contents import Contents
from tsukiji.report.figures import Picture
from tsukiji.report.summary import lines, summarize
from tsukiji.report.theme import LIGHT

NASTY = '</script><script>alert("1")</script> & 築地'


def means(**changes: object) -> list[Row]:
  """Return the rows of the study, summarized, all with some changes."""
  return [row for row, _ in lines([r | changes for r in study_rows()])]


def page_with(chart: dict | None) -> str:
  """Return a page with one figure that has a chart."""
  picture = Picture('figures/a.png', 'A', 'alt', b'light', b'dark', chart)
  return report_html.page(Contents('Title', [], pictures=[picture]))


@pytest.mark.parametrize('cost', [scatter.SIZE, scatter.LATENCY])
def test_points_are_those_of_the_figure(cost: scatter.Cost) -> None:
  rows = means()
  made = interactive.chart(rows, cost)
  assert made
  [(_, points)] = scatter.panels(rows, cost)
  [panel] = made['panels']
  assert (panel['across'], panel['along']) == scatter.limits(points)
  assert [p['name'] for p in panel['points']] == [p.name for p in points]
  for one, point in zip(panel['points'], points, strict=True):
    assert one['cost'] == point.cost
    assert (one['accuracy'], one['height']) == (point.accuracy, point.height)
    assert made['kinds'][one['kind']]['name'] == markers.kind(point.row)


def test_a_point_has_its_recipe_and_the_numbers_of_the_table() -> None:
  method = 'prune.weights(0.9) >> quantize.int8()'
  made = interactive.chart(means(method=method), scatter.SIZE)
  assert made
  point = next(
    p for p in made['panels'][0]['points'] if p['name'] == 'prune90+int8'
  )
  assert point['recipe'] == method
  assert point['about'] == 'combined · qat · 3 seeds'
  facts = dict(point['facts'])
  assert facts['size, kB'] == '63.2'
  assert re.fullmatch(r'91\.\d\d ± 0\.\d\d', facts['accuracy, %'])
  assert facts['speed-up, rate'] == '1.41×'


def test_slower_is_flagged_and_unknown_deviations_are_left_out() -> None:
  rows = [row for row, _ in lines([*study_rows()[:3], *study_rows(1)[4:5]])]
  made = interactive.chart(rows, scatter.SIZE)
  assert made
  facts = dict(made['panels'][0]['points'][1]['facts'])
  assert facts['speed-up, rate'] == '⚠ 0.940×'
  assert '±' not in facts['accuracy, %']


def test_kinds_come_in_the_order_of_the_legend() -> None:
  made = interactive.chart(means(), scatter.SIZE)
  assert made
  names = [kind['name'] for kind in made['kinds']]
  legend = [h.get_label() for h in markers.handles(means(), LIGHT)]
  assert [*names, 'Pareto front'] == legend
  reference, scratch = made['kinds'][:2]
  assert reference['fill'] == 'var(--ink)'
  assert scratch['fill'] == 'var(--paper)'


def test_every_mark_has_an_outline() -> None:
  shapes = {shape for shape, _ in markers.FAMILIES.values()}
  for shape in shapes | {'s'}:
    path = interactive.outline(shape, 10)
    assert re.fullmatch(r'M[-\d. ]+([LQC][-\d. ]+)+Z', path)
    numbers = [float(x) for x in re.findall(r'-?\d+\.?\d*', path)]
    assert 4 < max(map(abs, numbers)) <= 7.1


def test_datasets_have_a_panel_each() -> None:
  rows = [*study_rows(1), *(r | {'dataset': 'kmnist'} for r in study_rows(1))]
  made = interactive.chart(summarize(rows), scatter.SIZE)
  assert made
  titles = [panel['title'] for panel in made['panels']]
  assert [title.rpartition(' ')[2] for title in titles] == [
    'fashion_mnist',
    'kmnist',
  ]


def test_nothing_to_draw_is_no_chart() -> None:
  assert interactive.chart([], scatter.SIZE) is None
  assert interactive.chart([{'accuracy': 0.5}], scatter.SIZE) is None
  assert 'application/json' not in page_with(None)


def test_the_page_carries_the_chart_behind_its_picture() -> None:
  made = interactive.chart(means(recipe=NASTY), scatter.SIZE)
  text = page_with(made)
  page = Page(text)
  assert page.open == []
  assert len(page.all('script')) == 3  # the chart, sorting, drawing
  assert len(page.all('img')) == 1  # for who has no scripts
  [carried] = re.findall(
    r'<script type="application/json">(.*?)</script>', text, re.DOTALL
  )
  assert json.loads(carried) == json.loads(json.dumps(made))
