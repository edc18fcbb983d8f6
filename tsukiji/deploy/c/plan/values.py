"""What nodes of a graph give, before it is written as C.

A value is an expression of numbers in memory. Where an array lies is itself an
array, of places in a buffer: operators that only move numbers are applied to
the places, and cost nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

FLOAT, CODE = 'float', 'uint8_t'


class Buffer(NamedTuple):
  """Memory that one step writes.

  Attributes:
    name: In C.
    kind: Type of an entry.
    size: Entries.
  """

  name: str
  kind: str
  size: int


class Load(NamedTuple):
  """An array in memory.

  Attributes:
    buffer: Where.
    places: int32, of the shape of the array: the entry of each number.
    kind: Type of a number once it is read.
  """

  buffer: Buffer
  places: np.ndarray
  kind: str


class Const(NamedTuple):
  """An array that is known.

  Attributes:
    array: The numbers, of the shape of the array.
    kind: Their type.
  """

  array: np.ndarray
  kind: str


class Expr(NamedTuple):
  """An operator on arrays of one shape, not computed yet.

  Attributes:
    op: Its name.
    args: What it reads.
    kind: Type of the result.
    attrs: Its settings.
  """

  op: str
  args: tuple[Any, ...]
  kind: str
  attrs: Mapping[str, Any] = {}


Value: TypeAlias = Load | Const | Expr


def shape_of(x: Value) -> tuple[int, ...]:
  """Return the shape of a value."""
  while isinstance(x, Expr):
    x = x.args[0]
  return x.places.shape if isinstance(x, Load) else x.array.shape


def loads(x: Value) -> Iterator[Load]:
  """Yield the arrays in memory that a value reads."""
  if isinstance(x, Load):
    yield x
  for arg in x.args if isinstance(x, Expr) else ():
    yield from loads(arg)


def moved(x: Value, move: Callable[[np.ndarray], np.ndarray]) -> Value:
  """Return a value whose numbers are moved.

  Args:
    x: The value.
    move: Array -> array of some of its entries.

  >>> moved(Const(np.arange(3), 'int32_t'), lambda x: x[::-1]).array.tolist()
  [2, 1, 0]
  """
  done: dict[int, Value] = {}

  def visit(x: Value) -> Value:
    if id(x) not in done:
      if isinstance(x, Load):
        done[id(x)] = x._replace(places=move(x.places))
      elif isinstance(x, Const):
        done[id(x)] = x._replace(array=move(x.array))
      else:
        done[id(x)] = x._replace(args=tuple(map(visit, x.args)))
    return done[id(x)]

  return visit(x)


def widened(x: Value, shape: tuple[int, ...]) -> Value:
  """Return a value that is broadcast to a shape."""
  if shape_of(x) == shape:
    return x
  return moved(x, lambda places: np.broadcast_to(places, shape))


def replaced(x: Value, buffer: Buffer, by: Value) -> Value:
  """Return a value that reads something else in place of a buffer.

  Args:
    x: The value.
    buffer: What is no longer read; all of its loads are alike.
    by: What is read instead.
  """
  done: dict[int, Value] = {}

  def visit(x: Value) -> Value:
    if id(x) not in done:
      if isinstance(x, Expr):
        done[id(x)] = x._replace(args=tuple(map(visit, x.args)))
      else:
        here = isinstance(x, Load) and x.buffer == buffer
        done[id(x)] = by if here else x
    return done[id(x)]

  return visit(x)


KINDS = {
  'bool': 'uint8_t',
  **{
    f'{sign}int{bits}': f'{sign}int{bits}_t'
    for sign in ('', 'u')
    for bits in (8, 16, 32, 64)
  },
}
SIZES = {
  'float': 4,
  **{f'{x}int{n}_t': n // 8 for x in ('', 'u') for n in (8, 16, 32, 64)},
}


def kind_of(dtype: Any) -> str:
  """Return the C type of a type; every float is float32.

  >>> kind_of('bfloat16'), kind_of(np.dtype('bool'))
  ('float', 'uint8_t')
  """
  return KINDS.get(np.dtype(dtype).name, FLOAT)
