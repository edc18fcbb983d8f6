"""Print where the bytes of a packed network go: `python -m tsukiji.info`."""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from compress import tree
from tsukiji.console import plain, printable
from tsukiji.deploy import artefact
from tsukiji.deploy.tsk import pack
from tsukiji.deploy.tsk.pack import Section

HEADER = 'header'


class Line(NamedTuple):
  """An array of the network, in the file.

  Attributes:
    name: A path such as 'conv1/kernel', or 'header' for all but the arrays.
    shape: Shape of the decoded array.
    method: The nodes that represent it, the outermost first; '' for an array.
    bits: Width of its grid; None for the header.
    coding: Coding of its largest part (`coding.describe`).
    bytes: Its bytes in the file.
    share: Its share of the file, in [0, 1].
  """

  name: str
  shape: tuple[int, ...]
  method: str
  bits: int | None
  coding: str
  bytes: int
  share: float


def lines(blob: bytes) -> list[Line]:
  """Return where every byte of a file goes: the bytes sum to its size.

  Args:
    blob: What `pack.pack` returned.

  Returns:
    The header, then one line per array, in the order of the file.

  Raises:
    ValueError: If the file is damaged, foreign, or of another version.
  """
  arrays = tree.paths(pack.unpack(blob).variables)
  owned: dict[str, list[Section]] = {}
  for section in pack.sections(blob):
    owned.setdefault(_owner(section.path, arrays), []).append(section)
  return [
    _line(name, arrays.get(name), parts, len(blob))
    for name, parts in owned.items()
  ]


def _owner(path: str, arrays: dict[str, Any]) -> str:
  """Return the path of the array that a part of a file belongs to."""
  while path not in arrays and '/' in path:
    path = path.rpartition('/')[0]
  return path


def _line(name: str, x: Any, parts: Sequence[Section], size: int) -> Line:
  total = sum(part.bytes for part in parts)
  return Line(
    name.partition('/')[2] or name,
    () if x is None else x.shape,
    _method(x),
    _bits(x),
    max(parts, key=lambda part: part.bytes).coding,
    total,
    total / size,
  )


def _method(x: Any) -> str:
  kinds = []
  while tree.is_node(x):
    kinds.append(type(x).__name__)
    x = getattr(x, x.inner[0]) if x.inner else None
  return ' of '.join(kinds)


def _bits(x: Any) -> int | None:
  """Return the width of a node's grid, or of that of the node inside."""
  while tree.is_node(x):
    bits = getattr(x, 'bits', None)
    if isinstance(bits, int):
      return bits
    x = getattr(x, x.inner[0]) if x.inner else None
  return None if x is None else 8 * x.dtype.itemsize


def table(blob: bytes) -> Table:
  """Return the lines as a table with their sum."""
  out = Table(box=None, pad_edge=False)
  for head in ('array', 'shape', 'method'):
    out.add_column(head)
  for head in ('bits', 'bytes', 'share, %'):
    out.add_column(head, justify='right')
  out.add_column('coding')
  for line in lines(blob):
    out.add_row(
      plain(line.name),
      ' x '.join(map(str, line.shape)),
      line.method,
      '' if line.bits is None else str(line.bits),
      f'{line.bytes:,}',
      f'{100 * line.share:.1f}',
      line.coding,
    )
  out.add_section()
  out.add_row('sum', '', '', '', f'{len(blob):,}', '100.0', '')
  return out


def main(argv: Sequence[str]) -> int:
  """Print the table of each file that is named."""
  if not argv:
    print('Error: expected files *.tsk, got none.', file=sys.stderr)
    return 2
  console = Console(width=None if sys.stdout.isatty() else 120)
  try:
    for name in argv:
      blob = artefact.read(name)
      packed = pack.unpack(blob)
      recipe = packed.meta.get('recipe')
      title = f'{name}: {packed.name}'
      console.print(plain(f'{title}, {recipe}' if recipe else title))
      console.print(table(blob))
  except (ValueError, OSError) as e:
    print('Error:', *printable(e).split(), file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
