"""What networks take on a device, as a table of the report."""

from typing import Any

from tests.tsukiji.report.test_report import Page
from tsukiji import report
from tsukiji.report import device
from tsukiji.report import html as report_html
from tsukiji.report.contents import Contents
from tsukiji.report.summary import lines

TAKEN = {
  'flash': 5120,
  'ram': 2048,
  'products': 81920,
  'sign_words': 0,
  'read': 90112,
  'moved': 10240,
  'energy_uj': 3.21,
  'energy_source': 'model:x',
}


def row(recipe: str, seed: int = 0, **more: Any) -> dict[str, Any]:
  return {'recipe': recipe, 'network': 'net', 'seed': seed, **more}


def test_the_first_seed_with_a_file_counts() -> None:
  rows = [row('a'), row('a', 1, device=TAKEN), row('b')]
  rows += [row('signs', device={**TAKEN, 'sign_words': 3000})]
  heads, *found = device.table(lines(rows))
  assert heads[-1] == 'µJ, model:x'
  assert [x[0] for x in found] == ['a', 'signs']
  assert [x[3] for x in found] == ['0.0819', '0.0819 + 0.00300 of 32 signs']


def test_there_is_no_table_without_c_files() -> None:
  assert device.table(lines([row('a')])) == []


def test_it_is_on_the_page() -> None:
  found = lines([row('<int8>', device=TAKEN)])
  contents = Contents('Title', found, device=device.table(found))
  page = Page(report_html.page(contents))
  assert device.HEAD in page.text
  assert '<int8>' in page.text
  assert '90.1' in page.text


def test_it_is_in_the_markdown(tmp_path: Any) -> None:
  report.write(tmp_path, [row('a', device=TAKEN)], report.Extras('Title'))
  text = (tmp_path / 'report.md').read_text()
  assert '| a | 5.12 | 2.05 | 0.0819 | 90.1 | 10.2 | 3.21 |' in text
