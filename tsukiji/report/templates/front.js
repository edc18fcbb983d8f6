// Draws accuracy against a cost in the place of its picture: points answer to
// pointer, touch and keys, the legend filters. Without it the picture stays.

const NEAR = 26;  // from the pointer to a point that answers

// What is said of a point, beside it.
function tip(point) {
  const facts = point.facts.flatMap(([term, value]) =>
    [html('dt', {}, term), html('dd', {}, value)]);
  const out = [html('b', {}, point.name), html('small', {}, point.about)];
  if (point.recipe) out.push(html('code', {}, point.recipe));
  return [...out, html('dl', {}, ...facts)];
}

// Puts a box beside a place, or below it where there is no room.
function putBeside(box, x, y, width) {
  const across = box.offsetWidth, down = box.offsetHeight;
  const sides = [x + 16, x - 16 - across];
  const side = sides.find(left => left >= 0 && left + across <= width);
  const middle = Math.max(0, Math.min(x - across / 2, width - across));
  const top = side === undefined ? y + 18 : Math.max(0, y - down / 2);
  filled(box, {style: `left: ${side ?? middle}px; top: ${top}px`}, []);
}

// One panel: returns how to draw it with what is shown.
function panelOf(chart, panel, holder) {
  const box = html('div', {class: 'tip', 'aria-hidden': 'true', hidden: ''});
  const title = html('figcaption', {}, panel.title);
  const ring = svg('circle', {class: 'ring', r: 10});
  let points = [], marks = [], at, width, chosen = -1, pinned = false;
  let picture = svg('svg');
  holder.append(title, picture, box);

  const place = point => [at.x(point.cost[1]), at.y(point.height)];

  function choose(i) {
    chosen = i;
    ring.style.display = i < 0 ? 'none' : '';
    box.hidden = i < 0;
    if (i < 0) return;
    const [x, y] = place(points[i]);
    filled(ring, {cx: x, cy: y}, []);
    box.replaceChildren(...tip(points[i]));
    putBeside(box, x, y + title.offsetHeight, width);
  }

  function nearest(event) {
    const frame = picture.getBoundingClientRect();
    const away = points.map(point => {
      const [x, y] = place(point);
      return Math.hypot(event.clientX - frame.left - x,
        event.clientY - frame.top - y);
    });
    const least = Math.min(...away);
    return least <= NEAR ? away.indexOf(least) : -1;
  }

  function press(event) {
    const last = points.length - 1;
    const target = {
      ArrowRight: Math.min(chosen + 1, last), ArrowLeft: Math.max(chosen - 1, 0),
      Home: 0, End: last,
    }[event.key];
    if (event.key === 'Escape') {
      pinned = false;
      choose(-1);
    }
    if (target === undefined || !marks[target]) return;
    event.preventDefault();
    marks[target].focus();
  }

  function draw(shown, withFront) {
    width = holder.clientWidth;
    const height = Math.round(Math.max(320, Math.min(470, 0.55 * width)));
    const focused = marks.includes(document.activeElement) && points[chosen];
    at = scales(panel, width, height);
    points = panel.points.filter(point => shown.has(point.kind))
      .sort((a, b) => a.cost[1] - b.cost[1]);
    marks = points.map(point => mark(chart, point, at));
    const front = pareto(points);
    const label = `${panel.title}. Arrow keys go from point to point.`;
    const next = svg(
      'svg', {width, height, role: 'group', 'aria-label': label},
      axes(chart, panel, at, width),
      ...(withFront && front.length ? [stairs(front, at)] : []),
      ...points.map(point => bars(point, at)), ring, ...marks);
    picture.replaceWith(next);
    picture = next;
    const few = points.length <= Math.min(chart.crowd, width / 30);
    const rest = points.filter(point => !front.includes(point) &&
      (few || chart.kinds[point.kind].name === 'reference'));
    writeNames(picture, [...front, ...rest], points, at);
    listen();
    pinned = false;
    choose(-1);
    if (focused) marks[points.indexOf(focused)]?.focus();
  }

  function listen() {
    marks[0]?.setAttribute('tabindex', 0);
    marks.forEach((one, i) => {
      one.addEventListener('focus', () => choose(i));
      one.addEventListener('blur', () => choose(-1));
    });
    picture.addEventListener('keydown', press);
    picture.addEventListener('pointermove', event => {
      if (event.pointerType === 'mouse' && !pinned) choose(nearest(event));
    });
    picture.addEventListener('pointerleave', event => {
      if (event.pointerType === 'mouse' && !pinned) choose(-1);
    });
    picture.addEventListener('click', event => {
      const i = nearest(event);
      pinned = i >= 0 && !(pinned && i === chosen);
      choose(i);
    });
  }

  return draw;
}

// The legend: a button a kind that hides it and shows it again.
function legendOf(chart, changed) {
  const hidden = new Set();
  const out = html('div', {class: 'legend', role: 'group',
    'aria-label': 'Show or hide'});
  const icon = child => svg('svg', {width: 18, height: 18,
    viewBox: '-9 -9 18 18', 'aria-hidden': 'true'}, child);
  const entry = (key, name, drawing) => {
    const button = html('button', {type: 'button', 'aria-pressed': 'true'},
      icon(drawing), name);
    button.addEventListener('click', () => {
      hidden.has(key) ? hidden.delete(key) : hidden.add(key);
      tell();
    });
    return [key, button];
  };
  const front = svg('path', {class: 'front', d: 'M-9 0H9'});
  const entries = [
    ...chart.kinds.map((kind, i) => entry(i, kind.name, shape(kind))),
    entry('front', 'Pareto front', front),
  ];
  const all = html('button', {type: 'button', class: 'all'}, 'show all');
  all.addEventListener('click', () => {
    hidden.clear();
    entries[0][1].focus();
    tell();
  });

  function tell() {
    for (const [key, button] of entries) {
      button.setAttribute('aria-pressed', !hidden.has(key));
    }
    all.hidden = !hidden.size;
    const shown = entries.map(([key]) => key).filter(key => !hidden.has(key));
    changed(new Set(shown));
  }

  out.append(...entries.map(([, button]) => button), all);
  return {element: out, tell};
}

function explore(figure, chart) {
  const holder = html('div', {class: 'chart'});
  const draws = chart.panels.map(panel => {
    const one = html('div', {class: 'panel'});
    holder.append(one);
    return panelOf(chart, panel, one);
  });
  let shown = new Set();
  const drawAll = () => draws.forEach(draw => draw(shown, shown.has('front')));
  const legend = legendOf(chart, kinds => {
    shown = kinds;
    drawAll();
  });
  holder.append(legend.element);
  figure.append(holder);
  figure.classList.add('live');
  legend.tell();
  let width = holder.clientWidth;
  new ResizeObserver(() => {
    if (holder.clientWidth === width) return;
    width = holder.clientWidth;
    drawAll();
  }).observe(holder);
}

for (const data of document.querySelectorAll('figure > script')) {
  explore(data.parentElement, JSON.parse(data.textContent));
}
