"""Limits of the memory and time of a file, computed from its header.

Files are untrusted. With `size` the bytes of a file, D the bytes of its arrays,
stored and decoded, and M their megabytes:

- D is at most 16 MiB + 10,000 size, and 1 GiB.
- Loading takes at most 10 D + 64 MiB of memory: the largest weight takes at
  most 8 D + 48 MiB while it is decoded.
- Loading takes some 2 s + 2 s M of time: there are at most as many arrays,
  distinct nodes, operations and multiply-adds as a core can trace, compile
  and compute in it.
- An example takes at most 1 GiB in the network.

What was written inside the bounds can be read, since `pack` checks them too.
"""

import math
from collections.abc import Collection
from typing import Any, NamedTuple

from tsukiji.deploy.tsk import header
from tsukiji.deploy.tsk.memory_bounds import Cost, costs
from tsukiji.models import spec as sp
from tsukiji.models.spec import Shape, Spec

MEGABYTE = 2**20
PEAK_FREE, PEAK_GROWTH = 3 * 2**24, 8  # bytes, and bytes a byte of D
EXAMPLE_LIMIT = 2**30  # bytes
FLOAT = 4  # bytes


class Count(NamedTuple):
  """A limit: a constant, and an amount per megabyte."""

  constant: int
  growth: int

  def of(self, declared: int) -> int:
    """Return the limit for a number of bytes."""
    return self.constant + self.growth * declared // MEGABYTE


ARRAYS = Count(2**11, 2**9)
PROGRAMS = Count(64, 8)
MACS = Count(2**31, 2**32)
OPERATIONS = Count(2**11, 2**9)
WEIGHTED = 8  # operations of a layer with weights


class Sizes(NamedTuple):
  """What a file declares.

  Attributes:
    bytes: Bytes of its arrays, stored and decoded.
    weights: Bytes of its decoded arrays.
    shapes: Shapes of the decoded arrays, by path.
    dtypes: Their types.
  """

  bytes: int
  weights: int
  shapes: dict[str, Shape]
  dtypes: dict[str, Any]


def check_tree(variables: Any, arrays: int, size: int) -> Sizes:
  """Check that decoding a tree of nodes is within the limits.

  Args:
    variables: The tree; its leaves have a shape and a dtype.
    arrays: Number of stored arrays.
    size: Bytes of the file.

  Returns:
    The sizes.

  Raises:
    ValueError: If a node is inconsistent, or a limit is exceeded.
  """
  found = costs(variables)
  stored = sum(cost.stored for cost in found.values())
  weights = sum(cost.leaf.bytes for cost in found.values())
  expect(size, 'arrays of', max(stored, weights), header.limit(size), 'bytes')
  declared = stored + weights
  expect(size, '', arrays, ARRAYS.of(declared), 'arrays')
  peak = max((cost.peak for cost in found.values()), default=0)
  most = PEAK_FREE + PEAK_GROWTH * declared
  expect(size, 'nodes that decode in', peak, most, 'bytes')
  macs = sum(cost.macs for cost in found.values())
  expect(size, 'nodes of', macs, MACS.of(declared), 'multiply-adds')
  _trace(found.values(), size, declared)
  shapes = {path: cost.leaf.shape for path, cost in found.items()}
  dtypes = {path: cost.leaf.dtype for path, cost in found.items()}
  return Sizes(declared, weights, shapes, dtypes)


def _trace(found: Collection[Cost], size: int, declared: int) -> None:
  """Check that JAX agrees on each kind of node."""
  programs = frozenset[Any]().union(*(cost.programs for cost in found))
  expect(size, '', len(programs), PROGRAMS.of(declared), 'kinds of nodes')
  for program in programs:
    program.trace()


def check_network(spec: Spec, declared: int, size: int) -> int:
  """Check that tracing and running a network is within the limits.

  Args:
    spec: The network.
    declared: Bytes of its arrays, stored and decoded.
    size: Bytes of the file.

  Returns:
    Upper bound of the bytes of an example.

  Raises:
    ValueError: If a limit is exceeded.
  """
  rank = len(spec.input_shape)
  expect(size, 'images of', rank, header.RANK_LIMIT, 'axes')
  steps = list(sp.walk(spec))
  operations = sum(_operations(step.layer) for step in steps)
  expect(size, '', operations, OPERATIONS.of(declared), 'operations')
  numbers = sum(map(math.prod, (step.after for step in steps)))
  example = 2 * FLOAT * (numbers + math.prod(spec.input_shape))
  expect(size, 'examples that take', example, EXAMPLE_LIMIT, 'bytes')
  return example


def _operations(layer: sp.Layer) -> int:
  """Return the approximate number of operations of a traced layer."""
  if isinstance(layer, sp.Pool):  # a slice for each place of its window
    return math.prod(layer.window)
  return WEIGHTED if hasattr(layer, 'name') else 1


def weight_shapes(spec: Spec) -> dict[str, Shape]:
  """Return the shapes of the variables of a network, by path.

  >>> net = Spec(name='n', input_shape=(4,), layers=(sp.Dense(
  ...     name='fc', features=2),))
  >>> weight_shapes(net)
  {'params/fc/kernel': (4, 2), 'params/fc/bias': (2,)}
  """
  found: dict[str, Shape] = {}
  for layer, before, after in sp.walk(spec):
    params: dict[str, Shape] = {}
    match layer:
      case sp.Conv(kernel=kernel, groups=groups):
        params['kernel'] = (*kernel, before[-1] // groups, layer.features)
      case sp.Dense():
        params['kernel'] = (before[-1], layer.features)
      case sp.Norm():
        params['scale'] = params['bias'] = after[-1:]
        for name in ('mean', 'var'):
          found[f'batch_stats/{layer.name}/{name}'] = after[-1:]
      case sp.PReLU(shifts=shifts):
        names = ('slope', 'before', 'after') if shifts else ('slope',)
        params |= dict.fromkeys(names, after[-1:])
    if isinstance(layer, sp.Conv | sp.Dense) and layer.bias:
      params['bias'] = (layer.features,)
    if params:
      assert isinstance(layer, sp.Conv | sp.Dense | sp.Norm | sp.PReLU)
      found |= {f'params/{layer.name}/{k}': v for k, v in params.items()}
  return found


def expect(size: int, what: str, got: int, most: int, unit: str) -> None:
  """Raise a ValueError if a number exceeds its limit."""
  if got > most:
    expected = ' '.join(f'{what} at most {most} {unit}'.split())
    raise ValueError(
      f'artefact: expected {expected} in a file of {size} bytes, got {got}. '
      'Do not trust it; if it is yours, lower the network before packing, or '
      'use smaller blocks.'
    )
