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


def costs(source: Source) -> dict[str, float]:
  """Return the bytes of a network by the names of `Limits`."""
  return {'flash': source.weight_bytes, 'ram': ram(source)}


def check(source: Source, limits: Limits) -> None:
  """Raise ValueError if a network takes more memory than there is.

  Args:
    source: The network.
    limits: The memory.

  Raises:
    ValueError: With the steps that take most of it.
  """
  constants = {name: size for name, size, _ in source.layers}
  results = {name: size for name, _, size in source.layers}
  _expect('flash', limits.flash, source.weight_bytes, constants)
  _expect('ram', limits.ram, ram(source), results)


def _expect(name: str, most: int, taken: int, parts: dict[str, int]) -> None:
  if most and taken > most:
    large = sorted(parts.items(), key=lambda x: -x[1])[:MOST]
    listed = ', '.join(f'{step} {size}' for step, size in large if size)
    raise ValueError(
      f'config.export.{name}: expected a network of at most {most} bytes, got '
      f'{taken}: {listed}. Compress these further.'
    )


def table(source: Source) -> str:
  """Return the bytes of each step: constants, and its result in memory."""
  rows = [
    f'{name:20} {constants:>8} {result:>8}'
    for name, constants, result in source.layers
  ]
  total = f'{"total":20} {source.weight_bytes:>8} {ram(source):>8}'
  return '\n'.join([f'{"step":20} {"flash":>8} {"ram":>8}', *rows, total])
