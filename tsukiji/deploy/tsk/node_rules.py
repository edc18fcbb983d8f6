"""The decoded shape of each kind of node, and the cost of decoding it.

A rule reads shapes. Its bytes are an upper bound for a compiled decoding of the
node with its inner nodes decoded, with a margin for compilers that fuse less.
"""

import math
from collections.abc import Callable

import jax
import numpy as np

from compress.binary.straight_through import SIGNS
from compress.lowrank.factors import is_depthwise
from compress.structured import tied_filters
from compress.structured.matrices import FAMILIES
from tsukiji.deploy.tsk.header import damaged
from tsukiji.deploy.tsk.node_fields import (
  BOOLS,
  FLOATS,
  INTEGERS,
  Fields,
  Leaf,
  Made,
  Shape,
  is_array,
  promoted,
)

Rule = Callable[[Fields], Made]
FLOAT = np.dtype('f4')
INDEX = 4  # bytes of an index
BITS = 32  # of a code, at most
SEEDS = 2**24


def arranged(f: Fields) -> Made:
  """A weight in another order of its axes."""
  w, shape, order = f.array('w'), f.shape(), f.node.order
  right = type(order) is tuple and sorted(order) == [*range(len(shape))]
  f.expect(right, f'an order of {len(shape)} axes', order)
  f.expect(w.size == math.prod(shape), f'a weight of {shape}', w.shape)
  full = Leaf(shape, w.dtype)
  return Made(full, 2 * full.bytes)


def binarized(f: Fields) -> Made:
  """Signs times a scale."""
  signs = f.array('signs', BOOLS)
  w = f.fitting('scale', Leaf(signs.shape, FLOAT))
  return Made(w, 2 * w.bytes)


def half(f: Fields) -> Made:
  """16-bit floats times a gain."""
  halves = f.array('halves')
  right = halves.dtype.str[1:] in ('f2', 'u2')
  f.expect(right, 'halves of f2 or u2', halves.dtype)
  w = f.fitting('gain', Leaf(halves.shape, FLOAT))
  return Made(w, 2 * w.bytes)


def quantized(f: Fields) -> Made:
  """Codes times a scale, by tensor, channel or group of inputs."""
  codes = f.array('codes', INTEGERS)
  f.integer('bits', 1, BITS)
  _check_inputs(f)
  steps = [f.array('scale', FLOATS)]
  if hasattr(f.node, 'zero'):
    zero = f.array('zero')
    right = zero.shape in ((), steps[0].shape)  # one zero, gains by channel
    f.expect(right, f'zero of {steps[0].shape}', zero.shape)
    steps.append(zero)
  w = Leaf(codes.shape, steps[0].dtype)
  stretched = sum(_stretched(f, step, w) for step in steps)
  return Made(w, w.bytes + stretched)


def _stretched(f: Fields, step: Leaf, w: Leaf) -> int:
  """Return the bytes of a step for each weight of a group."""
  if len(step.shape) < 2:
    channels = w.shape[-1:] if step.shape else ()
    f.expect(step.shape in ((1,), channels), f'a step of {w.shape}', step.shape)
    return step.bytes
  f.expect(len(w.shape) >= 2, 'two axes or more in groups', w.shape)
  groups, inputs = step.shape[0], math.prod(w.shape[:-1])
  right = step.shape[1:] == w.shape[-1:] and groups >= 1
  f.expect(right, f'groups of steps of {w.shape}', step.shape)
  size = -(-inputs // groups)
  return groups * size * step.shape[1] * max(4, step.dtype.itemsize)


def _check_inputs(f: Fields) -> None:
  """Check the grid of the inputs."""
  inputs = f.node.inputs
  if inputs is None:
    return
  kind = type(inputs).__name__
  f.expect(kind == 'Inputs', 'a grid of inputs', kind)
  grid = Fields(f'{f.path}/inputs', inputs, {})
  grid.integer('bits', 1, BITS)
  for name in ('low', 'high'):
    end = grid.array(name, FLOATS)
    grid.expect(end.size == 1, f'one number {name}', end.shape)


def shared(f: Fields) -> Made:
  """Values at an index."""
  values, index = f.array('values', FLOATS, 1), f.array('index', INTEGERS)
  f.expect(values.size > 0, 'values', values.shape)
  w = f.fitting('gain', Leaf(index.shape, values.dtype))
  return Made(w, index.size * INDEX + w.bytes)


def products(f: Fields) -> Made:
  """Pieces at an index."""
  values, index = f.array('values', FLOATS, 3), f.array('index', INTEGERS, 2)
  shape = f.shape()
  (pieces, channels), length = index.shape, values.shape[2]
  right = shape[-1] == channels and pieces * length >= math.prod(shape[:-1])
  f.expect(right, f'pieces that fill {shape}', (index.shape, length))
  right = values.shape[0] <= max(1, pieces) and values.size > 0
  f.expect(right, 'codebooks, at most one a piece', values.shape)
  w = f.fitting('gain', Leaf(shape, values.dtype))
  found = index.size * length * w.dtype.itemsize
  return Made(w, found + index.size * INDEX + w.bytes)


def hashed(f: Fields) -> Made:
  """Values at hashes of the position."""
  values, shape = f.array('values', FLOATS, 1), f.shape()
  f.expect(values.size > 0, 'values', values.shape)
  f.integer('seed', 0, SEEDS)
  w = f.fitting('gain', Leaf(shape, values.dtype))
  return Made(w, w.size * INDEX + w.bytes)


def product(*names: str) -> Rule:
  """Return the rule of a product of factors."""

  def rule(f: Fields) -> Made:
    first, *others = (f.array(name) for name in names)
    made = Made(first, 0)
    for other in others:
      link = _linked(f, made.leaf, other)
      # Both factors may be copied before they are multiplied.
      extra = link.extra + made.leaf.bytes + other.bytes + link.leaf.bytes
      made = Made(link.leaf, made.extra + extra, made.macs + link.macs)
    return made

  return rule


def _linked(f: Fields, one: Leaf, other: Leaf) -> Made:
  """Return the product of two kernels, as `factors.product` takes it."""
  a, b = one.shape, other.shape
  f.expect(min(len(a), len(b)) >= 2, 'factors of two axes or more', (a, b))
  dtype = promoted(one.dtype, other.dtype)
  if is_depthwise(a[-1], b):
    shape = _broadcast(f, a, b)
    return Made(Leaf(shape, dtype), 0, math.prod(shape))
  f.expect(a[-1] == b[-2], 'factors that share a rank', (a, b))
  batch = _broadcast(f, a[:-2], b[:-2])
  leaf = Leaf((*batch, a[-2], b[-1]), dtype)
  return Made(leaf, 0, leaf.size * a[-1])


def _broadcast(f: Fields, a: Shape, b: Shape) -> Shape:
  """Return the shape that two arrays broadcast to."""
  try:
    return np.broadcast_shapes(a, b)
  except ValueError:
    f.expect(False, 'factors that broadcast', (a, b))
    raise


def masked(f: Fields) -> Made:
  """A weight, 0 outside of a mask."""
  w, mask = f.array('w'), f.array('mask', BOOLS)
  f.expect(w.shape == mask.shape, f'a mask of {w.shape}', mask.shape)
  return Made(w, w.bytes)


def narrowed(f: Fields) -> Made:
  """A weight as 16-bit floats."""
  dtype = np.dtype(f.name('dtype', ('bfloat16', 'float16')))
  w = f.array('w', FLOATS)
  return Made(Leaf(w.shape, dtype), w.bytes)


def folded(f: Fields) -> Made:
  """A weight over a gain."""
  w = f.fitting('gain', f.array('w', FLOATS))
  return Made(w, w.bytes)


def summed(f: Fields) -> Made:
  """The sum of two weights."""
  low, sparse = f.array('low', FLOATS), f.array('sparse', FLOATS)
  f.expect(low.shape == sparse.shape, f'a rest of {low.shape}', sparse.shape)
  w = Leaf(low.shape, promoted(low.dtype, sparse.dtype))
  return Made(w, 2 * w.bytes)


def signed(f: Fields) -> Made:
  """A weight whose layer has binary inputs."""
  f.name('gradient', SIGNS)
  f.expect(type(f.node.sized) is bool, 'sized to be a bool', f.node.sized)
  if f.node.threshold is not None:
    turns = f.array('threshold', FLOATS, 1)
    f.expect(turns.size > 0, 'thresholds', turns.shape)
  return Made(f.array('w'), 0)


def sliced(f: Fields) -> Made:
  """A weight among zeros along an axis."""
  w, keep = f.array('w'), f.array('keep', INTEGERS, 1)
  axis = f.integer('axis', 0, len(w.shape) - 1)
  size = f.integer('size', 0, SEEDS)
  right = keep.shape == w.shape[axis : axis + 1] and keep.size <= size
  f.expect(right, f'places of {w.shape} in {size}', keep.shape)
  full = Leaf((*w.shape[:axis], size, *w.shape[axis + 1 :]), w.dtype)
  return Made(full, 2 * full.bytes + w.bytes + 2 * keep.size * INDEX)


def structured(f: Fields) -> Made:
  """Tiles of one family."""
  family, shape = f.name('family', FAMILIES), f.shape()
  values = f.array('values', FLOATS, 4)
  rows, columns, lines, block = values.shape
  right = rows * block >= math.prod(shape[:-1]) and columns * block >= shape[-1]
  f.expect(right, f'tiles that cover {shape}', values.shape)
  tiles = Leaf((rows, columns, block, block), values.dtype)
  w = f.fitting('gain', Leaf(shape, values.dtype))
  extra, macs = TILES[family](f, tiles, lines)
  # The tiles are joined to a matrix, from which the weight is cut.
  return Made(w, extra + tiles.bytes + w.bytes, macs)


def _circulant(f: Fields, tiles: Leaf, lines: int) -> tuple[int, int]:
  held, side = f.array('held', BOOLS), (tiles.shape[0], tiles.shape[-1])
  f.expect(held.shape == side and lines >= 1, f'signs {side}', held.shape)
  return tiles.bytes, 0


def _toeplitz(f: Fields, tiles: Leaf, lines: int) -> tuple[int, int]:
  f.expect(lines > 0 and lines % 2 == 0, 'an even number of lines', lines)
  f.expect(f.node.held is None, 'nothing held', f.node.held)
  rank, block = lines // 2, tiles.shape[-1]
  return (2 * rank + 1) * tiles.bytes, rank * tiles.size * block


def _fastfood(f: Fields, tiles: Leaf, lines: int) -> tuple[int, int]:
  block = tiles.shape[-1]
  f.expect(_is_power(block) and lines >= 3, 'three lines of 2**n', lines)
  held = f.array('held', INTEGERS)
  f.expect(held.shape == (block,), f'an order of {block}', held.shape)
  return 2 * tiles.bytes + 2 * 4 * block**2, tiles.size * block


def _butterfly(f: Fields, tiles: Leaf, lines: int) -> tuple[int, int]:
  block = tiles.shape[-1]
  right = _is_power(block) and lines == 2 * (block.bit_length() - 1)
  f.expect(right, f'2 log2({block}) lines of 2**n', lines)
  f.expect(f.node.held is None, 'nothing held', f.node.held)
  return tiles.bytes, tiles.size * lines


def _is_power(n: int) -> bool:
  return n > 0 and n & (n - 1) == 0


TILES: dict[str, Callable[[Fields, Leaf, int], tuple[int, int]]] = {
  'butterfly': _butterfly,
  'circulant': _circulant,
  'fastfood': _fastfood,
  'toeplitz': _toeplitz,
}


def transferred(f: Fields) -> Made:
  """Moved copies of filters."""
  family = f.name('family', tied_filters.FAMILIES)
  shape, extent = f.shape(axes=4), f.integer('extent', 1, SEEDS)
  values, order = f.array('values', FLOATS, 4), f.array('order', INTEGERS, 1)
  height, width, depth, outputs = shape
  wide, moves = shape[:3], {'copies': extent, 'signs': 2}.get(family, 0)
  if family == 'crops':
    wide, moves = (height + extent, width + extent, depth), (extent + 1) ** 2
  if family == 'turns':
    f.expect(height == width, 'a square to turn', shape)
    moves = 8 if extent == 8 else 4
  f.expect(values.shape[:3] == wide, f'filters of {wide}', values.shape)
  f.expect(order.size == outputs, f'{outputs} moves', order.shape)
  w = f.fitting('gain', Leaf(shape, values.dtype))
  numbers = moves * math.prod(shape[:3])
  every = numbers * values.shape[3] * values.dtype.itemsize
  places = 8 * (3 * numbers + math.prod(wide)) + 16 * moves
  return Made(w, every + places + w.bytes)


def unknown(f: Fields) -> Made:
  """A kind that was added to the table without a rule: traced by JAX."""
  arrays = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
    f.node.replace(**f.inner),
    is_leaf=is_array,
  )
  try:
    shape = jax.eval_shape(lambda node: node.decode(), arrays)
  except Exception as e:  # whatever ill-matched fields make a node raise
    raise damaged(f'a node that decodes at {f.path}', repr(e)) from e
  w = Leaf(tuple(shape.shape), np.dtype(shape.dtype))
  stored = sum(Leaf(x.shape, x.dtype).bytes for x in jax.tree.leaves(arrays))
  return Made(w, 4 * (w.bytes + stored))


RULES: dict[str, Rule] = {
  'Arranged': arranged,
  'Binarized': binarized,
  'Folded': folded,
  'Half': half,
  'Hashed': hashed,
  'LowRank': product('u', 'v'),
  'Masked': masked,
  'Narrowed': narrowed,
  'Products': products,
  'Quantized': quantized,
  'Separable': product('u', 'rows', 'columns', 'v'),
  'Shared': shared,
  'Shifted': quantized,
  'Signed': signed,
  'Sliced': sliced,
  'Structured': structured,
  'Summed': summed,
  'Transferred': transferred,
  'Tucker': product('u', 'core', 'v'),
}
