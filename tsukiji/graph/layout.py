"""JAX primitives that move numbers, without sizes where it is possible."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tsukiji.graph.builder import Builder, Shape, Value
from tsukiji.graph.nodes import Ref
from tsukiji.graph.primitives import plain


def _transpose(builder: Builder, eqn: Any, xs: list[Value]) -> Value:
  order = plain(eqn.params['permutation'])
  shape = tuple(xs[0].shape[i] for i in order)
  return Value(builder.add('transpose', xs[0].ref, order=order), shape)


def _broadcast(builder: Builder, eqn: Any, xs: list[Value]) -> Value:
  """Add axes of size 1: what reads it broadcasts, or asks for the whole."""
  rank, kept = len(eqn.params['shape']), eqn.params['broadcast_dimensions']
  x = xs[0]
  axes = tuple(i for i in range(rank) if i not in kept)
  if not axes:
    return x
  shape = [1] * rank
  for size, i in zip(x.shape, kept, strict=True):
    shape[i] = size
  made = builder.add('expand', x.ref, axes=axes)
  builder.origins[made] = builder.origin(x)
  return Value(made, tuple(shape))


def _reshape(builder: Builder, eqn: Any, xs: list[Value]) -> Value:
  """Reshape what was there before any reshape, if its shape was another."""
  before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
  x = builder.origin(Value(builder.whole(xs[0], eqn.invars[0].aval), before))
  if x.shape == after:
    return x
  made = builder.add('reshape', x.ref, groups=groups(x.shape, after))
  builder.origins[made] = x
  return Value(made, after)


def groups(before: Shape, after: Shape) -> Any:
  """Return which axes a reshape joins, and into which sizes it splits them.

  >>> groups((5, 2, 3, 4), (5, 6, 2, 2))
  (((0,), (5,)), ((1, 2), (6,)), ((3,), (2, 2)))
  """
  found: list[tuple[Shape, Shape]] = []
  i = j = 0
  while i < len(before) or j < len(after):
    a, b = before[i : i + 1], after[j : j + 1]
    if b == (1,) and a != (1,):
      found.append(((), (1,)))
      j += 1
      continue
    if a == (1,) and b != (1,):
      found.append(((i,), ()))
      i += 1
      continue
    axes, sizes = [i], [after[j]]
    i, j = i + 1, j + 1
    while (have := math.prod(before[k] for k in axes)) != math.prod(sizes):
      if have < math.prod(sizes):
        axes.append(i)
        i += 1
      else:
        sizes.append(after[j])
        j += 1
    found.append((tuple(axes), tuple(sizes)))
  return tuple(found)


def _gather(builder: Builder, eqn: Any, xs: list[Value]) -> Value:
  """Take entries along one axis, as `jnp.take` does."""
  p, numbers = eqn.params, eqn.params['dimension_numbers']
  before, shape = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
  index = eqn.invars[1].aval
  (axis, *others) = numbers.start_index_map
  sizes = tuple(1 if i == axis else n for i, n in enumerate(before))
  rank = index.ndim - 1
  kept = [i for i in range(len(shape)) if i not in numbers.offset_dims]
  simple = (
    not others
    and not numbers.operand_batching_dims
    and numbers.collapsed_slice_dims == (axis,)
    and tuple(p['slice_sizes']) == sizes
    and kept == [*range(axis, axis + rank)]
  )
  if not simple:
    raise ValueError(
      f'graph: expected a lookup along one axis, got {numbers}{builder.where}.'
      ' Write it with jnp.take.'
    )
  table = builder.whole(xs[0], eqn.invars[0].aval)
  places = builder.whole(xs[1], index)
  flat = ((rank,), ())
  joined = tuple(((i,), (n,)) for i, n in enumerate(index.shape[:-1]))
  places = builder.add('reshape', places, groups=(*joined, flat))
  mode = {'CLIP': 'clip', 'FILL_OR_DROP': 'fill'}.get(p['mode'].name, 'clip')
  made = builder.add('take', table, places, axis=axis, mode=mode)
  return Value(made, shape)


def _clamp(builder: Builder, eqn: Any, xs: list[Value]) -> Value:
  low, x, high = xs
  above = builder.add('max', x.ref, low.ref)
  shape = np.broadcast_shapes(*(v.shape for v in xs))
  return Value(builder.add('min', above, high.ref), shape)


def _stack(builder: Builder, eqn: Any, xs: list[Value]) -> Value:
  """Give each array an axis and join them."""
  axis, shape = eqn.params['axis'], tuple(eqn.outvars[0].aval.shape)
  refs = [builder.whole(x, v.aval) for x, v in zip(xs, eqn.invars, strict=True)]
  parts = [builder.add('expand', ref, axes=(axis,)) for ref in refs]
  return Value(builder.add('concat', *parts, axis=axis), shape)


def _tile(builder: Builder, eqn: Any, xs: list[Value]) -> Value:
  """Join an array to itself along each axis."""
  ref = builder.whole(xs[0], eqn.invars[0].aval)
  for axis, count in enumerate(eqn.params['reps']):
    if count != 1:
      ref = builder.add('concat', *[ref] * count, axis=axis)
  return Value(ref, tuple(eqn.outvars[0].aval.shape))


LAYOUT: dict[str, Callable[[Builder, Any, list[Value]], Value]] = {
  'broadcast_in_dim': _broadcast,
  'clamp': _clamp,
  'expand_dims': _reshape,
  'gather': _gather,
  'reshape': _reshape,
  'squeeze': _reshape,
  'stack': _stack,
  'tile': _tile,
  'transpose': _transpose,
}


def operands(builder: Builder, xs: list[Value]) -> list[Ref]:
  """Return operands without leading axes of size 1 that broadcasting adds.

  One of the highest rank stays, so that the result has that rank.
  """
  bare = [_bare(builder, x.ref) for x in xs]
  ranks = [len(x.shape) for x in xs]
  whole = [i for i, rank in enumerate(ranks) if rank == max(ranks)]
  kept = next((i for i in whole if bare[i] is xs[i].ref), whole[0])
  return [x.ref if i == kept else bare[i] for i, x in enumerate(xs)]


def _bare(builder: Builder, ref: Ref) -> Ref:
  """Return what is read, before axes of size 1 were put in front of it."""
  if isinstance(ref, np.ndarray):
    sizes = ref.shape
    while sizes[:1] == (1,):
      sizes = sizes[1:]
    return ref if sizes == ref.shape else ref.reshape(sizes)
  if not isinstance(ref, int):
    return ref
  node = builder.nodes[ref]
  if node.op == 'expand':
    front = node.attrs['axes'] == (*range(len(node.attrs['axes'])),)
    return _bare(builder, node.inputs[0]) if front else ref
  if node.op != 'reshape':
    return ref
  more = [*itertools.dropwhile(lambda g: g == ((), (1,)), node.attrs['groups'])]
  plain = all(
    axes == (i,) and len(sizes) == 1 for i, (axes, sizes) in enumerate(more)
  )
  return _bare(builder, node.inputs[0]) if plain else ref


def split(builder: Builder, eqn: Any, xs: list[Value]) -> list[Value]:
  """Write `split` as one slice a part."""
  axis, at, found = eqn.params['axis'], 0, []
  ref, rank = builder.whole(xs[0], eqn.invars[0].aval), len(xs[0].shape)
  for v in eqn.outvars:
    size = v.aval.shape[axis]
    begin = tuple(at if i == axis else 0 for i in range(rank))
    end = tuple(at + size if i == axis else None for i in range(rank))
    part = builder.add('slice', ref, begin=begin, end=end, strides=(1,) * rank)
    found.append(Value(part, tuple(v.aval.shape)))
    at += size
  return found
