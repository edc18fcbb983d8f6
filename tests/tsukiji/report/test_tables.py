"""Names and tables of rows, for eyes and for Markdown."""

import re

import pytest
from rich.console import Console

from tests.tsukiji.report.test_report import study_rows
from tsukiji.report import tables
from tsukiji.report.columns import Row
from tsukiji.report.summary import summarize


def test_names_distinguish_rows() -> None:
  rows: list[Row] = [
    {'recipe': 'd', 'network': 'a', 'dataset': 'x', 'role': 'reference'},
    {'recipe': 'd', 'network': 'b', 'dataset': 'x', 'role': 'reference'},
    {'recipe': 'p', 'network': 'a', 'dataset': 'x', 'role': 'control_random'},
    {'name': 'two\nlines', 'network': 'a', 'dataset': 'x'},
  ]
  assert tables.names(rows) == [
    'd (a, reference)',
    'd (b, reference)',
    'p (a, random mask)',
    'two lines (a)',
  ]


def test_a_control_of_another_network_does_not_lengthen_names() -> None:
  rows: list[Row] = [
    {'recipe': 'd', 'network': 'a'},
    {'recipe': 's', 'network': 'small', 'role': 'control_scratch'},
  ]
  assert tables.names(rows) == ['d', 's (from scratch)']


def test_several_control_networks_are_distinguished() -> None:
  rows: list[Row] = [
    {'recipe': 's', 'network': n, 'role': 'control_scratch'} for n in 'ab'
  ]
  assert tables.names(rows) == ['s (from scratch, a)', 's (from scratch, b)']


@pytest.mark.parametrize(
  ('row', 'role'),
  [
    ({}, 'compressed'),
    ({'role': 'reference'}, 'reference'),
    ({'role': 'summary'}, 'compressed'),
    ({'role': 'summary', 'of': 'control_random'}, 'control_random'),
  ],
)
def test_role(row: Row, role: str) -> None:
  assert tables.role(row) == role


def test_markdown_rows_have_equally_many_cells() -> None:
  rows = summarize(study_rows()) + [{'recipe': 'a|b\n<i>'}]
  lines = tables.markdown(rows).splitlines()
  counts = {len(re.split(r'(?<!\\)\|', line)) for line in lines}
  assert len(lines) == 2 + len(rows)
  assert len(counts) == 1
  assert lines[-1].startswith('| a\\|b &lt;i&gt; | – | –')


def test_markdown_without_rows() -> None:
  assert tables.markdown([]) == '| recipe |\n| --- |\n'


def test_terminal_does_not_read_markup_in_names() -> None:
  console = Console(width=100, record=True, quiet=True)
  rows = [{'recipe': '[red]x[/red]', 'bytes': 1}]
  with console.capture() as captured:
    console.quiet = False
    console.print(tables.terminal(rows))
  assert '[red]x[/red]' in captured.get()


def test_terminal_marks_a_single_seed_with_a_dash() -> None:
  rows = [
    {'recipe': 'a', 'accuracy': 0.5, 'accuracy_std': 0.01},
    {'recipe': 'b', 'accuracy': 0.5},
  ]
  cells = list(tables.terminal(rows).columns[1].cells)
  assert [str(cell) for cell in cells] == ['50.00 ± 1.00', '50.00 ±    –']
