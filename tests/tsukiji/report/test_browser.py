"""The page in a real browser: pointer, touch, keys, legend, widths, colors."""

import html
import json
import pathlib
import re
import shutil
import subprocess
from typing import Any

import pytest

from tests.tsukiji.report.test_interactive import means, page_with
from tsukiji.report import interactive, scatter

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(not BROWSER, reason='no Chromium here'),
]
METHOD = 'prune.weights(0.9) >> quantize.int8()'
FLAGS = (
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-background-networking',
  '--host-resolver-rules=MAP * ~NOTFOUND',
  '--window-size=1400,1000',
  '--virtual-time-budget=4000',
)
# Acts as a person would, in the page, and notes what is to be seen.
ACTS = """
const one = query => document.querySelector(query);
const all = query => [...document.querySelectorAll(query)];
const out = {}, tip = () => one('.tip'), marks = () => all('.mark');
const middle = mark => {
  const {x, y, width, height} = mark.getBoundingClientRect();
  return [x + width / 2, y + height / 2];
};
const point = (mark, type, pointerType) => {
  mark.scrollIntoView({block: 'center'});
  const [clientX, clientY] = middle(mark);
  const top = document.elementFromPoint(clientX, clientY);
  const at = {clientX, clientY, pointerType, bubbles: true};
  top.dispatchEvent(new PointerEvent(type, at));
};
const press = key => document.activeElement.dispatchEvent(
  new KeyboardEvent('keydown', {key, bubbles: true}));
const button = name => all('.legend button').find(b => b.innerText === name);
const mark = name => marks().find(m => m.ariaLabel.startsWith(name));
const steps = () => one('.panel .front')?.getAttribute('d');

out.picture = one('picture').getBoundingClientRect().height;
out.marks = marks().map(m => m.ariaLabel.split(',')[0]);
out.quiet = tip().hidden;
point(mark('prune90+int8'), 'pointermove', 'mouse');
out.hovered = tip().hidden ? '' : tip().innerText;
const box = tip().getBoundingClientRect();
out.tip = [box.left, box.right, document.documentElement.clientWidth];
one('.panel > svg').dispatchEvent(
  new PointerEvent('pointerleave', {pointerType: 'mouse'}));
out.left = tip().hidden;
point(mark('int8'), 'click', 'touch');
out.tapped = tip().hidden ? '' : tip().innerText;
const empty = {clientX: 0, clientY: 0, bubbles: true};
one('.panel > svg').dispatchEvent(new PointerEvent('click', empty));
out.away = tip().hidden;
marks()[0].focus();
out.focused = tip().innerText.split('\\n')[0];
press('ArrowRight');
out.next = tip().innerText.split('\\n')[0];
press('End');
out.last = tip().innerText.split('\\n')[0];
press('Escape');
out.escaped = tip().hidden;
out.front = steps();
button('combined').click();
out.without = marks().map(m => m.ariaLabel.split(',')[0]);
out.pressed = button('combined').getAttribute('aria-pressed');
out.lower = steps();
button('Pareto front').click();
out.none = steps() ?? '';
button('show all').click();
out.again = [marks().length, steps()];
out.wide = document.documentElement.scrollWidth;
out.names = all('.panel .label').map(text => {
  const {left, right, top, bottom} = text.getBoundingClientRect();
  return [left, top, right, bottom];
});
out.paper = getComputedStyle(mark('dense')).fill;
out.fetched = performance.getEntriesByType('resource')
  .map(entry => entry.name).filter(name => !name.startsWith('data:'));
parent.document.body.dataset.out = JSON.stringify(out);
"""


def seen(folder: pathlib.Path, width: int, *flags: str) -> dict[str, Any]:
  """Open the page of the study in a frame of a width, act, return notes."""
  chart = interactive.chart(means(method=METHOD), scatter.SIZE)
  acting = f'<script type="module">{ACTS}</script></body>'
  page = page_with(chart).replace('</body>', acting)
  frame = f'<iframe width="{width}" height="800" srcdoc="{html.escape(page)}">'
  (folder / 'page.html').write_text(f'<!DOCTYPE html><body>{frame}')
  assert BROWSER
  profile = f'--user-data-dir={folder / "profile"}'
  done = subprocess.run(
    [BROWSER, *FLAGS, *flags, profile, '--dump-dom', 'page.html'],
    cwd=folder,
    capture_output=True,
    text=True,
    timeout=300,
    check=True,
  )
  [found] = re.findall('data-out="(.*?)"', done.stdout)
  notes: dict[str, Any] = json.loads(html.unescape(found))
  return notes


@pytest.mark.parametrize('width', [1280, 390])
def test_points_answer_and_the_legend_filters(
  tmp_path: pathlib.Path, width: int
) -> None:
  out = seen(tmp_path, width)
  assert out['picture'] == 0
  assert len(out['marks']) == 7 and out['quiet']
  assert out['marks'][0] == 'prune90+int8'  # by rising cost
  for words in (METHOD, 'combined · qat · 3 seeds', 'size, kB\n63.2'):
    assert words in out['hovered']
  left, right, page = out['tip']
  assert 0 <= left < right <= page
  assert out['left'] and out['tapped'].startswith('int8') and out['away']
  order = (out['focused'], out['next'], out['last'])
  assert order == tuple(out['marks'][i] for i in (0, 1, -1))
  assert out['escaped']
  assert out['without'] == out['marks'][1:]
  assert out['pressed'] == 'false'
  assert out['lower'] not in ('', out['front'])
  assert out['none'] == ''
  assert out['again'] == [7, out['front']]
  assert out['wide'] <= width
  assert out['fetched'] == []


def test_names_do_not_meet(tmp_path: pathlib.Path) -> None:
  boxes = seen(tmp_path, 1280)['names']
  assert len(boxes) >= 5
  for i, a in enumerate(boxes):
    for b in boxes[:i]:
      apart = a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]
      assert apart, (a, b)


def test_a_dark_page_has_dark_colors(tmp_path: pathlib.Path) -> None:
  dark = '--blink-settings=preferredColorScheme=0'
  assert seen(tmp_path, 800, dark)['paper'] == 'rgb(232, 234, 237)'
  assert seen(tmp_path, 800)['paper'] == 'rgb(28, 33, 39)'
