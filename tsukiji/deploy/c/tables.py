"""Constants of a C file."""

import re
from typing import Any, NamedTuple

import numpy as np

from tsukiji.deploy.c.plan.values import FLOAT, SIZES

WIDTH = 77
UNSAFE = re.compile(r'[^\w ./:,>=()+-]', re.ASCII)
_NOT_FINITE = {'inf': 'INFINITY', '-inf': '-INFINITY', 'nan': 'NAN'}


class Table(NamedTuple):
  """A constant array.

  Attributes:
    name: In C.
    kind: Type of an entry.
    array: The numbers, flat.
    note: What they are.
  """

  name: str
  kind: str
  array: np.ndarray
  note: str


class Tables:
  """The constants of a file, each once.

  Attributes:
    prefix: Of their names.
    found: The constants so far.
  """

  def __init__(self, prefix: str) -> None:
    """Begin without constants."""
    self.prefix = prefix
    self.found: dict[Any, Table] = {}

  def add(self, array: Any, kind: str, note: str = '') -> str:
    """Add an array and return its name."""
    flat = np.ascontiguousarray(np.asarray(array).ravel())
    flat = flat if flat.size else np.zeros(1, flat.dtype)  # C has no empty ones
    key = kind, flat.dtype.str, flat.tobytes()
    name = f'{self.prefix}_c{len(self.found)}'
    return self.found.setdefault(key, Table(name, kind, flat, note)).name

  def indices(self, array: Any, note: str = 'places') -> str:
    """Add whole numbers in the narrowest type that holds them."""
    return self.add(array, index_kind(np.asarray(array)), note)

  @property
  def bytes(self) -> int:
    """Size of all constants."""
    return sum(x.array.size * SIZES[x.kind] for x in self.found.values())

  def texts(self) -> dict[str, str]:
    """Return the constants as C, by name."""
    return {x.name: _defined(x) for x in self.found.values()}


def index_kind(array: np.ndarray) -> str:
  """Return the narrowest type of whole numbers that holds an array."""
  low, high = int(array.min(initial=0)), int(array.max(initial=0))
  for kind in ('uint8', 'int8', 'uint16', 'int16'):
    if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
      return f'{kind}_t'
  return 'int32_t'


def comment(text: str) -> str:
  """Return a text as a comment of C.

  Paths of weights are from a file, which need not be trusted: nothing in them
  may end the comment.

  >>> comment('block/conv1/kernel'), comment('*/ int x; /*')
  ('/* block/conv1/kernel */', '/* _/ int x_ /_ */')
  """
  return f'/* {UNSAFE.sub("_", text)} */'


def _defined(table: Table) -> str:
  numbers = literals(table.array, table.kind)
  many = max(1, WIDTH // (2 + max(map(len, numbers), default=1)))
  rows = ',\n  '.join(
    ', '.join(numbers[i : i + many]) for i in range(0, len(numbers), many)
  )
  note = f'{comment(table.note)}\n' if table.note else ''
  size = table.array.size
  return (
    f'{note}static const {table.kind} {table.name}[{size}] = {{\n  {rows}\n}};'
  )


def literals(array: np.ndarray, kind: str) -> list[str]:
  """Return numbers as C.

  >>> literals(np.array([0.1, 2, np.inf]), 'float'), literals([3], 'int32_t')
  (['0.1f', '2.0f', 'INFINITY'], ['3'])
  """
  flat = np.asarray(array).ravel()
  if kind == FLOAT:
    flat = flat.astype(np.float32)
    words = flat.astype(str).tolist()
    if np.all(np.isfinite(flat)):
      return [f'{x}f' for x in words]
    return [_NOT_FINITE.get(x, f'{x}f') for x in words]
  if kind == 'uint32_t':
    return [f'0x{x:x}u' for x in flat.tolist()]
  return [*map(_integer, flat.tolist())]


def literal(x: Any, kind: str) -> str:
  """Return a number as C."""
  return literals(np.asarray(x), kind)[0]


def _integer(x: int) -> str:
  return 'INT32_MIN' if x == -(2**31) else str(x)
