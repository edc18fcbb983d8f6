"""The Pareto front, against its definition; panels and what is in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tsukiji.report.test_report import study_rows
from tsukiji.report import scatter
from tsukiji.report.columns import Row
from tsukiji.report.summary import summarize
from tsukiji.report.theme import LIGHT

SMALL = st.integers(0, 6)  # few values, so that ties are common
POINTS = st.lists(st.tuples(SMALL, SMALL), max_size=12)
FLOATS = st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), max_size=12)


def _dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
  return a[0] <= b[0] and a[1] >= b[1] and tuple(a) != tuple(b)


@given(POINTS | FLOATS)
def test_pareto_is_what_nothing_dominates(
  points: list[tuple[float, float]],
) -> None:
  expected = [
    i for i, b in enumerate(points) if not any(_dominates(a, b) for a in points)
  ]
  assert scatter.pareto(points) == expected


def test_panels_keep_datasets_apart_and_skip_what_is_missing() -> None:
  rows: list[Row] = [
    {'recipe': 'a', 'dataset': 'x', 'accuracy': 0.5, 'bytes': 2000},
    {'recipe': 'b', 'dataset': 'y', 'accuracy': 0.5, 'bytes': 3000},
    {'recipe': 'c', 'dataset': 'y', 'accuracy': 0.5},
    {'recipe': 'd', 'dataset': 'y', 'bytes': 1000},
    {'recipe': 'e', 'dataset': 'z', 'accuracy': 0.5, 'bytes': 0},
  ]
  found = scatter.panels(rows, scatter.SIZE)
  assert [name for name, _ in found] == ['x', 'y']
  assert [[p.name for p in points] for _, points in found] == [['a'], ['b']]
  assert found[0][1][0].cost == (2.0, 2.0, 2.0)
  assert scatter.panels(rows, scatter.LATENCY) == []


def test_latency_has_quartiles_where_they_were_measured() -> None:
  timing = {'p25': 1.0, 'p50': 2.0, 'p75': 3.0}
  assert scatter.latency({'latency_ms': {'batch_1': timing}}) == (1, 2, 3)
  single = {'latency_ms': {'batch_1': {'p50': 2.0}}}
  assert scatter.latency(single) == (2, 2, 2)
  assert scatter.latency({'latency_ms': {'batch_64': timing}}) is None


def test_of_many_points_those_of_the_front_are_named() -> None:
  rows: list[Row] = [
    {'recipe': f'r{i}', 'accuracy': 0.5 + (i == 7) / 10, 'bytes': 1000 + i}
    for i in range(scatter.CROWD)
  ]
  [(_, points)] = scatter.panels(rows, scatter.SIZE)
  assert scatter.labeled(points) == points
  dense: Row = {**rows[0], 'role': 'reference', 'bytes': 9000}
  [(_, points)] = scatter.panels([*rows, dense], scatter.SIZE)
  names = [point.name for point in scatter.labeled(points)]
  assert names == ['r0', 'r7', 'r0 (reference)']


def test_an_outlier_is_drawn_at_the_floor_and_says_so() -> None:
  [(_, points)] = scatter.panels(summarize(study_rows()), scatter.SIZE)
  low = next(p for p in points if p.row['recipe'] == 'int4')
  others = [p for p in points if p is not low]
  assert low.name.startswith('int4 ↓ 70.')
  assert 80 < low.height < min(p.height for p in others)
  assert all(p.height == p.accuracy for p in others)


@pytest.mark.parametrize('cost', [scatter.SIZE, scatter.LATENCY])
def test_every_point_has_a_mark_and_a_name_inside(cost: scatter.Cost) -> None:
  rows = summarize(study_rows())
  figure = scatter.scatter(rows, cost, LIGHT)
  [axes] = figure.axes
  marks = [line for line in axes.lines if line.get_marker() not in ('', 'None')]
  assert len(marks) == len(rows)
  frame = axes.bbox.padded(2)
  boxes = [text.get_window_extent() for text in axes.texts]
  assert len(boxes) == len(rows)
  assert all(frame.contains(*corner) for b in boxes for corner in b.corners())
  assert not any(a.overlaps(b) for a in boxes for b in boxes if a is not b)


def test_the_front_steps_from_point_to_point_and_on_to_the_edge() -> None:
  rows: list[Row] = [
    {'recipe': str(i), 'accuracy': a, 'bytes': b}
    for i, (a, b) in enumerate([(0.90, 1000), (0.91, 4000), (0.89, 2000)])
  ]
  [axes] = scatter.scatter(rows, scatter.SIZE, LIGHT).axes
  x, y = axes.lines[0].get_data()
  assert list(x) == [1.0, 4.0, axes.get_xlim()[1]]
  assert list(y) == [90.0, 91.0, 91.0]
  assert axes.get_xscale() == 'log'
  assert 'kB' in axes.get_xlabel()
  assert '%' in axes.get_ylabel()
