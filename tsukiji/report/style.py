"""The style sheet and the script of report.html, kept inside the page."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f8; --paper: #fff; --ink: #1c2127; --quiet: #5d6672;
  --line: #e4e7eb; --hover: #f3f6f9; --accent: #0063a0; --tint: #e3eff8;
  --faint: #b4bcc6; --warn: #9a5b00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1215; --paper: #181c21; --ink: #e8eaed; --quiet: #9aa4b1;
    --line: #2c333b; --hover: #1f252b; --accent: #7cc0f4; --tint: #17324a;
    --faint: #55606c; --warn: #f0b95a;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans',
    'Liberation Sans', sans-serif;
}
header, main { max-width: 1320px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 40px; }
main { padding-bottom: 64px; }
h1 { margin: 0; font-size: 28px; line-height: 1.2; letter-spacing: -.01em; }
h2 { margin: 40px 0 12px; font-size: 18px; }
h1, li, figcaption, dd { overflow-wrap: anywhere; }
.facts { margin: 6px 0 0; color: var(--quiet); }
.card {
  background: var(--paper); border: 1px solid var(--line); border-radius: 8px;
}
.read { margin-top: 24px; padding: 14px 20px; font-size: 13.5px; }
.read h2 { margin: 0 0 8px; font-size: 14px; }
.read dl { margin: 0; columns: 2 360px; column-gap: 40px; }
.read div { break-inside: avoid; margin-bottom: 6px; }
.read dt { display: inline; font-weight: 600; }
.read dd { display: inline; margin: 0; color: var(--quiet); }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: 14px; }
th, td { padding: 8px 9px; text-align: right; white-space: nowrap; }
td { font-variant-numeric: tabular-nums; }
th { font-weight: inherit; vertical-align: bottom; }
th:first-child {
  position: sticky; left: 0; z-index: 1; text-align: left;
  background: var(--paper);
}
tbody { border-top: 1px solid var(--line); vertical-align: top; }
tbody th { vertical-align: top; }
tbody:hover tr > * { background: var(--hover); }
thead button {
  all: unset; cursor: pointer; font-size: 13px; line-height: 1.4;
}
thead b { font-weight: 600; }
th:first-child, td:last-child, th:last-child {
  padding-left: 16px; padding-right: 16px;
}
td small {
  display: inline-block; min-width: 3.7em; text-align: left; white-space: pre;
}
thead button small { display: block; white-space: pre; }
thead button:focus-visible, summary:focus-visible {
  outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 2px;
}
thead b::after {
  content: '↕'; display: inline-block; width: 0; text-indent: 1px;
  color: var(--faint); font-weight: 400;
}
[aria-sort=ascending] b::after { content: '↑'; color: var(--accent); }
[aria-sort=descending] b::after { content: '↓'; color: var(--accent); }
small, details { color: var(--quiet); font-size: 12px; }
.room { visibility: hidden; }
.about { display: flex; flex-wrap: wrap; gap: 0 10px; }
.name { font-weight: 600; margin-right: 8px; }
.badge {
  display: inline-block; padding: 0 7px; border-radius: 9px; font-size: 11px;
  line-height: 18px; white-space: nowrap; border: 1px solid var(--line);
  color: var(--quiet);
}
.badge.reference {
  background: var(--ink); color: var(--paper); border-color: var(--ink);
}
.badge.compressed {
  background: var(--tint); color: var(--accent); border-color: transparent;
}
summary { cursor: pointer; }
.seed > * { padding-top: 2px; padding-bottom: 2px; color: var(--quiet); }
.seed > * { font-size: 13px; }
.seed th:first-child { padding-left: 30px; }
.seed:last-child > * { padding-bottom: 10px; }
@supports selector(:has(*)) {
  tbody:not(:has(details[open])) .seed { display: none; }
}
.warn { color: var(--warn); cursor: help; }
.none { color: var(--quiet); }
ul { margin: 0; padding-left: 20px; }
ul.short { columns: 2 420px; column-gap: 40px; }
figure { margin: 0 0 20px; padding: 12px; }
figure img { display: block; width: 100%; max-width: 960px; height: auto; }
figure img { margin: 0 auto; }
@media (max-width: 640px) {
  header, main { padding-left: 12px; padding-right: 12px; }
  header { padding-top: 24px; }
  th, td { padding: 7px 9px; }
  tbody tr:first-child th { white-space: normal; overflow-wrap: anywhere; }
  th:first-child {
    min-width: 140px; max-width: 160px; box-shadow: 1px 0 0 var(--line);
  }
}
"""

SCRIPT = """
for (const table of document.querySelectorAll('table:not(.plain)')) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const value = body => body.rows[0].cells[column].dataset.value;
    const order = (a, b, sign) => {
      const [x, y] = [value(a), value(b)];
      if (x === undefined || y === undefined) {
        return (x === undefined) - (y === undefined);  // dashes come last
      }
      const text = x.localeCompare(y, undefined, {numeric: true});
      return sign * (head.dataset.kind === 'text' ? text : x - y);
    };
    head.querySelector('button').addEventListener('click', () => {
      const now = head.getAttribute('aria-sort');
      const other = now === 'ascending' ? 'descending' : 'ascending';
      const next = now === 'none' ? head.dataset.first : other;
      const sign = next === 'ascending' ? 1 : -1;
      heads.forEach(one => one.setAttribute('aria-sort', 'none'));
      head.setAttribute('aria-sort', next);
      const bodies = [...table.tBodies];
      table.append(...bodies.sort((a, b) => order(a, b, sign)));
    });
  });
}
"""
