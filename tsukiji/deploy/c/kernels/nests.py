"""Loops that compute one number after the other."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tsukiji.deploy.c import indices
from tsukiji.deploy.c.formulas import formula
from tsukiji.deploy.c.indices import Affine
from tsukiji.deploy.c.plan.values import (
  Buffer,
  Const,
  Expr,
  Load,
  Value,
  loads,
  moved,
)
from tsukiji.deploy.c.tables import Tables, literal

LETTERS = 'ijklmnopq'


class Scope:
  """Statements of one body of loops.

  Attributes:
    tables: Constants of the file.
    names: Of the loop variables, one an axis; '' of an axis of size 1.
    lines: The statements so far.
    given: Texts of what is known, by the name of its buffer.
  """

  def __init__(
    self,
    tables: Tables,
    names: Sequence[str],
    given: dict[str, str] | None = None,
  ) -> None:
    """Begin an empty body."""
    self.tables = tables
    self.names = names
    self.lines: list[str] = []
    self.given = given or {}
    self._done: dict[int, tuple[Value, str]] = {}

  def place(self, places: np.ndarray) -> str:
    """Return the C index of places of the shape of the loops."""
    found = indices.affine(places)
    if found is not None:
      return indices.formula(found, self.names)
    small = indices.least(places)
    name = self.tables.indices(small)
    at = Affine(0, indices.packed(small.shape))
    return f'{name}[{indices.formula(at, self.names)}]'

  def text(self, x: Value) -> str:
    """Append what a value needs and return the C of the value."""
    if id(x) not in self._done:
      self._done[id(x)] = x, self._text(x)
    return self._done[id(x)][1]

  def _text(self, x: Value) -> str:
    if isinstance(x, Const):
      small = indices.least(x.array)
      if small.size == 1:
        return literal(small, x.kind)
      name = self.tables.add(small, x.kind)
      at = Affine(0, indices.packed(small.shape))
      return f'{name}[{indices.formula(at, self.names)}]'
    if isinstance(x, Load):
      if x.buffer.name in self.given:
        return self.given[x.buffer.name]
      read = f'{x.buffer.name}[{self.place(x.places)}]'
      return self.named(x.kind, read)
    args = [self.text(arg) for arg in x.args]
    form = formula(x.op, x.kind, kind(x.args[0]), x.attrs)
    if form is None:
      raise unsupported(x.op, x.kind)
    if form == '{0}':
      return args[0]
    return self.named(x.kind, form.format(*map(_bracketed, args)))

  def named(self, kind: str, text: str) -> str:
    """Append a variable and return its name."""
    name = f't{len(self.lines)}'
    self.lines.append(f'const {kind} {name} = {text};')
    return name


def kind(x: Value) -> str:
  """Return the type of a value."""
  return x.kind


def _bracketed(text: str) -> str:
  return f'({text})' if text.startswith('-') else text


def unsupported(op: str, got: Any) -> ValueError:
  """Return the error of an operator without a kernel."""
  return ValueError(
    f'c: expected an operator that has a kernel, got {op} of {got}. Run the '
    'network in the engine jax or onnxruntime.'
  )


class Loops(NamedTuple):
  """Axes that are looped over.

  Attributes:
    shape: Their sizes.
    names: Of their variables.
  """

  shape: tuple[int, ...]
  names: tuple[str, ...]


def opened(loops: Loops, lines: Sequence[str]) -> list[str]:
  """Return statements inside loops.

  >>> print('\\n'.join(opened(Loops((2,), ('i',)), ['a[i] = 0;'])))
  for (int i = 0; i < 2; ++i) {
    a[i] = 0;
  }
  """
  found = [*lines]
  for n, name in reversed([*zip(loops.shape, loops.names, strict=True)]):
    if n > 1 and name:
      found = [
        f'for (int {name} = 0; {name} < {n}; ++{name}) {{',
        *indented(found),
        '}',
      ]
  return found


def indented(lines: Sequence[str]) -> list[str]:
  """Return lines one level deeper."""
  return [f'  {line}' if line else line for line in lines]


def stored(
  tables: Tables, value: Value, buffer: Buffer, places: np.ndarray
) -> list[str]:
  """Return loops that store a value.

  Args:
    tables: Constants of the file.
    value: The value.
    buffer: Where to.
    places: There, of the shape of the value.
  """
  value, places, loops = merged(value, places)
  scope = Scope(tables, loops.names)
  text = scope.text(value)
  line = f'{buffer.name}[{scope.place(places)}] = {cast(buffer, value)}{text};'
  return opened(loops, [*scope.lines, line])


def cast(buffer: Buffer, value: Value) -> str:
  """Return the cast that narrows a value to what a buffer stores."""
  return '' if buffer.kind == value.kind else f'({buffer.kind})'


def merged(value: Value, places: np.ndarray) -> tuple[Value, np.ndarray, Loops]:
  """Return a value and where it goes, over as few loops as possible."""
  shape = places.shape
  leaves = [places, *(x.places for x in loads(value))]
  found = [indices.affine(x) for x in leaves]
  strides = [x.strides for x in found if x is not None]
  if len(strides) < len(leaves):
    strides.append(indices.packed(shape))  # of a table
  strides += [indices.packed(small.shape) for small in constants(value)]
  groups = indices.joint(shape, strides)
  sizes = tuple(math.prod(shape[i] for i in group) for group in groups)
  names = tuple(LETTERS[: len(groups)])

  def move(x: np.ndarray) -> np.ndarray:
    return x.reshape(sizes)

  return moved(value, move), move(places), Loops(sizes, names)


def constants(x: Value) -> list[np.ndarray]:
  """Return the arrays that a value reads, as small as they can be stored."""
  if isinstance(x, Const):
    small = indices.least(x.array)
    return [small] if small.size > 1 else []
  if isinstance(x, Expr):
    return [small for arg in x.args for small in constants(arg)]
  return []
