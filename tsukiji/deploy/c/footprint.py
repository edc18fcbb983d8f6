"""Memory that a C file takes on a device."""

from typing import NamedTuple

from tsukiji.deploy.c.source import Source

MOST = 6  # steps that a message lists


class Limits(NamedTuple):
  """Memory of a device; 0 where it does not matter.

  Attributes:
    flash: Bytes for constants.
    ram: Bytes for scratch memory, the stack, an input and an output.
  """

  flash: int = 0
  ram: int = 0


NO_LIMITS = Limits()


def ram(source: Source) -> int:
  """Return the bytes of memory that one call needs, its arguments included."""
  return source.scratch_bytes + source.stack_bytes + source.ends_bytes


def check(source: Source, limits: Limits) -> None:
  """Raise ValueError if a network takes more memory than there is.

  Args:
    source: The network.
    limits: The memory.

  Raises:
    ValueError: With the steps that take most of it.
  """
  pairs = (
    ('flash', limits.flash, source.weight_bytes, 1),
    ('ram', limits.ram, ram(source), 2),
  )
  for name, most, taken, column in pairs:
    if most and taken > most:
      rows = sorted(source.layers, key=lambda x: -x[column])[:MOST]
      table = ', '.join(f'{x[0]} {x[column]}' for x in rows if x[column])
      raise ValueError(
        f'config.export.{name}: expected a network of at most {most} bytes, '
        f'got {taken}: {table}. Compress these further.'
      )


def table(source: Source) -> str:
  """Return the bytes of each step: constants, and its result in memory."""
  rows = [
    f'{name:20} {constants:>8} {result:>8}'
    for name, constants, result in source.layers
  ]
  total = f'{"total":20} {source.weight_bytes:>8} {ram(source):>8}'
  return '\n'.join([f'{"step":20} {"flash":>8} {"ram":>8}', *rows, total])
