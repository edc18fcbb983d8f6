// Buttons in the heads of tables sort their rows; without it nothing is lost.
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
