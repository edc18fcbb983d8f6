"""Products in loops over single numbers, for every window and group."""

from tsukiji.deploy.c import indices
from tsukiji.deploy.c.kernels.nests import unsupported
from tsukiji.deploy.c.kernels.tails import Tile, tail
from tsukiji.deploy.c.plan.steps import Step
from tsukiji.deploy.c.plan.values import FLOAT, Load
from tsukiji.deploy.c.tables import Tables

Lines = list[str]


def strides_of(x: Load) -> indices.Affine:
  """Return how an input of a product lies."""
  found = indices.affine(x.places)
  if found is None:
    raise unsupported('a product', 'an input that is not laid out evenly')
  return found


def product(step: Step, tables: Tables) -> Lines:
  """Write a product row by row."""
  (x,), window = step.reads, step.attrs['window']
  assert isinstance(x, Load) and step.tail is not None
  weights = window.weights
  height, width, inputs, outputs = weights.shape
  kind = step.tail.sums.kind
  stored = kind if kind == FLOAT else None
  table = (
    tables.add(weights, stored, step.path)
    if stored
    else tables.indices(weights, step.path)
  )
  base, (row, column, channel) = strides_of(x)
  rows, columns, _ = step.tail.shape
  pool = step.tail.pool
  deep = pool.height if pool else 1
  own = outputs // window.groups
  group = f'k / {own} * {inputs}' if window.groups > 1 else '0'
  read = indices.formula(
    indices.Affine(
      base,
      (
        row * window.strides[0],
        column * window.strides[1],
        row * window.dilation[0],
        column * window.dilation[1],
        channel,
      ),
    ),
    (f'({deep} * r + i)', 'j', 'y', 'x', f'({group} + c)'),
  )
  taps = f'((y * {width} + x) * {inputs} + c) * {outputs}'
  end = tail(
    step, tables, Tile(deep, columns, outputs, 'sums[{0}][{1}][{2}]', 'r')
  )
  zero = '0.0f' if kind == FLOAT else '0'
  source = x.buffer.name
  return [
    f'{kind} sums[{deep}][{columns}][{outputs}];',
    f'for (int r = 0; r < {rows // deep}; ++r) {{',
    f'  for (int i = 0; i < {deep}; ++i)',
    f'    for (int j = 0; j < {columns}; ++j) {{',
    f'      for (int k = 0; k < {outputs}; ++k) sums[i][j][k] = {zero};',
    f'      for (int y = 0; y < {height}; ++y)',
    f'        for (int x = 0; x < {width}; ++x)',
    f'          for (int c = 0; c < {inputs}; ++c)',
    f'            for (int k = 0; k < {outputs}; ++k)',
    f'              sums[i][j][k] += {source}[{read}] * {table}[{taps} + k];',
    '    }',
    *(f'  {line}' for line in end),
    '}',
  ]
