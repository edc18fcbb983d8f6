"""Products, lookups and joins of parameters."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp

from compress.dataflow import interpreter
from compress.dataflow.interpreter import Data, Product, Results, Scope, bind
from compress.dataflow.views import Parts, View
from compress.tree import Array


def product(
  eqn: Any, args: list[Any], marks: list[Any], scope: Scope
) -> Results:
  """Give the hook the product of a parameter and an input."""
  both = [isinstance(mark, View | Parts) for mark in marks[:2]]
  if all(both):  # of two parameters, as of the factors of a weight
    outs = bind(eqn, args)
    for mark in marks[:2]:
      for view in interpreter.views_of(mark):
        outs[0] = scope.used(view, 'weights', outs[0])
    return outs, [None]
  side = both.index(True)
  place = 1 - side
  if isinstance(marks[side], Parts):
    return _joined_product(eqn, args, marks[side], side, scope)

  def multiply(x: Array) -> Array:
    operands = (args[side], x) if side == 0 else (x, args[side])
    return scope.hook.compute(eqn, operands)

  product = Product(marks[side], eqn, side, args[side].size, scope.loops)
  y, found = scope.hook.product(product, args[place], multiply)
  scope.add(found)
  return [y], [Data()]


def _joined_product(
  eqn: Any, args: list[Any], parts: Parts, side: int, scope: Scope
) -> Results:
  """Multiply weights that are joined along their outputs one by one.

  The product of all is used for those whose input is not changed.
  """
  whole = bind(eqn, args)[0]
  axis = _output_axis(eqn, side, parts.axis)
  if axis is None:
    for view in filter(None, parts.views):
      scope.hook.unknown(view, 'it is joined to others along its inputs')
    return [whole], [Data()]
  x, ys = args[1 - side], []
  starts = itertools.accumulate(parts.sizes, initial=0)
  for part, size, start in zip(parts.views, parts.sizes, starts, strict=False):
    w = jax.lax.slice_in_dim(args[side], start, start + size, axis=parts.axis)
    y = jax.lax.slice_in_dim(whole, start, start + size, axis=axis)
    if part is not None:

      def multiply(given: Array, w: Array = w, y: Array = y) -> Array:
        operands = (w, given) if side == 0 else (given, w)
        return y if given is x else bind(eqn, operands)[0]

      product = Product(part, eqn, side, w.size, scope.loops)
      found, records = scope.hook.product(product, x, multiply)
      scope.add(records)
      ys.append((found, found is y))
    else:
      ys.append((y, True))
  if all(same for _, same in ys):
    return [whole], [Data()]
  return [jnp.concatenate([y for y, _ in ys], axis)], [Data()]


def _output_axis(eqn: Any, side: int, axis: int) -> int | None:
  """Return the axis of a `dot_general` that an axis of an operand becomes."""
  if eqn.primitive.name != 'dot_general':
    return None
  contracted, batched = eqn.params['dimension_numbers']
  if axis in contracted[side] or axis in batched[side]:
    return None
  rank = eqn.invars[side].aval.ndim
  free = [
    i for i in range(rank) if i not in (*contracted[side], *batched[side])
  ]
  first = len(batched[0])
  if side == 1:
    x = eqn.invars[0].aval.ndim
    first += x - len(contracted[0]) - len(batched[0])
  return first + free.index(axis)


def gather(
  eqn: Any, args: list[Any], marks: list[Any], scope: Scope
) -> Results:
  """Record which parameter is looked up."""
  outs = bind(eqn, args)
  if isinstance(marks[0], View):
    outs[0] = scope.used(marks[0], 'gather', outs[0])
  return outs, [Data()]


def concatenate(
  eqn: Any, args: list[Any], marks: list[Any], scope: Scope
) -> Results:
  """Join parameters."""
  outs = bind(eqn, args)
  if any(isinstance(mark, Data | Parts) for mark in marks):
    for view in (v for mark in marks for v in interpreter.views_of(mark)):
      outs[0] = scope.used(view, 'concatenate', outs[0])
    return outs, [Data()]
  axis = eqn.params['dimension']
  sizes = tuple(v.aval.shape[axis] for v in eqn.invars)
  own = tuple(m if isinstance(m, View) else None for m in marks)
  return outs, [Parts(own, sizes, axis)]
