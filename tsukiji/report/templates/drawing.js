// Draws panels of accuracy against a cost: axes, marks, fronts and names.

const SVG = Object.assign(document.createElement('div'), {
  innerHTML: '<svg></svg>',
}).firstChild.namespaceURI;
const LEFT = 44, RIGHT = 16, TOP = 24, BOTTOM = 44;  // around the panel, pixels
const GAP = 11;  // from a point to its name

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const svg = (name, attributes = {}, ...children) =>
  filled(document.createElementNS(SVG, name), attributes, children);
const html = (name, attributes = {}, ...children) =>
  filled(document.createElement(name), attributes, children);

// Numbers at 1, 2 and 5 times 10^n, as many as there is room for.
function logarithmicTicks([low, high], most) {
  const found = [];
  for (let n = Math.floor(Math.log10(low)); 10 ** n <= high; n++) {
    for (const digit of [1, 2, 5]) {
      const value = Number(`${digit}e${n}`);
      if (value >= low && value <= high) found.push({value, digit});
    }
  }
  const tens = found.filter(one => one.digit === 1);
  const few = tens.length > 1 ? tens : found.slice(0, Math.max(most, 1));
  return (found.length <= most ? found : few).map(one => one.value);
}

// Round numbers with as many places as all of them need.
function linearTicks([low, high], most) {
  const raw = (high - low) / most, unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * [1, 2, 5, 10].find(digit => digit * unit >= raw);
  const first = Math.ceil(low / step);
  const count = Math.floor(high / step) - first + 1;
  const places = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return Array.from({length: count}, (_, i) =>
    ((first + i) * step).toFixed(places));
}

// The points that no other one dominates, from the least cost on.
function pareto(points) {
  const front = [];
  const order = (a, b) => a.cost[1] - b.cost[1] || b.accuracy - a.accuracy;
  for (const point of [...points].sort(order)) {
    const best = front.at(-1);
    const same = best && order(best, point) === 0;
    if (!best || point.accuracy > best.accuracy || same) front.push(point);
  }
  return front;
}

// Scales of a panel: values to pixels.
function scales(panel, width, height) {
  const [low, high] = panel.across.map(Math.log), [bottom, top] = panel.along;
  const right = width - RIGHT, floor = height - BOTTOM;
  return {
    right, floor,
    x: value => LEFT + (right - LEFT) * (Math.log(value) - low) / (high - low),
    y: value => floor - (floor - TOP) * (value - bottom) / (top - bottom),
  };
}

function axes(chart, panel, at, width) {
  const room = (at.right - LEFT) / 52, out = svg('g', {class: 'axes'});
  for (const value of logarithmicTicks(panel.across, room)) {
    const x = at.x(value), text = value.toLocaleString('en');
    out.append(
      svg('line', {x1: x, x2: x, y1: TOP, y2: at.floor}),
      svg('text', {x, y: at.floor + 17, 'text-anchor': 'middle'}, text));
  }
  for (const value of linearTicks(panel.along, 9)) {
    const y = at.y(Number(value));
    out.append(
      svg('line', {x1: LEFT, x2: at.right, y1: y, y2: y}),
      svg('text', {x: LEFT - 7, y: y + 4, 'text-anchor': 'end'}, value));
  }
  const floor = {x1: LEFT, x2: at.right, y1: at.floor, y2: at.floor};
  out.append(
    svg('line', {...floor, class: 'floor'}),
    svg('text', {x: 2, y: 12}, chart.y),
    svg('text', {x: at.right, y: at.floor + 36, 'text-anchor': 'end'}, chart.x));
  return out;
}

function stairs(front, at) {
  const steps = front.map((point, i) => {
    const x = at.x(point.cost[1]), y = at.y(point.height);
    return i ? `H${x}V${y}` : `M${x} ${y}`;
  });
  return svg('path', {class: 'front', d: `${steps.join('')}H${at.right}`});
}

function bars(point, at) {
  const [low, middle, high] = point.cost.map(at.x);
  const y = at.y(point.height);
  const [least, most] = [-1, 1].map(s => at.y(point.height + s * point.std));
  const d = `M${low} ${y}H${high}M${middle} ${least}V${most}`;
  return svg('path', {class: 'bars', d});
}

function shape(kind) {
  const {path, fill, edge, width} = kind;
  return svg('path', {
    d: path, style: `fill: ${fill}; stroke: ${edge}; stroke-width: ${width}`,
  });
}

function mark(chart, point, at) {
  const numbers = point.facts.map(fact => fact.join(' '));
  const words = [point.name, point.about, ...numbers].join(', ');
  const place = `translate(${at.x(point.cost[1])} ${at.y(point.height)})`;
  const out = shape(chart.kinds[point.kind]);
  const about = {role: 'img', tabindex: -1, class: 'mark', 'aria-label': words};
  return filled(out, {...about, transform: place}, []);
}

const meet = (a, b) =>
  a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];

// Writes the names for which there is room, one after the other.
function writeNames(panel, points, every, at) {
  const boxes = every.map(point => {
    const x = at.x(point.cost[1]), y = at.y(point.height);
    return [x - 6, y - 6, x + 6, y + 6];
  });
  for (const point of points) {
    const text = svg('text', {class: 'label'}, point.name);
    panel.append(text);
    const {width, height} = text.getBBox();
    const x = at.x(point.cost[1]), y = at.y(point.height);
    const [near, far] = [GAP, GAP + height / 2];
    const [middle, above] = [-width / 2, -far - height / 2];
    const places = [
      [near, -height / 2], [-near - width, -height / 2],
      [middle, above], [middle, near],
      [near, above], [near, near], [-near - width, above],
      [-near - width, near],
    ].map(([dx, dy]) => [x + dx, y + dy, x + dx + width, y + dy + height]);
    const box = places.find(box =>
      box[0] >= LEFT && box[2] <= at.right + RIGHT && box[1] >= TOP - 8 &&
      box[3] <= at.floor && !boxes.some(other => meet(box, other)));
    if (!box) {
      text.remove();
      continue;
    }
    boxes.push(box);
    filled(text, {x: box[0], y: box[1] + 0.78 * height}, []);
  }
}
