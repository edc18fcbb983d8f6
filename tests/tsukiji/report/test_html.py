"""The page: what its cells carry, for eyes, for sorting, for readers aloud."""

import re

import pytest

from tests.tsukiji.report.test_report import Page, study_rows
from tsukiji.report import html as report_html
from tsukiji.report.columns import Row
from tsukiji.report.contents import Contents
from tsukiji.report.summary import lines


def page_of(rows: list[Row]) -> tuple[str, Page]:
  """Write a page without figures."""
  text = report_html.page(
    Contents(
      'Title',
      lines(rows),
      ['a: smaller'],
      ['b: <conv1> gone'],
      notes=['A note'],
    )
  )
  return text, Page(text)


@pytest.fixture(scope='module')
def study() -> tuple[str, Page]:
  """Write the page of the study."""
  return page_of(study_rows())


def test_defines_its_words(study: tuple[str, Page]) -> None:
  text = study[1].text
  for word in (
    'How to read',
    'float32 dense file ÷ bytes of this file',
    'fastest dense float32 deployment',
    '1 MAC is 2 FLOP',
    'model:horowitz',
    'onnxruntime, 1 thread',
    '7 recipes · 3 seeds each',
    'a: smaller',
    'A note',
  ):
    assert word in text


def test_every_head_sorts(study: tuple[str, Page]) -> None:
  heads = [th for th in study[1].all('th') if th['scope'] == 'col']
  assert len(heads) == len(study[1].all('button')) == 9
  assert {th['aria-sort'] for th in heads} == {'none'}
  assert {th['data-first'] for th in heads} == {'ascending', 'descending'}


def test_cells_sort_by_value(study: tuple[str, Page]) -> None:
  cells = study[1].all('td')
  assert len(cells) == 7 * (1 + 3) * 8
  for cell in cells:
    assert ('data-value' in cell) != (cell.get('class') == 'none')
    float(cell.get('data-value', 0))


def test_rows_wear_badges(study: tuple[str, Page]) -> None:
  badges = re.findall(r'class="badge (\w+)">([^<]+)<', study[0])
  assert badges.count(('compressed', 'compressed')) == 4
  assert badges[0] == ('reference', 'reference')
  assert ('control', 'control: random mask') in badges
  assert ('control', 'control: from scratch') in badges


def test_seeds_fold(study: tuple[str, Page]) -> None:
  assert len(study[1].all('details')) == len(study[1].all('tbody')) == 7
  assert study[0].count('<tr class="seed">') == 21
  assert study[1].text.count('seed 2') == 7


def test_one_seed_does_not_fold() -> None:
  text, page = page_of(study_rows(1))
  assert page.all('details') == []
  assert 'class="seed"' not in text
  assert '±' not in ''.join(re.findall('<td.*?</td>', text))


def test_slower_is_flagged_for_eyes_and_ears(study: tuple[str, Page]) -> None:
  marks = [a for a in study[1].all('span') if a.get('class') == 'warn']
  assert len(marks) == 1 + 3  # int4 and its seeds
  assert marks[0]['title'] == marks[0]['aria-label']
  assert marks[0]['title'].startswith('slower than')


def test_a_missing_key_is_a_dash() -> None:
  text, page = page_of([{'recipe': 'a', 'bytes': 1000}, {'recipe': 'b'}])
  cells = re.findall('<td.*?</td>', text)
  assert cells[0] == '<td data-value="1000" title="1,000 bytes">1.00</td>'
  assert cells[1] == '<td class="none" title="not measured">–</td>'
  assert page.open == []


def test_a_row_without_numbers_is_still_a_row() -> None:
  text, page = page_of([{'recipe': 'a', 'family': 'prune', 'mode': 'lc'}])
  assert 'prune · lc' in page.text
  assert page.all('td') == []
  assert '1 recipe · 1 seed each' in text


def test_no_rows() -> None:
  _, page = page_of([])
  assert 'There are no rows yet.' in page.text
  assert page.all('table') == []


def test_light_and_dark(study: tuple[str, Page]) -> None:
  assert 'prefers-color-scheme: dark' in study[0]
  assert 'color-scheme: light dark' in study[0]


def test_attributes_cannot_be_left() -> None:
  _, page = page_of([{'recipe': '" onclick="x', 'bytes': 1, 'family': '<b>'}])
  assert not any('onclick' in attributes for _, attributes in page.tags)
  assert 'data-value' in page.all('th')[-1]
  assert page.all('th')[-1]['data-value'] == '" onclick="x'


def test_the_best_within_a_budget_comes_first() -> None:
  contents = Contents('Title', lines(study_rows(1)), verdict=['a <b> c'])
  page = Page(report_html.page(contents))
  assert 'a <b> c' in page.text
  head, results = map(page.text.index, ('Within the budget', 'Results'))
  assert head < results
  assert 'Within the budget' not in page_of(study_rows(1))[1].text
