"""Time the kernels of C files: lists of weights that are not 0 beside blocks.

`python -m benchmarks.c_kernels` prints the multiplications a nanosecond of a
convolution or a matrix in blocks, and by lists at some densities. The numbers
of `kernels/sparse_product.py`, by which a kernel is chosen, are from here.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tsukiji.deploy.c import native
from tsukiji.deploy.c.plan.reading import Read
from tsukiji.deploy.c.plan.values import FLOAT
from tsukiji.deploy.c.source import generated
from tsukiji.graph.nodes import Graph, Input, Node
from tsukiji.measure import sampling

DENSITIES = (1.0, 0.3, 0.1, 0.03)
# Side, inputs, outputs and window; a matrix has a window of 0.
SIZES = (
  (28, 1, 32, 5),
  (12, 32, 64, 5),
  (16, 32, 32, 3),
  (34, 16, 32, 3),
  (1, 1024, 256, 0),
  (1, 256, 64, 0),
)


def network(size: tuple[int, ...], density: float) -> Read:
  """Return a product behind an activation, with some weights of 0."""
  side, inputs, outputs, window = size
  generator = np.random.default_rng(0)
  shape = (window, window, inputs, outputs) if window else (inputs, outputs)
  weights = generator.normal(size=shape).astype(np.float32)
  weights[generator.random(shape) > density] = 0
  attrs: dict[str, Any] = {'dims': (((1,), (0,)), ((), ()))}
  if window:
    attrs = {
      'dims': ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)),
      'strides': (1, 1),
      'padding': ((0, 0), (0, 0)),
      'dilation': ((1, 1), (1, 1)),
    }
  op, before = ('conv', (side, side, inputs)) if window else ('dot', (inputs,))
  after = (side - window + 1,) * 2 if window else ()
  first = Node('max', ('@0', np.zeros((), np.float32)))
  nodes = (first, Node(op, (0, weights), attrs))
  graph = Graph(nodes, (1,), (Input(before),))
  return Read(graph, [FLOAT, FLOAT], {}, (Input((*after, outputs)),))


def microseconds(read: Read, is_sparse: bool) -> float:
  """Return the median time of a network, by lists or in blocks."""
  call = native.loaded(generated(read._replace(lists=is_sparse), 'kernel'))
  x = sampling.images(read.graph.inputs[0].shape, 1)
  return 1e3 * sampling.compare({'it': lambda: call(x)})['it']['p50']


def rows() -> Iterator[str]:
  """Yield a line of text for each size."""
  for size in SIZES:
    side, inputs, outputs, window = size
    places = (side - window + 1) ** 2 * window**2 if window else 1
    macs = places * inputs * outputs
    dense = microseconds(network(size, 1.0), False)
    found = [f'blocks {dense:6.1f} us {macs / dense / 1e3:5.1f}']
    for density in DENSITIES:
      time = microseconds(network(size, density), True)
      rate = macs * density / time / 1e3
      found.append(f'{density:4} {time:6.1f} us {rate:5.1f}')
    yield f'{size!s:18} ' + ' | '.join(found)


if __name__ == '__main__':
  print('us and multiplications a ns: in blocks, by lists of a density')
  for row in rows():
    print(row, flush=True)
